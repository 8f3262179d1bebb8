//! `wayside policy new` and `build`, as a user runs them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::process::{Command, Output};

fn wayside(folder: &Path, arguments: &[&str]) -> Output {
    let toolchains = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/toolchains");
    Command::new(env!("CARGO_BIN_EXE_wayside"))
        .args(arguments)
        .current_dir(folder)
        .env("WAYSIDE_TOOLCHAINS", toolchains)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_new_policy_builds_and_compiles() {
    let folder = tempfile::tempdir().unwrap();
    let new = wayside(folder.path(), &["policy", "new", "my-policy"]);
    assert!(new.status.success() && text(&new.stdout).contains("next: wayside policy build my-policy"), "{new:?}");

    let build = wayside(folder.path(), &["policy", "build", "my-policy"]);
    assert!(build.status.success(), "{}", text(&build.stderr));
    let said = text(&build.stdout);
    assert!(said.contains("my-policy/my-policy.wasm") && said.contains("my-policy/my-policy.toml"), "{said}");

    let component = std::fs::read(folder.path().join("my-policy/my-policy.wasm")).unwrap();
    wayside::policy::Engine::precompile(&component).unwrap();

    let build = wayside(folder.path(), &["policy", "build", "my-policy", "--out", "other.wasm"]);
    assert!(build.status.success() && folder.path().join("other.wasm").exists(), "{build:?}");
}

#[test]
fn what_is_no_crate_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let build = wayside(folder.path(), &["policy", "build"]);
    assert_eq!(build.status.code(), Some(1));
    let said = text(&build.stderr);
    assert!(said.contains("Cargo.toml") && said.contains("wayside policy new"), "{said}");
}
