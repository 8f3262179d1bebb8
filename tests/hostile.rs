//! A policy that goes wrong in every way there is, under load: its own requests get an answer, and so does everybody
//! else.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

use crate::support::gateway::Gateway;
use crate::support::program::Program;
use crate::support::shop::{Load, Origin};
use std::time::Duration;

/// Requests to the bad policy, each way.
const BAD: u64 = 2000;
/// Clients that send them, and how often each does: 1,000 a second in all.
const CLIENTS: usize = 4;
const PACE: Duration = Duration::from_millis(4);

fn gateway(origin: &Origin) -> Program {
    Gateway::with()
        .endpoint(origin.address)
        .route("match = { path_prefix = \"/shop\" }")
        .policy("hostile.wasm", include_bytes!("guests/hostile.wasm"))
        .policy("hostile.toml", "match = { path_prefix = \"/bad\" }\n")
        .start()
}

/// 503 where the policy went wrong or is suspended, 404 where it said `next`.
fn answered(answer: &str) -> bool {
    ["HTTP/1.1 503", "HTTP/1.1 404"].iter().any(|status| answer.starts_with(status))
}

#[test]
fn a_hostile_policy_costs_its_own_requests_only() {
    let origin = Origin::start("a");
    for how in ["loop", "panic", "memory", "stack", "sleep", "poll", "print"] {
        let gateway = gateway(&origin);
        let good = Load::start(&gateway.address, 1);
        good.more(2000);
        let (calm, calm_worst) = good.latency();
        let asked = format!("GET /bad HTTP/1.1\r\nhost: a\r\nx-hostile: {how}\r\n\r\n");
        let bad = Load::asking(&gateway.address, CLIENTS, &asked, PACE, answered);
        bad.more(BAD);
        let (median, worst) = good.latency();
        let (bad, good) = (bad.end(), good.end());
        println!(
            "{how}: {bad} bad and {good} good requests, none unanswered; the good ones' p50 and p99 in µs: {calm} {calm_worst} alone, {median} {worst} beside it"
        );
        assert!(gateway.get("/shop", &[]).starts_with("HTTP/1.1 200"));
        // Suspension is what keeps a bad policy cheap: hardly any of its requests came to run it.
        let page = gateway.ask("/metrics");
        let faults = page.lines().filter(|line| line.starts_with("wayside_policy_faults_total{"));
        let ran = faults.filter(|line| !line.contains("suspended"));
        let ran: f64 = ran.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum();
        assert!(ran >= 1.0 && ran < BAD as f64 / 10.0, "{how}: {ran} faults\n{page}");
    }
}
