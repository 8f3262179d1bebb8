//! Canaries in the real program, under load: a bad one is rolled back by itself, and no client sees anything of it; a good
//! one becomes live; a killed gateway comes back where it stood.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]
#![allow(clippy::print_stdout, reason = "it tells what it has found")]

use crate::policy_versions::{deliver, policy};
use crate::support::gateway::Gateway;
use crate::support::program::{Program, echo, get, until};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::Scope;
use wayside::base::digest;
use wayside::policy::sidecar;

const CANARY: &[u8] = include_bytes!("../guest-examples/prebuilt/canary.wasm");
const HOSTILE: &[u8] = include_bytes!("guests/hostile.wasm");

/// The live version, and what its sidecar says.
const LIVE: (&[u8], &str) = (CANARY, "config = '0'");
/// Short steps.
const RELEASE: &str = "[release]\nmode = 'canary'\nsteps = ['20%', '60%']\nhold = '1s'\nsticky_on = 'header:x-user'\n\
                       min_requests = 20\n";

fn gateway() -> Program {
    let (component, sidecar) = LIVE;
    Gateway::with()
        .endpoint(echo())
        .route("match = { path_prefix = \"/\" }")
        .telemetry("access_log = \"json\"")
        .policy("p.wasm", component)
        .policy("p.toml", sidecar)
        .start()
}

fn version(component: &[u8], toml: &str) -> String {
    sidecar::parse(toml).unwrap().version(&digest::full(component)).to_string()
}

/// Clients, until the end of the scope's `done`.
struct Load {
    done: AtomicBool,
    sent: AtomicU64,
    failed: AtomicU64,
    /// Each so many requests, one takes the path on which the bad version traps.
    trap_each: u64,
}

impl Load {
    fn new(trap_each: u64) -> Self {
        Load { done: AtomicBool::new(false), sent: AtomicU64::new(0), failed: AtomicU64::new(0), trap_each }
    }

    fn begin<'s>(&'s self, scope: &'s Scope<'s, '_>, gateway: &Program) {
        for _ in 0..3 {
            let address = gateway.address.clone();
            scope.spawn(move || {
                while !self.done.load(Relaxed) {
                    let number = self.sent.fetch_add(1, Relaxed);
                    // Each of them takes the bad path now and then.
                    let user = format!("user-{}", number % 199);
                    let trap = [("x-user", user.as_str()), ("x-hostile", "panic")];
                    let headers = if (number + 1).is_multiple_of(self.trap_each) { &trap[..] } else { &trap[..1] };
                    if !get(&address, "/", headers).starts_with("HTTP/1.1 200") {
                        self.failed.fetch_add(1, Relaxed);
                    }
                }
            });
        }
    }
}

/// Ends the load also where a test fails.
struct Ends<'l>(&'l Load);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.done.store(true, Relaxed);
    }
}

#[test]
fn a_canary_that_traps_now_and_then_is_rolled_back_and_no_request_fails() {
    let gateway = gateway();
    // However fast the machine is, so many requests come to it that it must trap.
    let release = RELEASE.replace("= 20\n", "= 2000\n");
    let (live, bad) = (version(LIVE.0, LIVE.1), version(HOSTILE, &release));
    let load = Load::new(100);
    std::thread::scope(|scope| {
        let ends = Ends(&load);
        load.begin(scope, &gateway);
        deliver(gateway.folder(), HOSTILE, &release);
        until("it is a canary", || policy(&gateway)["canary"]["version"] == json!(bad));
        assert_eq!(policy(&gateway)["version"], json!(live));
        until("it is rolled back", || policy(&gateway)["canary"].is_null());
        drop(ends);
    });
    let (sent, failed) = (load.sent.load(Relaxed), load.failed.load(Relaxed));
    println!("{failed} of {sent} requests failed");
    assert_eq!(failed, 0, "of {sent}");
    let now = policy(&gateway);
    assert_eq!((&now["version"], &now["state"]), (&json!(live), &json!("live")));
    let shown = now["versions"].as_array().unwrap().iter().find(|one| one["version"] == json!(bad)).unwrap();
    let evidence = &shown["quarantined"]["evidence"];
    assert_eq!(evidence["kind"], "fault", "{evidence}");
    let example = &evidence["canary"]["examples"][0];
    assert!(example["path"] == "/" && example["fault"].as_str().unwrap().starts_with("trap"), "{evidence}");
    let file = gateway.folder().join(format!(".wayside/policy-cache/policies/p/{bad}/evidence.json"));
    let kept: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!(&kept, evidence);
    assert_eq!(gateway.metric("wayside_policy_rollbacks_total{policy=\"p\"}"), Some(1.0));
    let faults = format!("wayside_policy_faults_total{{policy=\"p\",version=\"{bad}\",role=\"canary\",kind=\"trap\"}}");
    assert!(gateway.metric(&faults).unwrap() >= 1.0);
    // A copy of it, also with another sidecar, is not tried again, nor is it after a restart.
    deliver(gateway.folder(), HOSTILE, "config = 'once more'");
    until("that is told", || policy(&gateway)["error"].as_str().is_some_and(|told| told.contains("quarantined")));
    assert_eq!(policy(&gateway.restart())["version"], json!(live));
}

#[test]
fn a_good_canary_becomes_live_step_by_step_and_no_request_fails() {
    let gateway = gateway();
    let good = format!("config = '0'\nlimits = {{ calls = 5000 }}\n{RELEASE}");
    let new = version(CANARY, &good);
    let load = Load::new(u64::MAX);
    std::thread::scope(|scope| {
        let ends = Ends(&load);
        load.begin(scope, &gateway);
        deliver(gateway.folder(), CANARY, &good);
        until("it is a canary", || policy(&gateway)["canary"]["step"] == json!(1));
        let share = format!("wayside_policy_canary_share{{policy=\"p\",version=\"{new}\"}}");
        until("a part of the clients", || gateway.metric(&share).is_some_and(|share| share > 0.1));
        until("it is live", || policy(&gateway)["version"] == json!(new));
        drop(ends);
    });
    assert_eq!(load.failed.load(Relaxed), 0, "of {}", load.sent.load(Relaxed));
    assert!(policy(&gateway)["canary"].is_null() && policy(&gateway)["error"].is_null());
    let calls = |version: &str, role: &str| {
        let labels = format!("policy=\"p\",version=\"{version}\",role=\"{role}\",decision=\"next\"");
        gateway.metric(&format!("wayside_policy_calls_total{{{labels}}}")).unwrap_or(0.0)
    };
    assert!(calls(&new, "canary") >= 40.0 && calls(&version(LIVE.0, LIVE.1), "live") >= 40.0);
    // What each line of the access log says of a user: the old version, then the new one, and never back.
    let (lines, _) = gateway.stop();
    let (mut moved, mut seen) = (std::collections::HashSet::new(), 0);
    for line in lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        if line["role"] == json!("canary") {
            seen += 1;
            assert_eq!(line["version"], json!(new), "{line}");
            moved.insert(line["client"].clone());
        }
    }
    assert!(seen >= 40 && !moved.is_empty(), "{seen}");
}

#[test]
fn a_killed_gateway_comes_back_where_the_canary_stood() {
    let gateway = gateway();
    let long = RELEASE.replace("'1s'", "'10s'");
    let (live, new) = (version(LIVE.0, LIVE.1), version(HOSTILE, &long));
    let load = Load::new(u64::MAX);
    std::thread::scope(|scope| {
        let ends = Ends(&load);
        load.begin(scope, &gateway);
        deliver(gateway.folder(), HOSTILE, &long);
        until("the first step", || policy(&gateway)["canary"]["step"] == json!(1));
        drop(ends);
    });
    let gateway = gateway.crash();
    let now = policy(&gateway);
    assert_eq!((&now["version"], &now["canary"]["version"]), (&json!(live), &json!(new)));
    let canary = &now["canary"];
    assert_eq!((&canary["step"], &canary["share"], &canary["restarts"]), (&json!(1), &json!(0.2), &json!(1)));
    // The same `[release]` but for one word ends it well.
    deliver(gateway.folder(), HOSTILE, &long.replace("'canary'", "'at-once'"));
    until("it is live", || policy(&gateway)["version"] == json!(new) && policy(&gateway)["canary"].is_null());
}

#[test]
fn what_cannot_be_compared_is_no_canary() {
    let gateway = gateway();
    deliver(gateway.folder(), HOSTILE, &format!("match = {{ path_prefix = '/a' }}\n{RELEASE}"));
    until("it is told", || policy(&gateway)["error"].as_str().is_some_and(|told| told.contains("`match`")));
    assert_eq!(policy(&gateway)["version"], json!(version(LIVE.0, LIVE.1)));
    // Back to what answers: all is well.
    deliver(gateway.folder(), LIVE.0, LIVE.1);
    until("all is well", || policy(&gateway)["error"].is_null());
}
