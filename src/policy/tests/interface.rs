//! The interface as guests see it.

use super::*;

/// A guest that logs one text that a function gave, which is at address 64 as a pointer and a length, at `offset`.
fn show(interface: &str, function: &str, signature: &str, arguments: &str, offset: usize) -> Guest {
    let call = format!("(call ${interface}.{function} {arguments} (i32.const 64))");
    Guest::new().import(interface, function, signature).import("log", "info", "(param i32 i32)").decide(&format!(
        "{call} (call $log.info (i32.load offset={offset} (i32.const 64)) (i32.load offset={} (i32.const 64))) (call $next)",
        offset + 4
    ))
}

fn logged(version: &Version) -> String {
    let called = ask(version);
    assert!(matches!(called.outcome, Outcome::Next), "{:?}", called.outcome);
    called.logs.into_iter().next().unwrap().message
}

#[test]
fn the_request_is_read_by_calls() {
    for (function, expected) in [
        ("method", "GET"),
        ("scheme", "http"),
        ("host", "shop.example"),
        ("path", "/a/b"),
        ("client-address", "203.0.113.7"),
    ] {
        assert_eq!(logged(&load(show("request", function, "(param i32)", "", 0))), expected, "{function}");
    }
    assert_eq!(logged(&load(show("request", "query", "(param i32)", "", 4))), "user=a%20b");
    for (function, name, expected) in [("header", "X-Canary", "1"), ("parameter", "user", "a b")] {
        let mut guest = show("request", function, "(param i32 i32 i32)", "NAME", 4);
        let name = guest.text(name);
        let guest = guest.map_decide(|body| body.replace("NAME", &name));
        assert_eq!(logged(&load(guest)), expected, "{function}");
    }
    let mut guest = show("request", "inputs", "(param i32 i32 i32)", "NAMES", 0);
    let names = guest.text("header x-canary\nheader x-none\npath");
    let version = load(guest.map_decide(|body| body.replace("NAMES", &names)));
    for _ in 0..3 {
        assert_eq!(logged(&version), "=1\n\n=/a/b");
    }
}

#[test]
fn who_a_client_proved_to_be_is_told() {
    let ask = |guest: Guest, peer| {
        let asked = question();
        let head = Head::new(asked.head.parts.clone(), peer, &[]);
        let called = load(guest).decide(0, Question { head, ..asked });
        called.logs.into_iter().next().unwrap().message
    };
    let address = ([203, 0, 113, 7], 4711).into();
    let subject = || show("request", "tls-subject", "(param i32)", "", 4);
    assert_eq!(ask(subject(), Peer::over_tls(address, Some("CN=ada".into()))), "CN=ada");
    assert_eq!(ask(subject(), Peer::over_tls(address, None)), "");
    assert_eq!(ask(show("request", "scheme", "(param i32)", "", 0), Peer::over_tls(address, None)), "https");
}

/// A guest that stores up to four numbers as its answer's body: the digits are the host's to read.
fn numbers(guest: Guest, version: impl FnOnce(Guest) -> Arc<Version>) -> Vec<u8> {
    let version = version(guest);
    let Outcome::Respond(answer) = ask(&version).outcome else { panic!() };
    answer.body.into_bytes()
}

#[test]
fn random_numbers_are_splitmix64_from_the_seed() {
    let guest = Guest::new().import("random", "below", "(param i32) (result i32)").decide(
        "(loop $l
            (i32.store8 (i32.add (i32.const 512) (local.get $i)) (call $random.below (i32.const 100)))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $l (i32.lt_u (local.get $i) (i32.const 8))))
         (call $respond (i32.const 200) (i32.const 512) (i32.const 8))",
    );
    // By the definition: the state grows by the golden gamma, and is mixed.
    let expected: Vec<u8> = (1..=8_u64)
        .map(|i| {
            let mut z = 42_u64.wrapping_add(i.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^= z >> 31;
            ((u128::from(z) * 100) >> 64) as u8
        })
        .collect();
    assert_eq!(numbers(guest, load), expected);
}

#[test]
fn the_clock_stands_still_and_wasi_shows_the_same() {
    let guest = Guest::new()
        .import("clock", "now-ms", "(result i64)")
        .import("wasi:clocks/monotonic-clock", "now", "(result i64)")
        .decide(&format!(
            "(if (i64.ne (call $clock.now-ms) (i64.const {NOW_MS})) (then unreachable))
             (if (i64.ne (call $wasi:clocks/monotonic-clock.now) (i64.const {NOW_MS}000000)) (then unreachable))
             (call $next)"
        ));
    assert!(matches!(ask(&load(guest)).outcome, Outcome::Next));
}

#[test]
fn during_init_wasis_clock_runs_already() {
    let guest = Guest::new().import("wasi:clocks/monotonic-clock", "now", "(result i64)").init(
        "(if (i64.eqz (call $wasi:clocks/monotonic-clock.now)) (then unreachable))
         (call $ok)",
    );
    assert!(matches!(ask(&load(guest)).outcome, Outcome::Next));
}

#[test]
fn wasis_random_numbers_follow_from_the_calls_seed_whatever_was_drawn_before() {
    let guest = Guest::new().import("wasi:random/random", "get-random-u64", "(result i64)").decide(
        "(i64.store (i32.const 512) (i64.and (call $wasi:random/random.get-random-u64) (i64.const 0x7f7f7f7f7f7f7f7f)))
         (call $respond (i32.const 200) (i32.const 512) (i32.const 8))",
    );
    let version = load(guest);
    let drawn = |seed: u64| {
        let Outcome::Respond(answer) = version.decide(0, Question { seed, ..question() }).outcome else { panic!() };
        answer.body
    };
    let first = drawn(1);
    assert_ne!(drawn(2), first);
    assert_eq!(drawn(1), first);
    let number = crate::base::chance::Chance(crate::base::chance::Chance(0).next_u64()).next_u64();
    assert_eq!(first.as_bytes(), (number & 0x7f7f_7f7f_7f7f_7f7f).to_le_bytes());
}

#[test]
fn a_guest_that_divides_nothing_by_nothing_gets_the_same_bits_everywhere() {
    let guest = Guest::new().decide(
        "(if (i64.ne (i64.reinterpret_f64 (f64.div (f64.neg (f64.const 0)) (f64.const 0))) (i64.const 0x7ff8000000000000))
            (then unreachable))
         (if (i32.ne (i32.reinterpret_f32 (f32.sub (f32.const inf) (f32.const inf))) (i32.const 0x7fc00000))
            (then unreachable))
         (if (i32.ne (i32.reinterpret_f32 (f32.sqrt (f32.const -1))) (i32.const 0x7fc00000)) (then unreachable))
         (call $next)",
    );
    let called = ask(&load(guest));
    assert!(matches!(called.outcome, Outcome::Next), "{:?}", called.outcome);
}

#[test]
fn relaxed_operations_are_the_same_on_every_processor() {
    // What the standard calls deterministic: NaN becomes 0, and what is too large the largest (relaxed SIMD, appendix).
    let guest = Guest::new().decide(
        "(if (i32.ne (i32x4.extract_lane 0 (i32x4.relaxed_trunc_f32x4_s (f32x4.splat (f32.const nan)))) (i32.const 0))
            (then unreachable))
         (if (i32.ne (i32x4.extract_lane 0 (i32x4.relaxed_trunc_f32x4_s (f32x4.splat (f32.const 1e20))))
            (i32.const 0x7fffffff)) (then unreachable))
         (call $next)",
    );
    let called = ask(&load(guest));
    assert!(matches!(called.outcome, Outcome::Next), "{:?}", called.outcome);
}

#[test]
fn ages_are_those_of_the_requests_start() {
    let mut guest = Guest::new().import("catalog", "service", "(param i32 i32 i32)");
    let users = guest.text("users");
    let guest = guest.decide(&format!(
        "(call $catalog.service {users} (i32.const 64))
         (i32.store (i32.const 512) (i32.and (i32.load offset=16 (i32.const 64)) (i32.const 0x7f7f7f7f)))
         (call $respond (i32.const 200) (i32.const 512) (i32.const 4))"
    ));
    let version = load(guest);
    let asked = Question { started: Instant::now(), ..question() };
    let age = || {
        let Outcome::Respond(answer) = version.decide(0, asked.clone()).outcome else { panic!() };
        answer.body
    };
    let first = age();
    std::thread::sleep(Duration::from_millis(3));
    assert_eq!(age(), first);
}

#[test]
fn policies_draw_apart_from_each_other() {
    let seeds = ["a", "b", "c"].map(|policy| Question::seed(policy, 7));
    assert!(seeds[0] != seeds[1] && seeds[1] != seeds[2] && seeds[0] != seeds[2]);
    assert_ne!(Question::seed("a", 7), Question::seed("a", 8));
    assert_eq!(Question::seed("a", 7), seeds[0]);
}

#[test]
fn row_19_a_policy_balances_as_it_likes_the_least_loaded_endpoints_come_first() {
    let mut guest = Guest::new().import("catalog", "least-loaded", "(param i32 i32 i32 i32 i32 i32 i32)").import(
        "plan",
        "endpoint",
        "(param i32)",
    );
    let users = guest.text("users");
    let body = |local: u8| {
        format!(
            "(call $catalog.least-loaded {users} (i32.const 0) (i32.const 0) (i32.const {local}) (i32.const 3) (i32.const 64))
             (loop $l
                (call $plan.endpoint (i32.load (i32.add (i32.load (i32.const 64)) (i32.mul (local.get $i) (i32.const 20)))))
                (local.set $i (i32.add (local.get $i) (i32.const 1)))
                (br_if $l (i32.lt_u (local.get $i) (i32.load (i32.const 68)))))
             (call $forward {users})"
        )
    };
    // 105 is not healthy; the higher the id, the less is in flight; even ones are local.
    let anywhere = load(guest.map_decide(|_| body(0)));
    assert_eq!(forward(ask(&anywhere)).plan.endpoints, [104, 103, 102]);
    let mut guest = Guest::new().import("catalog", "least-loaded", "(param i32 i32 i32 i32 i32 i32 i32)").import(
        "plan",
        "endpoint",
        "(param i32)",
    );
    guest.text("users");
    assert_eq!(forward(ask(&load(guest.map_decide(|_| body(1))))).plan.endpoints, [104, 102, 103]);
}

#[test]
fn an_endpoint_can_be_found_and_described() {
    let mut guest = Guest::new()
        .import("catalog", "find", "(param i32 i32 i32 i32 i32)")
        .import("catalog", "describe", "(param i32 i32)")
        .import("log", "info", "(param i32 i32)");
    let (users, address) = (guest.text("users"), guest.text("10.0.0.3:80"));
    let guest = guest.decide(&format!(
        "(call $catalog.find {users} {address} (i32.const 64))
         (call $catalog.describe (i32.load offset=4 (i32.const 64)) (i32.const 128))
         (call $log.info (i32.load offset=12 (i32.const 128)) (i32.load offset=16 (i32.const 128)))
         (call $next)"
    ));
    assert_eq!(logged(&load(guest)), "10.0.0.3:80");
}

#[test]
fn what_is_doubtful_about_a_list_can_be_read() {
    let mut guest =
        Guest::new().import("catalog", "knowledge-of", "(param i32 i32 i32)").import("log", "info", "(param i32 i32)");
    let (users, held) = (guest.text("users"), guest.text("held"));
    // An option of a record: a string, and two flags.
    let guest = guest.decide(&format!(
        "(call $catalog.knowledge-of {users} (i32.const 64))
         (if (i32.and (i32.load8_u offset=13 (i32.const 64)) (i32.eqz (i32.load8_u offset=12 (i32.const 64))))
            (then (call $log.info {held})))
         (call $log.info (i32.load offset=4 (i32.const 64)) (i32.load offset=8 (i32.const 64)))
         (call $next)"
    ));
    let logs = ask(&load(guest)).logs;
    assert_eq!(logs.iter().map(|line| line.message.as_str()).collect::<Vec<_>>(), ["held", "r7"]);
}

#[test]
fn state_is_shared_by_all_instances_and_outlives_a_version() {
    let counting = || {
        let mut guest = Guest::new().import("state", "add", "(param i32 i32 i32 i32) (result i64)");
        let key = guest.text("hits");
        guest.decide(&format!(
            "(i32.store8 (i32.const 512) (i32.wrap_i64 (call $state.add {key} (i32.const 1) (i32.const 0))))
             (call $respond (i32.const 200) (i32.const 512) (i32.const 1))"
        ))
    };
    let live: Arc<PolicyLive> = Arc::default();
    let mut seen = Vec::new();
    for _ in 0..2 {
        let version = try_load(counting(), limits(), Arc::clone(&live), "").unwrap();
        for worker in [0, 1, 0] {
            let Outcome::Respond(answer) = version.decide(worker, question()).outcome else { panic!() };
            seen.push(answer.body.as_bytes()[0]);
        }
    }
    assert_eq!(seen, [1, 2, 3, 4, 5, 6]);
}

#[test]
fn what_a_policy_counts_belongs_to_its_name() {
    let mut guest = Guest::new().import("metrics", "count", "(param i32 i32 i32 i32 i32)");
    let name = guest.text("hits");
    let live: Arc<PolicyLive> = Arc::default();
    let guest =
        guest.decide(&format!("(call $metrics.count {name} (i32.const 3) (i32.const 0) (i32.const 0)) (call $next)"));
    let version = try_load(guest, limits(), Arc::clone(&live), "").unwrap();
    ask(&version);
    ask(&version);
    let series = live.metrics.series();
    assert_eq!((series[0].name.as_str(), &series[0].value), ("hits", &SeriesValue::Counter(6)));
}

#[test]
fn logs_are_bounded() {
    let mut guest = Guest::new().import("log", "warn", "(param i32 i32)");
    let long = guest.text(&"é".repeat(3000));
    let version = load(guest.decide(&format!(
        "(loop $l (call $log.warn {long}) (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $l (i32.lt_u (local.get $i) (i32.const 100))))
         (call $next)"
    )));
    let logs = ask(&version).logs;
    assert_eq!(logs.len(), 16);
    assert!(logs.iter().all(|line| line.message.len() == 4096 && line.level == tracing::Level::WARN));
}

/// Every call that the interface calls a fault: the function, its type, the call, and a word of the message.
const FORBIDDEN: &[(&str, &str, &str, &str, &str)] = &[
    ("request", "inputs", "(param i32 i32 i32)", "(call $F (\"path\nbody\") (i32.const 64))", "`body` is no input"),
    ("edit", "set-header", "(param i32 i32 i32 i32)", "(call $F (\"host\") (\"x\"))", "belongs to the connection"),
    (
        "edit",
        "append-header",
        "(param i32 i32 i32 i32)",
        "(call $F (\"proxy-x\") (\"x\"))",
        "belongs to the connection",
    ),
    ("edit", "set-response-header", "(param i32 i32 i32 i32)", "(call $F (\"x-a\") (\"\n\"))", "control character"),
    ("edit", "append-response-header", "(param i32 i32 i32 i32)", "(call $F (\"a b\") (\"x\"))", "no header name"),
    ("edit", "remove-header", "(param i32 i32)", "(call $F (\"te\"))", "belongs to the connection"),
    ("edit", "remove-response-header", "(param i32 i32)", "(call $F (\"\"))", "no header name"),
    ("edit", "set-path", "(param i32 i32)", "(call $F (\"x\"))", "no path"),
    ("edit", "set-query", "(param i32 i32)", "(call $F (\"a b\"))", "no query"),
    ("edit", "set-host", "(param i32 i32)", "(call $F (\"u@h\"))", "not `HOST`"),
    ("edit", "set-query", "(param i32 i32)", "65 (call $F (\"a\"))", "more than 64 edits"),
    ("plan", "endpoint", "(param i32)", "9 (call $F (i32.const 1))", "more than 8 times"),
    ("plan", "subset", "(param i32 i32 i32 i32)", "9 (call $F (\"a\") (\"b\"))", "more than 8 times"),
    ("plan", "prefer", "(param i32 i32 i32 i32)", "9 (call $F (\"a\") (\"b\"))", "more than 8 times"),
    ("plan", "timeout-ms", "(param i32)", "(call $F (i32.const 0))", "of 0"),
    ("plan", "attempt-timeout-ms", "(param i32)", "(call $F (i32.const 0))", "of 0"),
    ("plan", "max-attempts", "(param i32)", "(call $F (i32.const 0))", "of 0"),
    ("plan", "retry-status", "(param i32)", "(call $F (i32.const 404))", "of 404"),
    ("plan", "hash", "(param i32 i32)", "(call $F (i32.const 0) (i32.const 1025))", "longer than 1024"),
    ("plan", "queue-as", "(param i32 i32 i32)", "(call $F (\"k\") (i32.const 0))", "a weight of 0"),
    (
        "plan",
        "queue-as",
        "(param i32 i32 i32)",
        "(call $F (i32.const 0) (i32.const 1025) (i32.const 1))",
        "longer than 1024",
    ),
    ("plan", "maglev", "(param i32 i32)", "(call $F (i32.const 0) (i32.const 1025))", "longer than 1024"),
    ("plan", "sticky", "(param i32 i32)", "(call $F (i32.const 0) (i32.const 1025))", "longer than 1024"),
    (
        "state",
        "add",
        "(param i32 i32 i32 i32) (result i64)",
        "(drop (call $F (i32.const 0) (i32.const 257) (i32.const 1) (i32.const 0)))",
        "257 bytes",
    ),
    (
        "state",
        "set",
        "(param i32 i32 i32 i32 i32)",
        "(call $F (\"k\") (i32.const 0) (i32.const 1025) (i32.const 0))",
        "1025 bytes",
    ),
    ("state", "get", "(param i32 i32 i32)", "(call $F (i32.const 0) (i32.const 257) (i32.const 64))", "257 bytes"),
    (
        "state",
        "take",
        "(param i32 i32 i32 f64 i32 i32)",
        "(call $F (\"k\") (i32.const 1) (f64.const -1) (i32.const 1) (i32.const 64))",
        "a rate of -1",
    ),
    (
        "state",
        "take",
        "(param i32 i32 i32 f64 i32 i32)",
        "(call $F (\"k\") (i32.const 1) (f64.const nan) (i32.const 1) (i32.const 64))",
        "a rate of NaN",
    ),
    ("random", "below", "(param i32) (result i32)", "(drop (call $F (i32.const 0)))", "of 0"),
    ("hashing", "bucket", "(param i32 i32 i32) (result i32)", "(drop (call $F (\"k\") (i32.const 0)))", "of 0 buckets"),
    (
        "metrics",
        "count",
        "(param i32 i32 i32 i32 i32)",
        "(call $F (\"Hits\") (i32.const 1) (i32.const 0) (i32.const 0))",
        "the name",
    ),
    (
        "metrics",
        "observe",
        "(param i32 i32 f64 i32 i32)",
        "(call $F (\"\") (f64.const 1) (i32.const 0) (i32.const 0))",
        "the name",
    ),
];

#[test]
fn what_the_interface_forbids_is_a_bad_answer_and_costs_no_instance() {
    for (interface, function, signature, call, word) in FORBIDDEN {
        let mut guest = Guest::new().import(interface, function, signature);
        let (times, call) = match call.split_once(' ') {
            Some((times, call)) if times.parse::<u32>().is_ok() => (times, call),
            _ => ("1", *call),
        };
        // (\"text\") stands for an address and a length.
        let mut body = call.replace("$F", &format!("${interface}.{function}"));
        while let Some(start) = body.find("(\"") {
            let end = start + body[start..].find("\")").unwrap();
            let text = guest.text(&body[start + 2..end]);
            body.replace_range(start..end + 2, &text);
        }
        let users = guest.text("users");
        let version = load(guest.decide(&format!(
            "(loop $l {body} (local.set $i (i32.add (local.get $i) (i32.const 1)))
                (br_if $l (i32.lt_u (local.get $i) (i32.const {times}))))
             (call $forward {users})"
        )));
        let (kind, message) = fault(ask(&version));
        assert_eq!(kind, FaultKind::BadAnswer, "{interface}.{function}");
        assert!(message.contains(word), "{interface}.{function}: {message}");
        assert_eq!(version.stats().replaced, 0, "{interface}.{function}");
    }
}

#[test]
fn one_call_less_than_too_many_is_fine() {
    let mut guest = Guest::new().import("edit", "set-query", "(param i32 i32)");
    let (users, query) = (guest.text("users"), guest.text("a=1"));
    let version = load(guest.decide(&format!(
        "(loop $l (call $edit.set-query {query}) (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $l (i32.lt_u (local.get $i) (i32.const 64))))
         (call $forward {users})"
    )));
    assert_eq!(forward(ask(&version)).edits.query.as_deref(), Some("a=1"));
}

#[test]
fn reasons_are_one_short_line() {
    let mut guest = Guest::new().import("plan", "reason", "(param i32 i32)");
    let long = guest.text(&format!("a\nb{}", "é".repeat(300)));
    let called = ask(&load(guest.decide(&format!("(call $plan.reason {long}) (call $next)"))));
    assert_eq!(called.reason.len(), 255);
    assert!(called.reason.starts_with("a bé"));
}
