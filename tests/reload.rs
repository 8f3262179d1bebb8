//! The configuration file changes while the gateway runs.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

use crate::support::gateway::Gateway;
use crate::support::program::{echo, until};
use serde_json::Value;

#[test]
fn a_good_file_is_taken_over_and_a_bad_one_changes_nothing() {
    let gateway = Gateway::with().endpoint(echo()).route("match = { path_prefix = \"/one\" }").start();
    let file = gateway.folder().join("wayside.toml");
    let snapshot = || serde_json::from_str::<Value>(&gateway.ask("/snapshot")).unwrap();
    let answers = |path: &str| gateway.get(path, &[]).starts_with("HTTP/1.1 200");
    assert!(answers("/one") && !answers("/two"));
    let before = snapshot();

    let good = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, good.replace("\"/one\"", "\"/two\"").replace("workers = 2", "workers = 3")).unwrap();
    until("the route is the new one", || answers("/two"));
    assert!(!answers("/one"));
    let after = snapshot();
    assert_ne!(before["digest"], after["digest"]);
    assert!(after["generation"].as_u64() > before["generation"].as_u64());

    std::fs::write(&file, "[gateway]\nlisten = []\n[[routes]]\nservice = \"nobody\"\n").unwrap();
    until("the error shows", || snapshot()["config_error"].is_string());
    let error = snapshot()["config_error"].as_str().unwrap().to_owned();
    assert!(error.contains("wayside.toml") && error.contains("gateway.listen"), "{error}");
    assert!(answers("/two"));
    assert_eq!(snapshot()["digest"], after["digest"]);

    std::fs::write(&file, good).unwrap();
    until("the first one is back", || answers("/one"));
    assert!(snapshot()["config_error"].is_null());
    assert_eq!(snapshot()["digest"], before["digest"]);
    let (_, log) = gateway.stop();
    assert!(log.iter().any(|line| line.contains("gateway.workers") && line.contains("restarted")), "{log:?}");
}
