//! Decisions that a gateway has recorded, made again by `wayside replay`: the real program on both sides.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test that cannot go on must fail")]

use crate::support::gateway::Gateway;
use crate::support::program::{Program, echo, get, until};
use std::path::{Path, PathBuf};
use std::process::Command;
use wayside::telemetry::recording::reader::{Frame, Reader};

const RULES: &str = "config = \"\"\"\n/api acme gold users-v2\n/api acme silver users\n\"\"\"\n";

fn prebuilt(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("guest-examples/prebuilt/{name}.wasm"))).unwrap()
}

/// Services `users` and `users-v2`, all decisions recorded, but for what `record` says otherwise.
fn gateway(record: &str) -> Gateway {
    let origin = echo();
    Gateway::with()
        .named("users")
        .endpoint(&origin)
        .named("users-v2")
        .endpoint(&origin)
        .route("match = { path_prefix = \"/\" }")
        .table(&format!("[record]\nsample = 1.0\ndirectory = \"records\"\n{record}"))
}

/// The files, once they hold so many decisions.
fn recorded(program: &Program, decisions: f64) -> PathBuf {
    until("it is recorded", || program.metric("wayside_recorded_total").is_some_and(|now| now >= decisions));
    program.folder().join("records")
}

/// What `wayside replay` says with these arguments: its exit code and its lines.
fn replay(program: &Program, arguments: &[&str]) -> (Option<i32>, Vec<String>) {
    replay_of(&program.folder().join("records"), program, arguments)
}

/// The same of these records.
fn replay_of(records: &Path, program: &Program, arguments: &[&str]) -> (Option<i32>, Vec<String>) {
    let policies = program.folder().join("policies");
    let mut command = Command::new(env!("CARGO_BIN_EXE_wayside"));
    command.arg("replay").arg(records).arg("--policies").arg(policies).args(arguments);
    let done = command.output().unwrap();
    let text = String::from_utf8(done.stdout).unwrap() + &String::from_utf8_lossy(&done.stderr);
    (done.status.code(), text.lines().map(str::to_owned).collect())
}

/// One of the counts that it ends with.
fn count(lines: &[String], name: &str) -> u64 {
    let counts = lines.iter().find(|line| line.starts_with("{\"replayed\"")).unwrap_or_else(|| panic!("{lines:?}"));
    serde_json::from_str::<serde_json::Value>(counts).unwrap()[name].as_u64().unwrap()
}

#[test]
fn the_same_versions_come_to_the_same_and_another_one_differs_where_it_does() {
    let program = gateway("")
        .policy("tenant.wasm", prebuilt("tenant"))
        .policy("tenant.toml", RULES)
        .policy("zoned.wasm", prebuilt("least-loaded"))
        .start();
    let tiers = ["gold", "silver", "none"];
    for number in 0..60 {
        let tier = tiers[number % 3];
        get(&program.address, &format!("/api/{number}"), &[("x-tenant", "acme"), ("x-tier", tier)]);
    }
    // Those of the third tier are the second policy's.
    recorded(&program, 60.0);
    until("the last block is written", || {
        let (_, lines) = replay(&program, &["--json"]);
        count(&lines, "replayed") == 80
    });
    let (code, lines) = replay(&program, &["--json"]);
    assert_eq!((code, count(&lines, "changed"), count(&lines, "unknown")), (Some(0), 0, 0), "{lines:?}");

    let other = program.folder().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("tenant.wasm"), prebuilt("tenant")).unwrap();
    let other = other.join("tenant.wasm").display().to_string();
    // Gold goes where it went, silver elsewhere.
    let config = "/api acme gold users-v2\n/api acme silver users-v2\n";
    let (code, lines) = replay(&program, &["--policy", &other, "--config", config, "--json", "--threads", "2"]);
    assert_eq!((code, count(&lines, "replayed"), count(&lines, "changed")), (Some(1), 60, 20), "{lines:?}");
    let differences: Vec<serde_json::Value> = lines
        .iter()
        .filter(|line| line.contains("\"record\""))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(differences.len(), 20);
    for difference in &differences {
        assert_eq!(difference["fields"], serde_json::json!(["service"]), "{difference}");
        assert_eq!(difference["before"]["said"]["forward"]["service"], "users");
        assert_eq!(difference["after"]["said"]["forward"]["service"], "users-v2");
    }
    assert!(lines.iter().any(|line| line.starts_with("20 × tenant changed: forward users → forward users-v2")));
    // The same component with the same rules, written otherwise: the reasons are no decision.
    let (code, lines) =
        replay(&program, &["--policy", &other, "--config", "/api acme silver users\n/api acme gold users-v2"]);
    assert_eq!((code, count(&lines, "changed")), (Some(0), 0), "{lines:?}");

    let (code, lines) = replay(&program, &["--as-case", "1"]);
    let case: toml::Table = toml::from_str(&lines.join("\n")).unwrap();
    let case = &case["case"][0];
    assert_eq!(code, Some(0));
    assert_eq!(
        (case["expect"]["decision"].as_str(), case["expect"]["service"].as_str()),
        (Some("forward"), Some("users-v2"))
    );
    assert_eq!(replay(&program, &["--as-case", "1000"]).0, Some(1));
}

#[test]
fn what_is_taken_out_is_in_no_file_and_what_hangs_on_it_is_counted_apart() {
    let program =
        gateway("redact = [\"cookie:*\", \"header:authorization\"]").policy("sticky.wasm", prebuilt("sticky")).start();
    let headers = [("cookie", "theme=dark; sid=Secret-Session-7"), ("authorization", "Bearer t0ken-of-ada")];
    // The policy makes a cookie up for a client without one, which is as secret as the one that comes back.
    let answer = get(&program.address, "/a", &[]);
    let made_up = answer.split("set-cookie: sid=").nth(1).unwrap().split(';').next().unwrap().to_owned();
    for _ in 0..5 {
        get(&program.address, "/a?copy=Secret-Session-7", &headers);
    }
    let folder = recorded(&program, 6.0);
    until("it is written", || count(&replay_all(&program), "hidden") == 6);
    let mut entries_seen = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let mut reader = Reader::new(std::fs::File::open(file.unwrap().path()).unwrap());
        while let Some(frame) = reader.frame().unwrap() {
            if let Frame::Entries(entries) = &frame {
                for (_, entry) in entries.iter() {
                    entries_seen += 1;
                    let bytes = String::from_utf8_lossy(&entry.bytes()).to_ascii_lowercase();
                    for secret in ["secret-session-7", "t0ken-of-ada", "dark", &made_up] {
                        assert!(!bytes.contains(secret), "{secret}");
                    }
                    assert!(bytes.contains("users"));
                }
            }
        }
    }
    assert_eq!(entries_seen, 6);
    let lines = replay_all(&program);
    assert_eq!((count(&lines, "replayed"), count(&lines, "changed")), (0, 0));
}

fn replay_all(program: &Program) -> Vec<String> {
    replay(program, &["--json"]).1
}

#[test]
fn what_a_killed_gateway_has_written_is_replayed() {
    let program = gateway("redact = []")
        .policy("canary.wasm", prebuilt("canary"))
        .policy("canary.toml", "config = \"50\"")
        .start();
    let mut sent = 0;
    // Until a block was written, and some more that will never be.
    let size = |program: &Program| -> u64 {
        let files = std::fs::read_dir(program.folder().join("records")).into_iter().flatten().flatten();
        files.filter_map(|file| file.metadata().ok()).map(|meta| meta.len()).sum()
    };
    until("a block is written", || {
        get(&program.address, "/", &[("cookie", &format!("sid={sent}"))]);
        sent += 1;
        size(&program) > 4096
    });
    program.signal("KILL");
    let folder = program.folder().to_owned();
    // Its folder goes with it.
    let kept = tempfile::tempdir().unwrap();
    for name in ["records", "policies"] {
        std::fs::create_dir(kept.path().join(name)).unwrap();
        for file in std::fs::read_dir(folder.join(name)).unwrap().flatten().filter(|file| file.path().is_file()) {
            std::fs::copy(file.path(), kept.path().join(name).join(file.file_name())).unwrap();
        }
    }
    let run = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wayside"));
        command.arg("replay").arg(kept.path().join("records")).arg("--policies").arg(kept.path().join("policies"));
        let done = command.output().unwrap();
        (done.status.code(), String::from_utf8(done.stdout).unwrap().lines().map(str::to_owned).collect::<Vec<_>>())
    };
    let (code, lines) = run();
    let whole = count(&lines, "replayed");
    assert!(code == Some(0) && whole > 0 && whole <= sent && count(&lines, "changed") == 0, "{lines:?}");
    // Half of its last frame is missing.
    let file = std::fs::read_dir(kept.path().join("records")).unwrap().next().unwrap().unwrap().path();
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() - 20]).unwrap();
    let (_, lines) = run();
    assert!(count(&lines, "replayed") < whole && count(&lines, "changed") == 0, "{lines:?}");
}

#[test]
fn a_record_of_the_next_while_is_fetched_from_a_running_gateway_by_who_has_the_token() {
    let origin = echo();
    let program = Gateway::with()
        .named("users")
        .endpoint(&origin)
        .named("users-v2")
        .endpoint(&origin)
        .route("match = { path_prefix = \"/\" }")
        .policy("tenant.wasm", prebuilt("tenant"))
        .policy("tenant.toml", RULES)
        .start();
    let (token, out) = (program.folder().join(".wayside/admin-token"), program.folder().join("out.wsr"));
    let record = |token: &Path, time: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wayside"));
        command.args(["record", "--for", time, "--admin", &program.admin, "--token"]).arg(token);
        command.arg("--out").arg(&out).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        command.spawn().unwrap()
    };
    let refused = |token: &Path, time: &str| {
        let done = record(token, time).wait_with_output().unwrap();
        assert!(!done.status.success());
        let _ = std::fs::remove_file(&out);
        String::from_utf8(done.stderr).unwrap()
    };
    let other = program.folder().join("other-token");
    std::fs::write(&other, "0123456789abcdef0123456789abcdef").unwrap();
    std::fs::set_permissions(&other, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let told = refused(&other, "1s");
    assert!(told.contains("This is not the token."), "{told}");
    let told = refused(&token, "2h");
    assert!(told.contains("at most an hour"), "{told}");

    let mut recording = record(&token, "1s");
    let mut sent = 0;
    while recording.try_wait().unwrap().is_none() {
        get(&program.address, &format!("/api/{sent}"), &[("x-tenant", "acme"), ("x-tier", "gold")]);
        sent += 1;
    }
    let done = recording.wait_with_output().unwrap();
    let text = String::from_utf8(done.stdout).unwrap() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && text.contains("wayside replay"), "{text}");
    let (code, lines) = replay_of(&out, &program, &["--json"]);
    assert!(code == Some(0) && count(&lines, "replayed") > 0 && count(&lines, "replayed") <= sent, "{lines:?}");
    assert_eq!(count(&lines, "changed"), 0);
    // Nothing of it is left with the gateway.
    let left = || std::fs::read_dir(program.folder().join("records")).into_iter().flatten().count();
    until("the gateway's own file is gone", || left() == 0);
}
