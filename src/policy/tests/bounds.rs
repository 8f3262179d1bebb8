//! Guests that go wrong. The host lives, the next request is answered, and the fault has the right name.

use super::*;

/// A guest that goes wrong in the way of `body` if the request has a header `x-canary`, which all questions here have.
fn bad(body: &str) -> Guest {
    Guest::new().decide(&format!("{body} (call $next)"))
}

#[track_caller]
fn faults_with(guest: Guest, limits: Limits, expected: FaultKind) -> String {
    let version = load_with(guest, limits);
    let (kind, message) = fault(ask(&version));
    assert_eq!(kind, expected, "{message}");
    assert_eq!(version.stats().faults, [(expected, 1)]);
    // The instance was replaced, and the new one is asked like any other.
    until(|| full(&version));
    assert_eq!(fault(ask(&version)).0, expected);
    message
}

#[test]
fn a_loop_ends_at_the_deadline() {
    let start = Instant::now();
    let message = faults_with(bad("(loop $l (br $l))"), limits(), FaultKind::Deadline);
    assert!(message.contains("10ms"), "{message}");
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_loop_of_host_calls_ends_at_the_deadline() {
    let guest = Guest::new().import("request", "path", "(param i32)");
    let guest = guest.decide(
        "(loop $l (global.set $heap (i32.const 16384)) (call $request.path (i32.const 64)) (br $l)) (call $next)",
    );
    faults_with(guest, limits(), FaultKind::Deadline);
}

#[test]
fn wall_time_is_bounded_too() {
    let limits = Limits { cpu: Duration::from_secs(60), wall: Duration::from_millis(20), ..limits() };
    faults_with(bad("(loop $l (br $l))"), limits, FaultKind::Deadline);
}

#[test]
fn a_trap_is_a_trap_and_says_where() {
    let guest = Guest::new().globals("(func $pick_a_tenant unreachable)").decide("(call $pick_a_tenant) (call $next)");
    let message = faults_with(guest, limits(), FaultKind::Trap);
    assert!(message.contains("unreachable") && message.contains("pick_a_tenant"), "{message}");
}

#[test]
fn a_guest_that_loops_is_cut_also_where_nothing_ticked_before() {
    let engine = Engine::new(EngineSettings { versions: 1, ..EngineSettings::for_workers(1) }).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), Engine::precompile(&bad("(loop $l (br $l))").module()).unwrap()).unwrap();
    let version = engine.load(file.path(), identity("a"), String::new(), limits(), Arc::default()).unwrap();
    for _ in 0..3 {
        until(|| engine.is_at_rest());
        assert_eq!(fault(ask(&version)).0, FaultKind::Deadline);
    }
}

#[test]
fn a_read_out_of_bounds_is_a_trap() {
    faults_with(bad("(drop (i32.load (i32.const 0x7fffffff)))"), limits(), FaultKind::Trap);
}

#[test]
fn a_stack_overflow_is_a_trap() {
    let guest = Guest::new().globals("(func $down (call $down) (call $down))").decide("(call $down) (call $next)");
    let message = faults_with(guest, limits(), FaultKind::Trap);
    assert!(message.contains("stack"), "{message}");
}

#[test]
fn memory_is_bounded() {
    // As a language's allocator does: ask, and give up when there is none.
    let bomb = bad("(loop $l (br_if $l (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable");
    let message = faults_with(bomb, Limits { cpu: Duration::from_secs(5), ..limits() }, FaultKind::Memory);
    assert!(message.contains("16777216"), "{message}");
}

#[test]
fn a_guest_that_copes_with_no_more_memory_is_fine() {
    let version = load(bad("(drop (memory.grow (i32.const 1000)))"));
    assert!(matches!(ask(&version).outcome, Outcome::Next));
}

#[test]
fn a_component_that_starts_too_large_does_not_load() {
    let problem = try_load(Guest::new(), Limits { memory: 1000, ..limits() }, Arc::default(), "").unwrap_err();
    assert!(problem.contains("memory"), "{problem}");
    let over = Limits { memory: MAX_MEMORY + 1, ..limits() };
    assert!(try_load(Guest::new(), over, Arc::default(), "").unwrap_err().contains("64 MiB"));
}

#[test]
fn a_list_that_repeats_a_large_text_does_not_fill_the_host() {
    // 1000 labels, each of which is the same 60 KiB.
    let guest = Guest::new().import("metrics", "count", "(param i32 i32 i32 i32 i32)").decide(
        "(drop (memory.grow (i32.const 4)))
         (loop $l
            (i32.store (i32.add (i32.const 65536) (i32.mul (local.get $i) (i32.const 16))) (i32.const 100))
            (i32.store offset=4 (i32.add (i32.const 65536) (i32.mul (local.get $i) (i32.const 16))) (i32.const 60000))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $l (i32.lt_u (local.get $i) (i32.const 1000))))
         (call $metrics.count (i32.const 100) (i32.const 1) (i32.const 1) (i32.const 65536) (i32.const 1000))
         (call $next)",
    );
    faults_with(guest, limits(), FaultKind::Trap);
}

/// Waits a minute for WASI's clock.
fn sleeping() -> Guest {
    Guest::new()
        .import("wasi:clocks/monotonic-clock", "subscribe-duration", "(param i64) (result i32)")
        .import("wasi:io/poll", "[method]pollable.block", "(param i32)")
        .decide(
            "(call $wasi:io/poll.methodpollable.block
                (call $wasi:clocks/monotonic-clock.subscribe-duration (i64.const 60000000000)))
             (call $next)",
        )
}

#[test]
fn waiting_is_a_fault() {
    let start = Instant::now();
    faults_with(sleeping(), limits(), FaultKind::Wait);
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn many_versions_that_may_wait_have_room() {
    let patient = || {
        let guest = Guest::new().import("wasi:clocks/monotonic-clock", "now", "(result i64)");
        guest.decide("(drop (call $wasi:clocks/monotonic-clock.now)) (call $next)")
    };
    let versions: Vec<_> = (0..10).map(|_| load(patient())).collect();
    for version in versions.iter().cycle().take(100) {
        assert!(matches!(ask(version).outcome, Outcome::Next));
    }
}

#[test]
fn waiting_in_a_workers_runtime_is_a_fault_too() {
    let version = load(sleeping());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async { assert_eq!(fault(ask(&version)).0, FaultKind::Wait) });
}

fn printing(times: usize, end: &str) -> Guest {
    let mut guest = Guest::new().import("wasi:cli/stderr", "get-stderr", "(result i32)").import(
        "wasi:io/streams",
        "[method]output-stream.blocking-write-and-flush",
        "(param i32 i32 i32 i32)",
    );
    let text = guest.text(&format!("{:>1024}", "the end"));
    guest.globals("(global $out (mut i32) (i32.const 0))").decide(&format!(
        "(global.set $out (call $wasi:cli/stderr.get-stderr))
         (loop $l
            (call $wasi:io/streams.methodoutput-stream.blocking-write-and-flush (global.get $out) {text} (i32.const 64))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $l (i32.lt_u (local.get $i) (i32.const {times}))))
         {end}"
    ))
}

#[test]
fn what_a_guest_prints_is_kept_up_to_a_bound_and_a_flood_of_it_is_a_fault() {
    let patient = || Limits { cpu: Duration::from_secs(5), ..limits() };
    let (kind, message) = fault(ask(&load_with(printing(65, "(call $next)"), patient())));
    assert_eq!(kind, FaultKind::Trap);
    assert!(message.contains("it printed more than 65536 bytes in one call"), "{message}");
    let version = load_with(printing(64, "(call $next)"), patient());
    ask(&version);
    let called = ask(&version);
    assert!(matches!(called.outcome, Outcome::Next), "{:?}", called.outcome);
    assert_eq!(called.logs.len(), 1);
    assert!(called.logs[0].message.len() <= 4096 && called.logs[0].message.ends_with("the end"));
}

#[test]
fn what_a_guest_printed_is_in_its_fault() {
    let version = load(printing(1, "unreachable"));
    let (kind, message) = fault(ask(&version));
    assert_eq!(kind, FaultKind::Trap);
    assert!(message.ends_with("the end"), "{message}");
}

#[test]
fn a_guest_that_leaks_handles_faults() {
    let guest = Guest::new()
        .import("wasi:cli/stderr", "get-stderr", "(result i32)")
        .decide("(loop $l (drop (call $wasi:cli/stderr.get-stderr)) (br $l)) (call $next)");
    faults_with(guest, Limits { cpu: Duration::from_secs(5), ..limits() }, FaultKind::Trap);
}

/// Traps where the request has a query, which all questions here have, unless it is asked by [`harmless`].
fn poisoned() -> Guest {
    Guest::new().import("request", "query", "(param i32)").decide(
        "(call $request.query (i32.const 64))
         (if (i32.load8_u (i32.const 64)) (then unreachable)) (call $next)",
    )
}

/// A question without a query.
fn harmless() -> Question {
    let (parts, ()) = http::Request::get("/a").body(()).unwrap().into_parts();
    Question { head: Head::new(parts, Peer::new(([203, 0, 113, 7], 4711).into()), &[]), ..question() }
}

#[test]
fn a_version_that_always_faults_is_suspended_and_says_why() {
    let version = load(poisoned());
    for turn in 0..10 {
        assert_eq!(version.suspended(), None, "after {turn} faults");
        assert_eq!(fault(ask(&version)).0, FaultKind::Trap);
    }
    let suspended = version.suspended().unwrap();
    assert!(suspended.left > Duration::from_secs(5));
    assert!(suspended.reason.contains("10 of its last 10 calls"), "{suspended:?}");
    assert_eq!(fault(version.decide(1, question())).0, FaultKind::Suspended);
    let stats = version.stats();
    assert_eq!((stats.calls, stats.suspensions, stats.replaced), (10, 1, 10));
    assert_eq!(stats.faults, [(FaultKind::Trap, 10), (FaultKind::Suspended, 1)]);
    until(|| full(&version));
}

#[test]
fn poison_takes_the_policy_away_from_nobody_else() {
    let version = load(poisoned());
    for _ in 0..100 {
        for _ in 0..2 {
            assert!(matches!(version.decide(0, harmless()).outcome, Outcome::Next));
        }
        assert_eq!(fault(ask(&version)).0, FaultKind::Trap);
    }
    assert_eq!(version.suspended(), None);
    assert_eq!(version.stats().faults, [(FaultKind::Trap, 100)], "nobody starved");
}

#[test]
fn a_suspension_outlives_the_version_but_not_the_component() {
    let live: Arc<PolicyLive> = Arc::default();
    let first = try_load(poisoned(), limits(), Arc::clone(&live), "").unwrap();
    while first.suspended().is_none() {
        ask(&first);
    }
    let again = try_load(poisoned(), limits(), Arc::clone(&live), "another config").unwrap();
    assert_eq!(fault(ask(&again)).0, FaultKind::Suspended);
    assert_eq!(again.stats().calls, 0);
    let other = try_load(Guest::new(), limits(), live, "").unwrap();
    assert!(matches!(ask(&other).outcome, Outcome::Next));
}

#[test]
fn time_burnt_in_faults_suspends_as_well() {
    let burns = Guest::new().import("request", "query", "(param i32)").decide(
        "(call $request.query (i32.const 64))
         (if (i32.load8_u (i32.const 64)) (then (loop $l (br $l)))) (call $next)",
    );
    let version = load_with(burns, Limits { cpu: Duration::from_millis(500), ..limits() });
    // Two workers: 10 % of their time is 2.9 s. Most calls are good.
    for turn in 0..20 {
        for _ in 0..10 {
            if version.suspended().is_none() {
                assert!(matches!(version.decide(0, harmless()).outcome, Outcome::Next));
            }
        }
        if version.suspended().is_some() {
            assert!(turn >= 4, "after {turn}");
            assert!(version.suspended().unwrap().reason.contains("workers' time"));
            return;
        }
        ask(&version);
    }
    panic!("never suspended");
}

#[test]
fn errors_and_bad_answers_suspend_as_well_but_cost_no_instance() {
    let mut guest = Guest::new();
    let words = guest.text("no");
    let version = load(guest.decide(&format!("(call $fail {words})")));
    for _ in 0..10 {
        ask(&version);
    }
    assert_eq!(fault(ask(&version)).0, FaultKind::Suspended);
    assert_eq!(version.stats().replaced, 0);
}

#[test]
fn without_a_ready_instance_a_request_gets_an_answer_at_once() {
    let version = load(Guest::new());
    version.take_all();
    match ask(&version).outcome {
        // Built on the spot, where that is quick.
        Outcome::Next => {}
        Outcome::Fault(fault) => assert_eq!(fault.kind, FaultKind::Starved),
        other => panic!("{other:?}"),
    }
    assert_eq!(version.suspended(), None);
    until(|| full(&version));
    assert!(matches!(ask(&version).outcome, Outcome::Next));
}

#[test]
fn a_worker_without_instances_borrows_from_the_others() {
    let version = load(bad("unreachable"));
    // More faults than one worker has instances.
    for _ in 0..5 {
        assert_eq!(fault(version.decide(1, question())).0, FaultKind::Trap);
    }
}

#[test]
fn instances_of_age_are_replaced() {
    let version = load_with(Guest::new(), Limits { calls: 10, ..limits() });
    for _ in 0..200 {
        assert!(matches!(ask(&version).outcome, Outcome::Next));
    }
    until(|| full(&version));
    let replaced = version.stats().replaced;
    assert!((1..=60).contains(&replaced), "{replaced}");
}

#[test]
fn instances_that_have_grown_are_replaced() {
    let version = load_with(bad("(drop (memory.grow (i32.const 32)))"), Limits { memory_mark: 2 << 20, ..limits() });
    for _ in 0..3 {
        assert!(matches!(ask(&version).outcome, Outcome::Next));
    }
    assert!(version.stats().replaced >= 1);
}

#[test]
fn an_instance_of_age_is_better_than_none() {
    let version = load_with(Guest::new(), Limits { calls: 1, ..limits() });
    for _ in 0..1000 {
        assert!(matches!(ask(&version).outcome, Outcome::Next));
    }
}

#[test]
fn several_threads_ask_at_once() {
    let guest = Guest::new().import("state", "add", "(param i32 i32 i32 i32) (result i64)");
    let guest =
        guest.decide("(drop (call $state.add (i32.const 0) (i32.const 1) (i32.const 1) (i32.const 0))) (call $next)");
    let live: Arc<PolicyLive> = Arc::default();
    let version = try_load(guest, Limits { calls: 50, ..limits() }, Arc::clone(&live), "").unwrap();
    let answered = std::sync::atomic::AtomicI64::new(0);
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (version, answered) = (&version, &answered);
            scope.spawn(move || {
                for _ in 0..2000 {
                    match version.decide(worker, question()).outcome {
                        Outcome::Next => drop(answered.fetch_add(1, Relaxed)),
                        other => panic!("{other:?}"),
                    }
                }
            });
        }
    });
    assert_eq!(answered.load(Relaxed), 4000);
    assert_eq!(live.state.add("\0", 0, 0, NOW_MS), 4000);
}

#[test]
fn an_engine_for_nobody_is_one_for_a_single_worker() {
    let engine = Engine::new(EngineSettings { workers: 0, ready_per_worker: 0, versions: 0 }).unwrap();
    assert_eq!(engine.settings(), &EngineSettings { workers: 1, ready_per_worker: 1, versions: 1 });
}

#[test]
fn an_engine_and_its_threads_end() {
    let engine = Engine::new(EngineSettings { versions: 1, ..EngineSettings::for_workers(1) }).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), Engine::precompile(&Guest::new().module()).unwrap()).unwrap();
    let load =
        |engine: &Engine| engine.load(file.path(), identity("a"), String::new(), limits(), Arc::default()).unwrap();
    let version = load(&engine);
    drop(engine);
    // The version still works without it, and then both are gone; joining a thread that does not end would hang here.
    assert!(matches!(ask(&version).outcome, Outcome::Next));
    drop(version);
}

#[test]
fn what_a_guest_says_of_its_error_is_cut() {
    // 600,000 bytes, all of them zero.
    let long = "(drop (memory.grow (i32.const 16))) (call $fail (i32.const 65536) (i32.const 600000))";
    let (kind, message) = fault(ask(&load(Guest::new().decide(long))));
    assert_eq!((kind, message.len()), (FaultKind::Error, 4096));
    let problem = try_load(Guest::new().init(long), limits(), Arc::default(), "").unwrap_err();
    assert_eq!(problem.len(), 4096);
    // Names of functions are the guest's words too.
    let name = "x".repeat(50_000);
    let guest = Guest::new().globals(&format!("(func ${name} unreachable)"));
    let (kind, message) = fault(ask(&load(guest.decide(&format!("(call ${name}) (call $next)")))));
    assert_eq!((kind, message.len()), (FaultKind::Trap, 4096));
}

#[test]
fn a_full_pool_holds_up_no_version_and_replaced_ones_give_their_place_back() {
    let engine = Engine::new(EngineSettings { versions: 2, ..EngineSettings::for_workers(1) }).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), Engine::precompile(&bad("unreachable").module()).unwrap()).unwrap();
    let load = || engine.load(file.path(), identity("a"), String::new(), limits(), Arc::default()).unwrap();
    // The pool is for two.
    let versions: Vec<_> = (0..6).map(|_| load()).collect();
    for version in &versions {
        for _ in 0..5 {
            assert_eq!(fault(ask(version)).0, FaultKind::Trap);
        }
        until(|| version.stats().ready == 8);
        assert_eq!(version.stats().failed_builds, 0);
    }
    // Somebody holds it still, but it has no instances any more.
    versions[0].release();
    assert_eq!(versions[0].stats().ready, 0);
    assert_eq!(fault(ask(&versions[0])).0, FaultKind::Starved);
}
