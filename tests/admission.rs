//! Limits of a service and its queue, with the real program; and that a service which hangs costs nobody else anything.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

use crate::support::gateway::Gateway;
use crate::support::origin::{Origin, Protocol};
use crate::support::program::{Program, get, until};
use crate::support::saying::Saying;
use serde_json::Value;
use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

/// What `/services` says of how many are in, may be in, and wait.
fn admission(gateway: &Program) -> [u64; 3] {
    let shown: Value = serde_json::from_str(&gateway.ask("/services")).unwrap();
    let service = shown["services"].as_array().unwrap().iter().find(|service| service["name"] == "shop").unwrap();
    ["in_flight", "limit", "queued"].map(|key| service["admission"][key].as_u64().unwrap_or(u64::MAX))
}

/// A request, on a thread of its own, that its origin answers when it is told to.
fn hold(gateway: &Program, tenant: &'static str) -> JoinHandle<String> {
    let address = gateway.address.clone();
    std::thread::spawn(move || get(&address, "/hold", &[("x-tenant", tenant)]))
}

fn holding() -> Saying {
    let origin = Saying::start();
    origin.says(0);
    origin
}

#[test]
fn what_is_beyond_a_limit_is_refused_and_told_so() {
    let origin = holding();
    let gateway = Gateway::with()
        .endpoint(origin.address)
        .service("limits = { requests = 2 }")
        .telemetry("access_log = \"json\"")
        .start();
    let held = [hold(&gateway, "a"), hold(&gateway, "a")];
    until("both are there", || origin.asked() == 2);
    assert_eq!(admission(&gateway), [2, 2, 0]);
    let refused = gateway.get("/", &[]);
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("\"code\":\"overloaded\""), "{refused}");
    assert!(refused.to_lowercase().contains("retry-after: 1\r\n"), "{refused}");
    origin.says(200);
    held.into_iter().for_each(|held| assert_eq!(status(&held.join().unwrap()), 200));
    until("their places are free", || admission(&gateway) == [0, 2, 0]);
    assert_eq!(status(&gateway.get("/", &[])), 200);
    let of =
        |over: &str| gateway.metric(&format!("wayside_overload_refused_total{{service=\"shop\",over=\"{over}\"}}"));
    assert_eq!([of("limit"), of("queue_full")], [Some(1.0), Some(0.0)]);
    let (lines, _) = gateway.stop();
    let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let over: Vec<_> = lines.iter().filter(|line| line["over"] == "limit").collect();
    assert!(matches!(over.as_slice(), [line] if line["error"] == "overloaded" && line["attempts"] == 0));
}

#[test]
fn tenants_wait_in_turns_and_the_greedy_one_goes_when_the_queue_is_full() {
    let origin = holding();
    let keys = "limits = { requests = 1 }\nqueue = { depth = 2, wait = \"15s\", key = \"header:x-tenant\" }";
    let gateway = Gateway::with().endpoint(origin.address).service(keys).telemetry("access_log = \"json\"").start();
    let first = hold(&gateway, "a");
    until("it is there", || origin.asked() == 1);
    let second = hold(&gateway, "a");
    until("one waits", || admission(&gateway) == [1, 1, 1]);
    let third = hold(&gateway, "a");
    until("two wait", || admission(&gateway) == [1, 1, 2]);
    let other = hold(&gateway, "b");
    let refused = third.join().unwrap();
    assert!(refused.starts_with("HTTP/1.1 503") && refused.to_lowercase().contains("retry-after: 15"), "{refused}");
    assert_eq!((admission(&gateway), origin.asked()), ([1, 1, 2], 1));
    origin.says(200);
    [first, second, other].into_iter().for_each(|one| assert_eq!(status(&one.join().unwrap()), 200));
    assert_eq!(gateway.metric("wayside_queued_total{service=\"shop\"}"), Some(3.0));
    let (lines, _) = gateway.stop();
    let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().filter(|line| line["queued_ms"].as_f64() > Some(0.0)).count(), 3);
    assert_eq!(lines.iter().filter(|line| line["over"] == "queue_full").count(), 1);
}

#[test]
fn whoever_goes_away_or_waits_for_too_long_leaves_the_queue() {
    let origin = holding();
    let keys = |wait: &str| format!("limits = {{ requests = 1 }}\nqueue = {{ wait = \"{wait}\" }}");
    let gateway = Gateway::with().endpoint(origin.address).service(&keys("60s")).start();
    let first = hold(&gateway, "a");
    until("it is there", || origin.asked() == 1);
    let mut gone = TcpStream::connect(&gateway.address).unwrap();
    gone.write_all(b"GET / HTTP/1.1\r\nhost: shop.example\r\n\r\n").unwrap();
    until("it waits", || admission(&gateway) == [1, 1, 1]);
    // One that only ends its side may still want the answer.
    socket2::SockRef::from(&gone).set_linger(Some(Duration::ZERO)).unwrap();
    drop(gone);
    until("it has left", || admission(&gateway) == [1, 1, 0]);
    // A place is nobody's when its exchange is gone.
    let next = hold(&gateway, "a");
    until("it waits", || admission(&gateway) == [1, 1, 1]);
    origin.says(200);
    assert_eq!([first, next].map(|one| status(&one.join().unwrap())), [200, 200]);
    until("nobody is in", || admission(&gateway) == [0, 1, 0]);

    let origin = holding();
    let gateway = Gateway::with().endpoint(origin.address).service(&keys("50ms")).start();
    let first = hold(&gateway, "a");
    until("it is there", || origin.asked() == 1);
    let late = gateway.get("/", &[]);
    assert!(late.starts_with("HTTP/1.1 503") && late.contains("overloaded"), "{late}");
    let refused = "wayside_overload_refused_total{service=\"shop\",over=\"queue_timeout\"}";
    assert_eq!((gateway.metric(refused), origin.asked()), (Some(1.0), 1));
    origin.says(200);
    assert_eq!(status(&first.join().unwrap()), 200);
}

#[test]
fn an_endpoint_that_has_as_many_as_it_may_is_passed_over() {
    let origins = [holding(), holding()];
    let gateway = Gateway::with()
        .endpoints(origins.iter().map(|origin| origin.address))
        .service("limits = { endpoint_requests = 2 }\nstrategy = \"hash\"")
        .start();
    // All of one client have the same home.
    let held: Vec<_> = (0..4).map(|_| hold(&gateway, "a")).collect();
    until("each has two", || origins.iter().all(|origin| origin.asked() == 2));
    assert_eq!(admission(&gateway), [4, 4, 0]);
    assert_eq!(status(&gateway.get("/", &[])), 503);
    origins.iter().for_each(|origin| origin.says(200));
    held.into_iter().for_each(|held| assert_eq!(status(&held.join().unwrap()), 200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_workers_share_the_connections_that_may_be_open() {
    let origin = Origin::start(Protocol::Http1).await;
    let gateway = Gateway::with().endpoint(origin.address).service("limits = { connections = 1 }\nqueue = {}").start();
    // On connections of their own, which both workers take: what one keeps idle, the other has to wait for.
    for number in 0..8 {
        let answer = gateway.get(&format!("/{number}"), &[]);
        assert_eq!(status(&answer), 200, "{answer}");
        assert!(gateway.metric("wayside_upstream_connections{service=\"shop\"}") <= Some(1.0));
    }
}

#[test]
fn requests_that_wait_for_a_connection_are_bounded() {
    // It takes connections, and never says a word of TLS.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let keys = "limits = { pending = 1 }\ntls = {}\nconnect_timeout = \"15s\"\nmax_attempts = 1";
    let gateway = Gateway::with().endpoint(silent.local_addr().unwrap()).service(keys).start();
    let first = hold(&gateway, "a");
    until("it waits", || gateway.metric("wayside_upstream_pending{service=\"shop\"}") == Some(1.0));
    let refused = gateway.get("/", &[]);
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("\"code\":\"overloaded\""), "{refused}");
    let over = "wayside_overload_refused_total{service=\"shop\",over=\"connections\"}";
    assert_eq!((gateway.metric(over), admission(&gateway)[0]), (Some(1.0), 1));
    drop(gateway);
    // However its connection ended.
    let _ = first.join();
}

/// Whoever asks again and again has done so often enough, also where a test fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// One worker, of whom as many ask at a time as take it longer than it may be late, again and again.
#[test]
fn a_worker_with_too_much_to_do_refuses_some_and_the_admin_answers() {
    let origin = Saying::start();
    let gateway = Gateway::with().endpoint(origin.address).keys("workers = 1\nshed_when_late = \"5ms\"").start();
    let (enough, address) = (AtomicBool::new(false), &gateway.address);
    std::thread::scope(|scope| {
        let ask = || {
            let mut refused = None;
            while !enough.load(Relaxed) {
                let answer = get(address, "/", &[]);
                if status(&answer) == 503 {
                    refused = Some(answer);
                }
            }
            refused
        };
        let asking: Vec<_> = (0..64).map(|_| scope.spawn(ask)).collect();
        // Whatever the traffic, operators are answered.
        let shed = || gateway.ask("/healthz").contains("alive") && gateway.metric("wayside_shed_total") >= Some(20.0);
        let ends = Ends(&enough);
        until("it refuses some", shed);
        drop(ends);
        let refused: Vec<String> = asking.into_iter().filter_map(|asking| asking.join().unwrap()).collect();
        let told = |answer: &String| answer.contains("\"code\":\"shed\"") && answer.contains("retry-after: 1\r\n");
        assert!(!refused.is_empty() && refused.iter().all(told), "{refused:?}");
    });
    until("it is in time", || (0..10).all(|_| status(&gateway.get("/", &[])) == 200));
}

/// Of so many requests, how long the middle one took.
fn median(gateway: &Program, path: &str) -> Duration {
    let one = |_| {
        let began = Instant::now();
        assert_eq!(status(&gateway.get(path, &[])), 200);
        began.elapsed()
    };
    let mut took: Vec<Duration> = (0..41).map(one).collect();
    took.sort_unstable();
    took[20]
}

fn memory_kib(gateway: &Program) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A calls B, B calls C, and C hangs.
#[test]
fn a_service_that_hangs_behind_two_gateways_costs_only_its_own_requests() {
    let (hangs, well) = (holding(), Saying::start());
    let keys = "timeout = \"5s\"\nlimits = { requests = 20 }";
    let third = Gateway::with().endpoint(hangs.address).service(keys).start();
    let second = Gateway::with().endpoint(&third.address).service(keys).start();
    let first = Gateway::with()
        .endpoint(&second.address)
        .service(keys)
        .route("match = { path_prefix = \"/hold\" }")
        .named("other")
        .endpoint(well.address)
        .route("match = { path_prefix = \"/\" }")
        .start();
    let (before, kib) = (median(&first, "/other"), memory_kib(&first));
    let asked: Vec<_> = (0..120).map(|_| hold(&first, "a")).collect();
    until("it is full", || admission(&first) == [20, 20, 0]);
    until("the others are refused", || {
        first.metric("wayside_overload_refused_total{service=\"shop\",over=\"limit\"}") == Some(100.0)
    });
    let (during, grown) = (median(&first, "/other"), memory_kib(&first).saturating_sub(kib));
    assert!(first.metric("wayside_exchanges_in_flight") <= Some(21.0));
    assert!(during <= 10 * before + Duration::from_millis(50), "{before:?}, then {during:?}");
    assert!(grown < 32 << 10, "{grown} KiB more");
    let mut answers: Vec<u16> = asked.into_iter().map(|held| status(&held.join().unwrap())).collect();
    answers.sort_unstable();
    assert_eq!(answers.iter().filter(|status| **status == 503).count(), 100);
    assert!(answers[100..].iter().all(|status| *status == 504), "{answers:?}");
    for gateway in [&first, &second, &third] {
        until("nobody is in", || admission(gateway) == [0, 20, 0]);
    }
    hangs.says(200);
    assert_eq!(status(&first.get("/hold", &[])), 200);
}
