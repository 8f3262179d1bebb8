//! Versions of a policy in the real program: one goes back, also after a restart and while the directory is away, and what
//! is quarantined stays so; as operators do it, by the command line and through the admin.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

use crate::support::program::{Program, until};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

const CANARY: &[u8] = include_bytes!("../guest-examples/prebuilt/canary.wasm");
const HOSTILE: &[u8] = include_bytes!("guests/hostile.wasm");
const CONFIG: &str = "[policies]\ndirectory = \"policies\"\n";

/// A gateway whose policy `p` has this sidecar.
fn gateway(component: &[u8], sidecar: &str) -> Program {
    let folder: TempDir = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("policies")).unwrap();
    deliver(folder.path(), component, sidecar);
    Program::start(folder, CONFIG, &[])
}

/// Puts both files of the policy `p` in place, each by its renaming.
pub(crate) fn deliver(folder: &Path, component: &[u8], sidecar: &str) {
    for (name, content) in [("p.wasm", component), ("p.toml", sidecar.as_bytes())] {
        let aside = folder.join(format!("policies/.{name}.part"));
        std::fs::write(&aside, content).unwrap();
        std::fs::rename(aside, folder.join("policies").join(name)).unwrap();
    }
}

/// What the admin says of it.
pub(crate) fn policy(gateway: &Program) -> Value {
    serde_json::from_str(&gateway.ask("/policies/p")).unwrap()
}

/// Delivers it, and waits until it answers: its version.
fn delivered(gateway: &Program, component: &[u8], sidecar: &str) -> String {
    let before = policy(gateway)["version"].clone();
    deliver(gateway.folder(), component, sidecar);
    until("another version answers", || policy(gateway)["version"] != before && policy(gateway)["state"] == "live");
    policy(gateway)["version"].as_str().unwrap().to_owned()
}

/// `wayside policy …` for this gateway.
fn wayside(gateway: &Program, arguments: &[&str]) -> Output {
    let admin = format!("--admin=http://{}", gateway.admin);
    let program = Command::new(env!("CARGO_BIN_EXE_wayside"))
        .arg("policy")
        .args(arguments)
        .arg(admin)
        .current_dir(gateway.folder())
        .output();
    program.unwrap()
}

/// The same, which must go well: what it said.
fn said(gateway: &Program, arguments: &[&str]) -> String {
    let output = wayside(gateway, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The same, which must not: why.
fn refused(gateway: &Program, arguments: &[&str]) -> String {
    let output = wayside(gateway, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap()
}

fn versions(gateway: &Program) -> Vec<String> {
    let policy = policy(gateway);
    let versions = policy["versions"].as_array().unwrap().iter();
    versions.map(|version| version["version"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn one_goes_back_and_forth_between_versions_across_restarts() {
    let gateway = gateway(CANARY, "config = '1'");
    let first = policy(&gateway)["version"].as_str().unwrap().to_owned();
    assert!(refused(&gateway, &["rollback", "p"]).contains("no version before"));
    let second = delivered(&gateway, CANARY, "config = '2'");
    let third = delivered(&gateway, HOSTILE, "");
    assert_eq!(versions(&gateway), [third.as_str(), &second, &first]);

    let told = said(&gateway, &["rollback", "p"]);
    assert!(told.contains(&format!("{second} answers")) && told.contains(&third), "{told}");
    assert_eq!((&policy(&gateway)["version"], &policy(&gateway)["pinned"]["over"]), (&json!(second), &json!(third)));
    said(&gateway, &["rollback", "p"]);
    assert_eq!(policy(&gateway)["version"], json!(first));

    // The directory still holds the third.
    let gateway = gateway.restart();
    assert_eq!((&policy(&gateway)["version"], &policy(&gateway)["state"]), (&json!(first), &json!("live")));
    assert_eq!(policy(&gateway)["pinned"]["over"], json!(third));
    assert_eq!(versions(&gateway), [third.as_str(), &second, &first]);

    // What comes then is taken as ever, and one can go back to all of them.
    let fourth = delivered(&gateway, CANARY, "config = '4'");
    assert_eq!(policy(&gateway)["pinned"], Value::Null);
    said(&gateway, &["promote", "p", &third[..6]]);
    assert_eq!(policy(&gateway)["version"], json!(third));
    let told = said(&gateway, &["promote", "p"]);
    assert!(told.contains(&fourth), "{told}");
    until("what the directory holds answers", || policy(&gateway)["version"] == json!(fourth));
    assert!(refused(&gateway, &["promote", "p"]).contains("no canary is under way"));
    assert!(refused(&gateway, &["promote", "p", "ffffffffffff"]).contains("no version"));
    assert!(refused(&gateway, &["rollback", "q"]).contains("no policy `q`"));
}

#[test]
fn what_is_quarantined_does_not_come_back() {
    let gateway = gateway(CANARY, "config = '1'");
    let first = policy(&gateway)["version"].as_str().unwrap().to_owned();
    let bad = delivered(&gateway, HOSTILE, "");
    let told = said(&gateway, &["quarantine", "p", &bad]);
    assert!(told.contains(&format!("{first} answers")) && told.contains(&format!("{bad} is quarantined")), "{told}");
    // Neither copied again, nor with another sidecar, nor after a restart.
    deliver(gateway.folder(), HOSTILE, "config = 'x'");
    until("it is told", || policy(&gateway)["error"].as_str().is_some_and(|told| told.contains("quarantined")));
    let gateway = gateway.restart();
    assert_eq!(policy(&gateway)["version"], json!(first));
    assert!(refused(&gateway, &["promote", "p", &bad]).contains("is quarantined"));
    let listed = said(&gateway, &["list"]);
    assert!(listed.contains("quarantined since 20") && listed.contains("an operator wants it so"), "{listed}");
    let listed: Value = serde_json::from_str(&said(&gateway, &["list", "--json"])).unwrap();
    let shown = listed["policies"][0]["versions"].as_array().unwrap().iter().find(|one| one["version"] == json!(bad));
    assert!(shown.unwrap()["quarantined"]["since"].is_string(), "{listed}");
    // Nor after the policy was removed.
    std::fs::remove_file(gateway.folder().join("policies/p.wasm")).unwrap();
    until("it is gone", || gateway.ask("/policies") == "{\"policies\":[]}");
    deliver(gateway.folder(), HOSTILE, "config = 'x'");
    until("it is there", || gateway.ask("/policies").contains("quarantined"));
    assert_eq!(policy(&gateway)["version"], Value::Null);
    said(&gateway, &["quarantine", "p", "--lift", &bad]);
    until("it answers", || policy(&gateway)["state"] == "live");
    assert!(refused(&gateway, &["quarantine", "p", &versions(&gateway)[0]]).contains("no version before it"));
}

#[test]
fn one_goes_back_while_the_directory_is_away() {
    let gateway = gateway(CANARY, "config = '1'");
    let first = policy(&gateway)["version"].as_str().unwrap().to_owned();
    let second = delivered(&gateway, HOSTILE, "");
    let (here, away) = (gateway.folder().join("policies"), gateway.folder().join("away"));
    std::fs::rename(&here, &away).unwrap();
    until("that is told", || policy(&gateway)["error"].is_string());
    said(&gateway, &["rollback", "p"]);
    assert_eq!(policy(&gateway)["version"], json!(first));
    std::fs::rename(&away, &here).unwrap();
    until("it is back", || policy(&gateway)["error"].is_null());
    assert_eq!((&policy(&gateway)["version"], &policy(&gateway)["pinned"]["over"]), (&json!(first), &json!(second)));
}

/// The status and the body of the admin's answer.
fn post(gateway: &Program, path: &str, headers: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(&gateway.admin).unwrap();
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n");
    stream.write_all(format!("{head}{headers}\r\n{body}").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    (answer[9..12].parse().unwrap(), answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

#[test]
fn nothing_is_changed_without_the_token_and_all_of_it_is_told() {
    let gateway = gateway(CANARY, "config = '1'");
    delivered(&gateway, CANARY, "config = '2'");
    let file = gateway.folder().join(".wayside/admin-token");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let token = std::fs::read_to_string(&file).unwrap();
    let proof = format!("authorization: Bearer {}\r\n", token.trim());

    let (status, body) = post(&gateway, "/policies/p/rollback", "", "");
    assert!(status == 401 && body.contains("admin-token"), "{status} {body}");
    assert_eq!(post(&gateway, "/policies/p/rollback", "authorization: Bearer x\r\n", "").0, 403);
    let foreign = format!("{proof}origin: http://evil.example\r\n");
    assert_eq!(post(&gateway, "/policies/p/rollback", &foreign, "").0, 403);
    for (path, body, expected) in [
        ("/policies/p/rollback", "{", 400),
        ("/policies/p/rollback", "{\"versoin\":\"x\"}", 400),
        ("/policies/p/rollback", "{\"version\":\"abc\"}", 400),
        ("/policies/p/quarantine", "{}", 400),
        ("/policies/p/launch", "", 400),
        ("/policies/q/rollback", "", 404),
        ("/policies/p/promote", "", 409),
    ] {
        assert_eq!(post(&gateway, path, &proof, body).0, expected, "{path} {body}");
    }
    assert_eq!(policy(&gateway)["pinned"], Value::Null);
    gateway.lines_so_far("");
    let (status, body) = post(&gateway, "/policies/p/rollback", &proof, "");
    assert!(status == 200 && body.contains("answers"), "{status} {body}");
    let line = gateway.logged("audit: done");
    assert!(line.contains("rollback") && line.contains("127.0.0.1") && !line.contains(token.trim()), "{line}");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(refused(&gateway, &["rollback", "p"]).contains("other users may read it"));
}
