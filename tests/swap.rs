//! The policy's file is swapped 200 times while requests run without a pause: none of them fails.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

use crate::support::gateway::Gateway;
use crate::support::program::until;
use crate::support::shop::{Load, Origin, drop_in, policies};
use serde_json::Value;

const SWAPS: usize = 200;
const REQUESTS: u64 = 100_000;

#[test]
fn no_request_is_lost_while_versions_come_and_go() {
    let [one, two] = policies(["one", "two"]);
    let broken = &one[..one.len() / 2];
    let origin = Origin::start("a");
    let gateway = Gateway::with().endpoint(origin.address).policy("shop.wasm", &one).start();
    let file = gateway.folder().join("policies/shop.wasm");
    let policy = || serde_json::from_str::<Value>(&gateway.ask("/policies")).unwrap()["policies"][0].clone();
    let bears = |name: &str| gateway.get("/shop", &[]).contains(&format!("x-policy: {name}\r\n"));
    assert!(bears("one"));

    let load = Load::start(&gateway.address, 3);
    let began = std::time::Instant::now();
    let mut live = "one";
    for swap in 0..SWAPS {
        let version = policy()["version"].clone();
        if swap % 3 == 2 {
            drop_in(&file, broken);
            until("the broken one is rejected", || policy()["error"].is_string());
            assert_eq!((&policy()["version"], &policy()["state"]), (&version, &"live".into()));
        } else {
            let bytes = if live == "one" { &two } else { &one };
            live = if live == "one" { "two" } else { "one" };
            drop_in(&file, bytes);
            until("the new version is live", || {
                let now = policy();
                now["state"] == "live" && now["error"].is_null() && now["version"] != version
            });
        }
        until("an answer bears the version", || bears(live));
    }
    while load.sent() < REQUESTS {
        load.more(1);
    }
    let took = began.elapsed();
    let sent = load.end();
    println!("{SWAPS} swaps, {sent} requests in {took:.1?}, 0 failed");
    // Not one call of a policy went wrong either, which `on_fault` could have hidden.
    assert!(!gateway.ask("/metrics").lines().any(|line| line.starts_with("wayside_policy_faults_total{")));
}
