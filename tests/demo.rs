//! `wayside demo` and `wayside check`, as a newcomer runs them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

use crate::support::program::{get, terminate};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wayside() -> Command {
    Command::new(env!("CARGO_BIN_EXE_wayside"))
}

#[test]
fn the_demo_routes_by_its_policy_tells_each_decision_and_ends_cleanly() {
    let mut demo = Demo(
        wayside()
            .args(["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut lines = BufReader::new(demo.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let introduction: Vec<String> = lines.by_ref().take_while(|line| !line.starts_with("ready ")).collect();
    // The curl lines name the address that it got.
    let line = introduction.iter().find(|line| line.contains("x-canary")).expect("a curl line");
    let address = line.split("http://").nth(1).unwrap().split('/').next().unwrap();
    assert!(get(address, "/users", &[("x-canary", "1")]).contains("of users-v2 answers"));
    let told = lines.by_ref().find(|line| line.contains("decision=")).unwrap();
    for part in ["policy=canary", "decision=forward", "reason=\"asked for by header\"", "service=users-v2", "trace="] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
    terminate(&mut demo.0);
}

#[test]
fn check_tells_good_policies_from_bad_ones() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("wayside.toml");
    std::fs::write(&config, "[policies]\ndirectory = \"policies\"\n").unwrap();
    let policies = folder.path().join("policies");
    std::fs::create_dir(&policies).unwrap();
    std::fs::copy("guest-examples/prebuilt/canary.wasm", policies.join("canary.wasm")).unwrap();
    let check = || wayside().args(["check", "--config"]).arg(&config).output().unwrap();
    let good = check();
    assert!(good.status.success());
    assert!(String::from_utf8(good.stdout).unwrap().contains("canary.wasm: good: version "));
    std::fs::write(policies.join("canary.toml"), "config = \"many\"\n").unwrap();
    let bad = check();
    assert!(!bad.status.success());
    let said = String::from_utf8(bad.stderr).unwrap();
    assert!(said.contains("canary.wasm") && said.contains("`many` is no percentage"), "{said}");
    // Nothing is left behind in the directory.
    assert_eq!(std::fs::read_dir(&policies).unwrap().count(), 2);
}
