//! Policies in trouble, in the real program: one that goes wrong, a program that was replaced while it ran, and a process
//! that may not have much.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

use crate::support::program::{Program, until};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

const CANARY: &[u8] = include_bytes!("../guest-examples/prebuilt/canary.wasm");
const HOSTILE: &[u8] = include_bytes!("guests/hostile.wasm");

/// A folder with these policies.
fn folder(policies: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("policies")).unwrap();
    for (name, content) in policies {
        std::fs::write(folder.path().join("policies").join(name), content).unwrap();
    }
    folder
}

const CONFIG: &str = "[policies]\ndirectory = \"policies\"\n";

fn policy(gateway: &Program, index: usize) -> Value {
    serde_json::from_str::<Value>(&gateway.ask("/policies")).unwrap()["policies"][index].clone()
}

/// Ten requests in a second, say, that all go wrong; then it is suspended.
fn goes_wrong(gateway: &Program, times: usize) {
    for _ in 0..times {
        assert!(gateway.get("/", &[("x-hostile", "panic")]).starts_with("HTTP/1.1 503"));
    }
}

#[test]
fn a_suspension_says_why_and_until_when_and_outlives_a_restart() {
    let gateway = Program::start(folder(&[("p.wasm", HOSTILE), ("p.toml", b"")]), CONFIG, &[]);
    let id = policy(&gateway, 0)["version"].as_str().unwrap().to_owned();
    // One request in three goes wrong: that takes nothing away from the others.
    for _ in 0..20 {
        goes_wrong(&gateway, 1);
        for _ in 0..2 {
            assert!(gateway.get("/", &[]).starts_with("HTTP/1.1 404"), "it says `next`");
        }
    }
    assert_eq!((&policy(&gateway, 0)["state"], &policy(&gateway, 0)["reason"]), (&"live".into(), &Value::Null));
    until("it is suspended", || {
        goes_wrong(&gateway, 1);
        policy(&gateway, 0)["state"] == "suspended"
    });
    let suspended = policy(&gateway, 0);
    assert!(suspended["reason"].as_str().unwrap().contains("went wrong"), "{suspended}");
    let until_then = humantime::parse_rfc3339(suspended["until"].as_str().unwrap()).unwrap();
    let left = until_then.duration_since(std::time::SystemTime::now()).unwrap();
    assert!((1..=11).contains(&left.as_secs()), "{left:?}");
    let label = format!("{{policy=\"p\",version=\"{id}\"}}");
    assert_eq!(gateway.metric(&format!("wayside_policy_suspensions_total{label}")), Some(1.0));
    assert_eq!(gateway.metric(&format!("wayside_policy_suspended{label}")), Some(1.0));
    // Nobody is told of each of these.
    gateway.lines_so_far("");
    goes_wrong(&gateway, 200);
    assert!(gateway.lines_so_far("policy fault") <= 3);

    let kept = gateway.folder().join(".wayside/policy-cache");
    let is_kept = |entry: std::io::Result<std::fs::DirEntry>| {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap_or_default();
        text.contains("in_a_row")
    };
    until("it is on disk", || std::fs::read_dir(&kept).unwrap().any(is_kept));
    let gateway = gateway.restart();
    assert_eq!(policy(&gateway, 0)["state"], "live", "it begins with the trial");
    goes_wrong(&gateway, 5);
    let suspended = policy(&gateway, 0);
    assert_eq!(suspended["state"], "suspended");
    let until_then = humantime::parse_rfc3339(suspended["until"].as_str().unwrap()).unwrap();
    let left = until_then.duration_since(std::time::SystemTime::now()).unwrap();
    assert!(left.as_secs() > 11, "the doubled time: {left:?}");
}

#[test]
fn a_program_that_was_replaced_while_it_ran_still_compiles() {
    let folder = folder(&[("a.wasm", CANARY)]);
    std::fs::write(
        folder.path().join("wayside.toml"),
        format!("[gateway]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n{CONFIG}"),
    )
    .unwrap();
    let program = folder.path().join("wayside");
    // By another process, since a file that this one has written may still be open in another test's child.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_wayside")).arg(&program).status().unwrap();
    assert!(copied.success());
    let gateway = Program::launch(&program, folder, &[]);
    std::fs::remove_file(&program).unwrap();
    std::fs::write(&program, "another version").unwrap();
    let policies = gateway.folder().join("policies");
    std::fs::write(policies.join("b.toml"), "").unwrap();
    std::fs::write(policies.join("b.wasm"), HOSTILE).unwrap();
    until("the new policy answers", || policy(&gateway, 1)["state"] == "live");
}

/// Starts the program under a limit that a shell sets.
fn limited(limit: &str, folder: TempDir) -> Program {
    let program = folder.path().join("limited");
    let script = format!(
        "cat > '{0}' <<'END'\n#!/bin/sh\n{limit}\nexec '{1}' \"$@\"\nEND\nchmod +x '{0}'",
        program.display(),
        env!("CARGO_BIN_EXE_wayside")
    );
    assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
    let config = format!("[gateway]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\nworkers = 2\n{CONFIG}");
    std::fs::write(folder.path().join("wayside.toml"), config).unwrap();
    Program::launch(Path::new(&program), folder, &[])
}

#[test]
fn policies_work_where_address_space_is_short() {
    let names: Vec<String> = (0..30).map(|number| format!("p{number:02}.wasm")).collect();
    let policies: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), HOSTILE)).collect();
    let gateway = limited("ulimit -v 6000000", folder(&policies));
    assert!((0..30).all(|index| policy(&gateway, index)["state"] == "live"), "{}", gateway.ask("/policies"));
    assert!(gateway.get("/", &[]).starts_with("HTTP/1.1 404"), "each of them says `next`");
    assert!(gateway.get("/", &[("x-hostile", "stack")]).starts_with("HTTP/1.1 503"));
    until("it answers again", || gateway.get("/", &[]).starts_with("HTTP/1.1 404"));
}

#[test]
fn a_full_disk_is_told_and_left_behind() {
    let folder = folder(&[("p.wasm", CANARY)]);
    let full = folder.path().join(".wayside/policy-cache");
    std::fs::create_dir_all(&full).unwrap();
    // A few KiB are all that a file may have, which is what writing to a full disk comes to.
    let gateway = limited("trap '' XFSZ; ulimit -f 4", folder);
    // It is tried again and again.
    until("that is told", || policy(&gateway, 0)["state"] == "failed");
    let answer = policy(&gateway, 0);
    assert!(answer["error"].as_str().unwrap().contains("cannot be written"), "{answer}");
}
