//! What guests may answer, and what becomes of it.

use super::*;
use crate::http::headers::edit::HeaderEdit;
use crate::service::plan::Plan;

#[test]
fn next_is_next() {
    assert!(matches!(ask(&load(Guest::new())).outcome, Outcome::Next));
}

#[test]
fn a_forward_names_a_service_of_the_snapshot_and_says_how() {
    let mut guest = Guest::new()
        .import("plan", "hash", "(param i32 i32)")
        .import("plan", "max-attempts", "(param i32)")
        .import("plan", "timeout-ms", "(param i32)")
        .import("plan", "endpoint", "(param i32)")
        .import("plan", "retry-status", "(param i32)")
        .import("plan", "queue-as", "(param i32 i32 i32)")
        .import("plan", "reason", "(param i32 i32)")
        .import("edit", "set-header", "(param i32 i32 i32 i32)")
        .import("edit", "remove-response-header", "(param i32 i32)")
        .import("edit", "set-path", "(param i32 i32)");
    let [users, key, name, value, path] = ["users", "a key", "X-Tier", "gold", "/x/../y"].map(|text| guest.text(text));
    let version = load(guest.decide(&format!(
        "(call $plan.hash {key}) (call $plan.max-attempts (i32.const 2)) (call $plan.timeout-ms (i32.const 250))
         (call $plan.endpoint (i32.const 7)) (call $plan.endpoint (i32.const 8)) (call $plan.retry-status (i32.const 429))
         (call $plan.queue-as {value} (i32.const 3)) (call $plan.reason {name}) (call $edit.set-header {name} {value}) (call $edit.remove-response-header {name})
         (call $edit.set-path {path}) (call $forward {users})"
    )));
    for worker in [0, 1, 0, 17] {
        let called = version.decide(worker, question());
        assert_eq!(called.reason, "X-Tier");
        let Forward { service, plan, edits } = forward(called);
        assert_eq!(&*service.name, "users");
        assert_eq!(
            plan,
            Plan {
                strategy: Some(crate::service::plan::Strategy::Hash),
                key: Some("a key".into()),
                endpoints: vec![7, 8],
                timeout: Some(Duration::from_millis(250)),
                max_attempts: Some(2),
                retry_status: vec![429],
                queue: Some(("gold".into(), 3)),
                ..Plan::default()
            }
        );
        let tier = http::HeaderName::from_static("x-tier");
        assert_eq!(edits.request, [HeaderEdit::Set(tier.clone(), http::HeaderValue::from_static("gold"))]);
        assert_eq!(edits.response, [HeaderEdit::Remove(tier)]);
        assert_eq!(edits.path.as_deref(), Some("/y"));
    }
}

#[test]
fn each_strategy_with_a_key_is_the_one_that_is_named() {
    use crate::service::plan::Strategy;
    for (function, named) in [("hash", Strategy::Hash), ("maglev", Strategy::Maglev), ("sticky", Strategy::Sticky)] {
        let mut guest = Guest::new().import("plan", function, "(param i32 i32)");
        let [users, key] = ["users", "a key"].map(|text| guest.text(text));
        let version = load(guest.decide(&format!("(call $plan.{function} {key}) (call $forward {users})")));
        let Forward { plan, .. } = forward(ask(&version));
        assert_eq!((plan.strategy, plan.key.as_deref()), (Some(named), Some("a key")));
    }
}

#[test]
fn a_response_is_answered_as_it_is() {
    let mut guest = Guest::new();
    let body = guest.text("go away");
    let version = load(guest.decide(&format!("(call $respond (i32.const 403) {body})")));
    let Outcome::Respond(answer) = ask(&version).outcome else { panic!() };
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (403, "go away"));
}

#[test]
fn an_unknown_service_is_a_fault_that_names_it() {
    let mut guest = Guest::new();
    let name = guest.text("nobody");
    let version = load(guest.decide(&format!("(call $forward {name})")));
    let (kind, message) = fault(ask(&version));
    assert_eq!(kind, FaultKind::BadAnswer);
    assert!(message.contains("`nobody`"), "{message}");
}

#[test]
fn an_error_is_a_fault_with_its_words_and_the_instance_lives_on() {
    let mut guest = Guest::new();
    let words = guest.text("no such tenant");
    let version = load(guest.decide(&format!("(call $fail {words})")));
    assert_eq!(fault(ask(&version)), (FaultKind::Error, "no such tenant".into()));
    assert_eq!(version.stats().replaced, 0);
}

#[test]
fn what_a_call_said_is_gone_with_it() {
    let mut guest = Guest::new().import("plan", "reason", "(param i32 i32)").import("plan", "endpoint", "(param i32)");
    let (users, why) = (guest.text("users"), guest.text("first"));
    // Says more in its first call than in its later ones.
    let guest = guest.globals("(global $asked (mut i32) (i32.const 0))").decide(&format!(
        "(if (i32.eqz (global.get $asked)) (then (call $plan.reason {why}) (call $plan.endpoint (i32.const 1))))
         (global.set $asked (i32.const 1)) (call $forward {users})"
    ));
    let version = load(guest);
    let ready = version.stats().ready;
    for turn in 0..2 * ready {
        let called = ask(&version);
        assert_eq!(called.reason.is_empty(), turn >= 1, "the instance that was asked last is asked again");
        assert_eq!(forward(called).plan.endpoints.is_empty(), turn >= 1);
    }
}

#[test]
fn init_gets_the_configuration_and_may_refuse_it() {
    let version = try_load(
        Guest::new().init("(call $fail (local.get $config) (local.get $length))"),
        limits(),
        Arc::default(),
        "rules = 7",
    );
    assert_eq!(version.unwrap_err(), "rules = 7");
}

#[test]
fn init_sees_nothing_but_log_and_hashing() {
    let mut good = Guest::new().import("log", "info", "(param i32 i32)").import(
        "hashing",
        "bucket",
        "(param i32 i32 i32) (result i32)",
    );
    let abc = good.text("abc");
    load(good.init(&format!(
        "(call $log.info {abc})
         (if (i32.ne (call $hashing.bucket {abc} (i32.const 100)) (i32.const 26)) (then unreachable)) (call $ok)"
    )));
    for (interface, function, signature, call) in [
        ("request", "path", "(param i32)", "(call $request.path (i32.const 64))"),
        (
            "request",
            "inputs",
            "(param i32 i32 i32)",
            "(call $request.inputs (i32.const 0) (i32.const 0) (i32.const 64))",
        ),
        ("clock", "now-ms", "(result i64)", "(drop (call $clock.now-ms))"),
        ("random", "below", "(param i32) (result i32)", "(drop (call $random.below (i32.const 2)))"),
        ("plan", "random", "", "(call $plan.random)"),
        ("state", "remove", "(param i32 i32)", "(call $state.remove (i32.const 0) (i32.const 0))"),
        ("edit", "set-query", "(param i32 i32)", "(call $edit.set-query (i32.const 0) (i32.const 0))"),
        ("catalog", "describe", "(param i32 i32)", "(call $catalog.describe (i32.const 1) (i32.const 64))"),
        (
            "metrics",
            "count",
            "(param i32 i32 i32 i32 i32)",
            "(call $metrics.count (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 0))",
        ),
    ] {
        let guest = Guest::new().import(interface, function, signature).init(&format!("{call} (call $ok)"));
        let problem = try_load(guest, limits(), Arc::default(), "").unwrap_err();
        assert_eq!(problem, format!("`{interface}.{function}` cannot be called during `init`"));
    }
}

#[test]
fn a_trap_in_init_keeps_the_version_out() {
    let problem = try_load(Guest::new().init("unreachable"), limits(), Arc::default(), "").unwrap_err();
    assert!(problem.starts_with("`init` failed: ") && problem.contains("unreachable"), "{problem}");
}

#[test]
fn a_component_for_a_newer_gateway_loads_unless_it_uses_what_is_new() {
    let guest = Guest::new()
        .import("request", "path", "(param i32)")
        .decide("(call $request.path (i32.const 64)) (call $next)");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), Engine::precompile(&guest.newer_module()).unwrap()).unwrap();
    let version = engine().load(file.path(), identity("a"), String::new(), limits(), Arc::default()).unwrap();
    assert!(matches!(ask(&version).outcome, Outcome::Next));

    let guest = Guest::new().import("request", "protocol", "(param i32)");
    let guest = guest.decide("(call $request.protocol (i32.const 64)) (call $next)");
    let problem = Engine::precompile(&guest.newer_module()).unwrap_err();
    assert!(problem.contains("built for wayside:policy@0.1.2") && problem.contains("protocol"), "{problem}");
}

#[test]
fn code_that_is_none_is_not_loaded() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), b"not code").unwrap();
    let loaded = engine().load(file.path(), identity("a"), String::new(), limits(), Arc::new(PolicyLive::default()));
    assert!(loaded.unwrap_err().to_string().contains("cannot be loaded"));
}

#[test]
fn fingerprints_stay_the_same() {
    assert_eq!(Engine::fingerprint().unwrap(), Engine::fingerprint().unwrap());
}
