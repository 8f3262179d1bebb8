//! Configuration and policies from a store: pushed once, seen by all gateways, whole or not at all, and there after a restart
//! whether or not the store is.
#![allow(clippy::unwrap_used, reason = "for tests")]

use crate::support::etcd::Etcd;
use crate::support::program::{Program, echo, until};
use crate::support::servers::Consul;
use crate::support::shop::drop_in;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

const CANARY: &[u8] = include_bytes!("../../guest-examples/prebuilt/canary.wasm");

fn configuration(route: &str) -> String {
    format!(
        "[gateway]\nadmin = \"127.0.0.1:0\"\nlisten = [\"127.0.0.1:0\"]\nworkers = 1\n[policies]\ndirectory = \"policies\"\n\
         [sources.file]\nkind = \"file\"\npath = \"services.toml\"\n[[routes]]\nmatch = {{ path_prefix = \"{route}\" }}\n\
         service = \"users\"\n"
    )
}

/// A folder to push.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, content: &[u8]| std::fs::write(folder.path().join(name), content).unwrap();
    std::fs::create_dir_all(folder.path().join("policies/.cache")).unwrap();
    put("wayside.toml", configuration("/a").as_bytes());
    put("services.toml", format!("[[services.users.endpoints]]\naddress = \"{}\"\n", echo()).as_bytes());
    put("policies/canary.wasm", CANARY);
    put("policies/canary.toml", b"config = \"5\"\non_fault = \"next\"\n");
    put("policies/.cache/not-this", b"x");
    // Larger than one value of either store.
    put("large.bin", &(0..2_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect::<Vec<_>>());
    folder
}

fn push(folder: &Path, place: &str) -> (bool, String) {
    let pushed = Command::new(env!("CARGO_BIN_EXE_wayside")).arg("push").arg(folder).arg(place).output().unwrap();
    let text = String::from_utf8(if pushed.status.success() { pushed.stdout } else { pushed.stderr }).unwrap();
    (pushed.status.success(), text)
}

fn version(gateway: &Program) -> Value {
    serde_json::from_str::<Value>(&gateway.ask("/policies")).unwrap()["policies"][0]["version"].clone()
}

fn serves(gateway: &Program, path: &str) -> bool {
    gateway.get(path, &[]).starts_with("HTTP/1.1 200")
}

/// What a fleet does with a shelf; `kill` ends the store.
fn a_fleet(place: &str, kill: impl FnOnce()) {
    let folder = folder();
    let states: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let (good, said) = push(folder.path(), place);
    assert!(good && said.contains("pushed 5 files, 5 of them"), "{said}");
    assert!(push(folder.path(), place).1.contains("nothing to do: all 5 files are there"));
    let start =
        |state: &tempfile::TempDir| Program::run(&["--config", place, "--state", &state.path().display().to_string()]);
    let mut fleet: Vec<Program> = states.iter().map(start).collect();
    assert!(fleet.iter().all(|gateway| serves(gateway, "/a") && !serves(gateway, "/b")));
    let first = version(&fleet[0]);
    assert!(first.is_string());

    // Another configuration, and another version of the policy, at once.
    std::fs::write(folder.path().join("wayside.toml"), configuration("/b")).unwrap();
    std::fs::write(folder.path().join("policies/canary.toml"), "config = \"50\"\non_fault = \"next\"\n").unwrap();
    assert!(push(folder.path(), place).1.contains("pushed 5 files, 2 of them"));
    until("all have the new configuration", || {
        fleet.iter().all(|gateway| serves(gateway, "/b") && !serves(gateway, "/a"))
    });
    until("all have the new version", || {
        fleet.iter().all(|gateway| version(gateway) != first && version(gateway).is_string())
    });
    let urls = fleet.iter().map(|gateway| format!("http://{}", gateway.admin));
    let same =
        Command::new(env!("CARGO_BIN_EXE_wayside")).args(["fleet", "--within", "10s"]).args(urls).output().unwrap();
    assert!(same.status.success(), "{}", String::from_utf8_lossy(&same.stdout));

    // A configuration that is wrong is not pushed, and what is pushed by other means and is wrong changes nothing.
    std::fs::write(folder.path().join("wayside.toml"), "[gateway]\nlisten = 7\n").unwrap();
    let (good, said) = push(folder.path(), place);
    assert!(!good && said.contains("wayside.toml"), "{said}");

    // Gone from the shelf, gone from the gateways.
    std::fs::write(folder.path().join("wayside.toml"), configuration("/b")).unwrap();
    std::fs::remove_file(folder.path().join("policies/canary.toml")).unwrap();
    std::fs::remove_file(folder.path().join("policies/canary.wasm")).unwrap();
    assert!(push(folder.path(), place).0);
    let none = |gateway: &Program| gateway.ask("/policies").contains("\"policies\":[]");
    until("none has the policy", || fleet.iter().all(none));

    // Without the store, a gateway begins with what it copied.
    kill();
    fleet.pop().unwrap().stop();
    let again = start(&states[2]);
    assert!(serves(&again, "/b") && serves(&fleet[0], "/b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn in_consul() {
    let mut consul = Consul::start().await;
    let place = format!("consul://{}/wayside/shop", consul.address);
    tokio::task::block_in_place(|| a_fleet(&place, || consul.kill()));
}

#[tokio::test(flavor = "multi_thread")]
async fn in_etcd() {
    let mut etcd = Etcd::start().await;
    let place = format!("etcd://{}/wayside/shop", etcd.address);
    tokio::task::block_in_place(|| a_fleet(&place, || etcd.process.kill()));
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_alone_come_from_a_store_and_half_an_upload_is_never_seen() {
    let etcd = Etcd::start().await;
    let place = format!("etcd://{}/policies", etcd.address);
    let (folder, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    drop_in(&folder.path().join("canary.wasm"), CANARY);
    drop_in(&folder.path().join("canary.toml"), b"config = \"5\"\n");
    assert!(push(folder.path(), &place).0);
    let config = format!(
        "[policies]\nfrom = \"{place}\"\n[sources.file]\nkind = \"file\"\npath = \"services.toml\"\n[[routes]]\nservice = \"users\"\n"
    );
    let services = format!("[[services.users.endpoints]]\naddress = \"{}\"\n", echo());
    std::fs::write(home.path().join("services.toml"), services).unwrap();
    let gateway = tokio::task::block_in_place(|| Program::start(home, &config, &[]));
    let first = version(&gateway);
    assert!(first.is_string() && serves(&gateway, "/"));
    // A manifest whose content is not there: somebody's upload broke off, or was no `wayside push`.
    let digest = "0".repeat(64);
    let broken = format!("{{\"files\":{{\"canary.wasm\":{{\"sha256\":\"{digest}\",\"size\":7}}}}}}");
    etcd.put(b"/policies/manifest", broken.as_bytes(), "0").await;
    let line = tokio::task::block_in_place(|| gateway.logged("the shelf cannot be copied"));
    assert!(line.contains("chunk 0 is not there"), "{line}");
    etcd.put(b"/policies/manifest", br#"{"files":{"../../x":{"sha256":"","size":0}}}"#, "0").await;
    let line = tokio::task::block_in_place(|| gateway.logged("the shelf cannot be copied"));
    assert!(line.contains("cannot be a file's name"), "{line}");
    assert_eq!(version(&gateway), first);
    // The next push mends it.
    drop_in(&folder.path().join("canary.toml"), b"config = \"50\"\n");
    assert!(push(folder.path(), &place).0);
    tokio::task::block_in_place(|| {
        until("the new version is live", || version(&gateway) != first && version(&gateway).is_string());
    });
}
