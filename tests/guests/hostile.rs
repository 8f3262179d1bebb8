//! A guest that goes wrong costs its own request: each way to go wrong is a fault, and the next request is answered.

use super::world::{Loader, catalog, path, question};
use std::sync::Arc;
use std::time::{Duration, Instant};
use wayside::policy::{Limits, Version};
use wayside::service::decision::{Called, Fault, FaultKind, Outcome};

/// Time enough to fill the memory, which takes 20 ms, so that it is the memory limit that ends that.
fn limits() -> Limits {
    Limits { cpu: Duration::from_millis(200), wall: Duration::from_secs(2), ..Limits::default() }
}

/// Asks; the header `x-hostile` tells the guest what to do.
fn ask(version: &Version, how: &str) -> Called {
    version.decide(0, question(&catalog(1), "/", &[("x-hostile", how)], [127, 0, 0, 1]))
}

fn fault(called: Called, how: &str) -> Fault {
    match called.outcome {
        Outcome::Fault(fault) => fault,
        other => panic!("{how}: {other:?}"),
    }
}

/// Asks something harmless until it is answered: a used-up instance may have to be replaced first, in the background.
fn assert_answers(version: &Version, after: &str) {
    let start = Instant::now();
    loop {
        match ask(version, "").outcome {
            Outcome::Next => return,
            Outcome::Fault(fault) if fault.kind == FaultKind::Starved && start.elapsed() < Duration::from_secs(30) => {
                std::thread::yield_now();
            }
            other => panic!("after {after}: {other:?}"),
        }
    }
}

async fn hostile(loader: &Loader, config: &str) -> Result<Arc<Version>, String> {
    loader.load(&path("tests/guests/hostile.wasm"), config, limits()).await
}

#[tokio::test]
async fn every_way_to_go_wrong_is_a_fault_and_the_next_request_is_answered() {
    let loader = Loader::new();
    let ways = [
        ("loop", FaultKind::Deadline),
        ("panic", FaultKind::Trap),
        ("memory", FaultKind::Memory),
        ("stack", FaultKind::Trap),
        ("sleep", FaultKind::Wait),
        ("poll", FaultKind::Wait),
        ("poll-busy", FaultKind::Deadline),
        ("error", FaultKind::Error),
        ("unknown-service", FaultKind::BadAnswer),
        ("bad-status", FaultKind::BadAnswer),
        ("big-body", FaultKind::BadAnswer),
        ("bad-header", FaultKind::BadAnswer),
        ("zero-timeout", FaultKind::BadAnswer),
    ];
    for (how, kind) in ways {
        // One for each: a version that faults five times is suspended.
        let version = hostile(&loader, "").await.unwrap();
        let start = Instant::now();
        let fault = fault(ask(&version, how), how);
        assert_eq!(fault.kind, kind, "{how}: {}", fault.message);
        assert!(!fault.message.is_empty(), "{how}");
        // A sleeper asks for a second, a busy one for ten: neither gets them.
        assert!(start.elapsed() < Duration::from_secs(5), "{how} took {:?}", start.elapsed());
        assert_answers(&version, how);
    }
}

#[tokio::test]
async fn a_flood_of_output_is_cut() {
    let version = hostile(&Loader::new(), "").await.unwrap();
    let fault = fault(ask(&version, "print"), "print");
    assert_eq!(fault.kind, FaultKind::Trap);
    assert!(fault.message.contains("printed more than"), "{}", fault.message);
    assert!(fault.message.len() <= 8 << 10, "{} bytes of message", fault.message.len());
    assert_answers(&version, "print");
}

#[tokio::test]
async fn the_config_tells_what_to_do_too() {
    let version = hostile(&Loader::new(), "panic").await.unwrap();
    let fault = fault(ask(&version, "error"), "panic");
    assert_eq!(fault.kind, FaultKind::Trap, "{}", fault.message);
}

#[tokio::test]
async fn what_goes_wrong_in_init_never_goes_live() {
    let loader = Loader::new();
    for how in ["init-error", "init-loop", "init-panic", "init-read"] {
        let error = hostile(&loader, how).await.expect_err(how);
        assert!(!error.is_empty(), "{how}");
    }
    assert!(hostile(&loader, "init-error").await.unwrap_err().contains("init was told to fail"));
}
