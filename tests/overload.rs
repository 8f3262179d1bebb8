//! What a service is spared when it has too much to do, with the real program and seen from outside: the limit that latency
//! finds, a breaker that closes step by step, turns that a policy gives, and who waits for some endpoints only.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

use crate::support::gateway::Gateway;
use crate::support::program::{Program, get, until};
use crate::support::saying::Saying;
use serde_json::Value;
use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

const OBEDIENT: &[u8] = include_bytes!("guests/obedient.wasm");

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

fn shop(gateway: &Program) -> Value {
    let shown: Value = serde_json::from_str(&gateway.ask("/services")).unwrap();
    shown["services"].as_array().unwrap().iter().find(|service| service["name"] == "shop").unwrap().clone()
}

/// How many are in flight, and wait.
fn admission(gateway: &Program) -> [u64; 2] {
    let shop = shop(gateway);
    ["in_flight", "queued"].map(|key| shop["admission"][key].as_u64().unwrap())
}

fn refused(gateway: &Program, over: &str) -> Option<f64> {
    gateway.metric(&format!("wayside_overload_refused_total{{service=\"shop\",over=\"{over}\"}}"))
}

fn lines(gateway: Program) -> Vec<Value> {
    gateway.stop().0.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A request, on a thread of its own.
fn ask(gateway: &Program, path: &'static str, headers: &[(&'static str, &str)]) -> JoinHandle<String> {
    let address = gateway.address.clone();
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    std::thread::spawn(move || {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        get(&address, path, &headers)
    })
}

/// An origin that works on so many requests at a time, 20 ms on each, while the others wait there in line.
fn working_on(slots: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let free = Arc::new((Mutex::new(slots), Condvar::new()));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let free = Arc::clone(&free);
            std::thread::spawn(move || {
                let mut stream = BufReader::new(stream.unwrap());
                while crate::support::raw::next_head(&mut stream).is_some() {
                    let (left, given_back) = &*free;
                    *given_back.wait_while(left.lock().unwrap(), |left| *left == 0).unwrap() -= 1;
                    std::thread::sleep(Duration::from_millis(20));
                    *left.lock().unwrap() += 1;
                    given_back.notify_one();
                    if stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// As long as it lives, so many ask again and again, each on a thread of its own.
struct Crowd {
    enough: Arc<AtomicBool>,
    asking: Vec<JoinHandle<()>>,
}

impl Crowd {
    fn of(count: usize, gateway: &Program) -> Self {
        let enough = Arc::new(AtomicBool::new(false));
        let ask = |_| {
            let (enough, address) = (Arc::clone(&enough), gateway.address.clone());
            std::thread::spawn(move || {
                while !enough.load(Relaxed) {
                    get(&address, "/", &[]);
                }
            })
        };
        let asking = (0..count).map(ask).collect();
        Crowd { enough, asking }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.enough.store(true, Relaxed);
        self.asking.drain(..).for_each(|asking| drop(asking.join()));
    }
}

#[test]
fn a_limit_finds_out_what_the_service_can_take_also_where_it_begins_in_an_overload() {
    let keys = "[services.shop.adaptive]\nstart = 40\nmin = 2\nwindow = \"100ms\"\nmin_requests = 5";
    for unhurried in [40, 0] {
        let gateway = Gateway::with().endpoint(working_on(4)).service(keys).telemetry("access_log = \"json\"").start();
        let adaptive = || shop(&gateway)["admission"]["adaptive"].as_u64().unwrap();
        // Unhurried, nobody is refused; how far it stays where it began is for the machine's other work to say.
        (0..unhurried).for_each(|_| assert_eq!(status(&gateway.get("/", &[])), 200));
        assert_eq!(refused(&gateway, "limit"), Some(0.0));
        // Forty at a time take ten times as long.
        let crowd = Crowd::of(40, &gateway);
        until("it comes down", || adaptive() <= 16);
        until("some are refused", || refused(&gateway, "limit") >= Some(20.0));
        let (shown, told) = (shop(&gateway), gateway.metric("wayside_service_limit{service=\"shop\"}"));
        assert!(shown["admission"]["limit"].as_u64() < Some(40) && told < Some(40.0), "{shown} {told:?}");
        drop(crowd);
        until("nobody is in", || admission(&gateway) == [0, 0]);
        let lines = lines(gateway);
        let count = |what: &dyn Fn(&Value) -> bool| lines.iter().filter(|line| what(line)).count();
        assert!(count(&|line| line["over"] == "limit" && line["error"] == "overloaded") >= 20);
        assert!(count(&|line| line["status"] == 200) >= 40);
    }
}

#[test]
fn a_breaker_that_ramps_lets_in_a_tenth_at_first_and_says_so() {
    let origin = Saying::start();
    let keys = "breaker = { window = \"60s\", min_requests = 5, open = \"100ms\", probes = 1, ramp = \"1h\" }";
    let gateway = Gateway::with().endpoint(origin.address).service(keys).telemetry("access_log = \"json\"").start();
    let lets_in = || gateway.metric("wayside_breaker_lets_in{service=\"shop\"}");
    assert_eq!((shop(&gateway)["breaker"].as_str(), lets_in()), (Some("closed"), Some(1.0)));
    origin.says(500);
    (0..5).for_each(|_| assert_eq!(status(&gateway.get("/", &[])), 500));
    assert_eq!(lets_in(), Some(0.0));
    origin.says(200);
    until("it closes", || status(&gateway.get("/", &[])) == 200);
    assert_eq!((shop(&gateway)["breaker"].as_str(), lets_in()), (Some("ramping"), Some(0.1)));
    assert_eq!(gateway.metric("wayside_breaker_open{service=\"shop\"}"), Some(0.0));
    let asked = origin.asked();
    let answers: Vec<String> = (0..100).map(|_| gateway.get("/", &[])).collect();
    let (good, bad): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| status(answer) == 200);
    // Evenly: whoever was let in between was counted as well.
    assert!((9..=11).contains(&good.len()) && origin.asked() - asked == good.len(), "{}", good.len());
    let told = |answer: &&&String| answer.contains("\"code\":\"breaker\"") && answer.contains("retry-after: 1\r\n");
    assert_eq!(bad.iter().filter(told).count(), bad.len());
    // Should it fail again, it opens again.
    origin.says(500);
    until("it opens again", || {
        gateway.get("/", &[]);
        gateway.metric("wayside_breaker_opened_total{service=\"shop\"}") == Some(2.0)
    });
    assert!(lines(gateway).iter().filter(|line| line["error"] == "breaker").count() >= bad.len());
}

#[test]
fn a_policy_says_with_whom_a_request_waits_and_how_many_places_those_have() {
    let origin = Saying::start();
    origin.says(0);
    let keys = "limits = { requests = 1 }\nqueue = { depth = 4, wait = \"20s\", key = \"none\" }";
    let gateway = Gateway::with()
        .endpoint(origin.address)
        .service(keys)
        .policy("obedient.wasm", OBEDIENT)
        .telemetry("access_log = \"json\"")
        .start();
    let hold = |key: &str, weight: &str| {
        ask(&gateway, "/hold", &[("x-forward", "shop"), ("x-queue-as", key), ("x-weight", weight)])
    };
    let first = hold("a", "1");
    until("it is there", || origin.asked() == 1);
    let mut waiting = Vec::new();
    for (number, key) in ["a", "a", "a"].into_iter().enumerate() {
        waiting.push(hold(key, "1"));
        until("it waits", || admission(&gateway) == [1, number as u64 + 1]);
    }
    // One more than may wait of somebody with as few: the newest of those who are many goes.
    waiting.push(hold("b", "1"));
    until("four wait", || admission(&gateway) == [1, 4]);
    waiting.push(hold("c", "1"));
    until("one was refused", || refused(&gateway, "queue_full") == Some(1.0));
    let gone = waiting.remove(2).join().unwrap();
    assert!(status(&gone) == 503 && gone.contains("overloaded"), "{gone}");
    // With ten places in a turn, a key has as little waiting as one with one and one place.
    waiting.push(hold("b", "10"));
    until("another one was refused", || refused(&gateway, "queue_full") == Some(2.0));
    assert_eq!(status(&waiting.remove(1).join().unwrap()), 503);
    origin.says(200);
    assert_eq!(status(&first.join().unwrap()), 200);
    waiting.into_iter().for_each(|waiting| assert_eq!(status(&waiting.join().unwrap()), 200));
    until("nobody is in", || admission(&gateway) == [0, 0]);
    assert_eq!(gateway.metric("wayside_queued_total{service=\"shop\"}"), Some(6.0));
    let lines = lines(gateway);
    let count = |what: &dyn Fn(&Value) -> bool| lines.iter().filter(|line| what(line)).count();
    assert_eq!(count(&|line| line["over"] == "queue_full"), 2);
    assert_eq!(count(&|line| line["status"] == 200 && line["queued_ms"].as_f64() > Some(0.0)), 4);
}

/// A gateway before one endpoint of each of these versions, each of which may have one request.
fn versions(origins: &[(&Saying, &str)], keys: &str) -> Program {
    let of = |version: &str| {
        let subset = format!("subset = {{ metadata = {{ version = \"{version}\" }}, fallback = \"none\" }}");
        format!("match = {{ path = \"/hold\", headers = {{ \"x-version\" = \"{version}\" }} }}\n{subset}")
    };
    let gateway = Gateway::with()
        .endpoint(origins[0].0.address)
        .service(&format!("limits = {{ endpoint_requests = 1 }}\nstrategy = \"least-request\"\n{keys}"))
        .route(&of("v1"))
        .route(&of("v2"))
        .route(&of("v9"))
        .route("match = { path_prefix = \"/\" }")
        .telemetry("access_log = \"json\"")
        .start();
    let endpoint = |(origin, version): &(&Saying, &str)| {
        let metadata = format!("metadata = {{ version = \"{version}\" }}");
        format!("[[services.shop.endpoints]]\naddress = \"{}\"\n{metadata}\n", origin.address)
    };
    let list: String = origins.iter().map(endpoint).collect();
    std::fs::write(gateway.folder().join("services.toml"), list).unwrap();
    until("they are known", || shop(&gateway)["endpoints"].as_array().unwrap().len() == origins.len());
    gateway
}

#[test]
fn whoever_may_only_go_to_some_endpoints_waits_for_those() {
    let (one, two) = (Saying::start(), Saying::start());
    two.says(0);
    let gateway = versions(&[(&one, "v1"), (&two, "v2")], "queue = { depth = 2, wait = \"20s\" }");
    let hold = || ask(&gateway, "/hold", &[("x-version", "v2")]);
    let first = hold();
    until("it is there", || two.asked() == 1);
    let mut waiting: Vec<_> = (1..=2)
        .map(|number| {
            let waits = hold();
            until("it waits", || admission(&gateway) == [1, number]);
            waits
        })
        .collect();
    assert_eq!(gateway.metric("wayside_queue_length{service=\"shop\"}"), Some(2.0));
    // Others go on, beside them; and who wants what nobody is does not wait.
    (0..5).for_each(|_| assert_eq!(status(&gateway.get("/", &[])), 200));
    let nobody = gateway.get("/hold", &[("x-version", "v9")]);
    assert!(status(&nobody) == 503 && nobody.contains("\"code\":\"no_endpoint\""), "{nobody}");
    // No more wait than may.
    let full = hold().join().unwrap();
    assert!(status(&full) == 503 && full.contains("\"code\":\"overloaded\""), "{full}");
    assert_eq!((refused(&gateway, "queue_full"), refused(&gateway, "endpoints_full")), (Some(1.0), Some(0.0)));
    two.says(200);
    waiting.push(first);
    waiting.into_iter().for_each(|held| assert_eq!(status(&held.join().unwrap()), 200));
    until("nobody is in", || admission(&gateway) == [0, 0]);
    assert_eq!((two.asked(), one.asked()), (3, 5));
    let lines = lines(gateway);
    assert_eq!(lines.iter().filter(|line| line["queued_ms"].as_f64() > Some(0.0)).count(), 3);
}

#[test]
fn whoever_waits_for_some_endpoints_gives_up_in_time_or_goes_away() {
    let (one, two) = (Saying::start(), Saying::start());
    two.says(0);
    let gateway = versions(&[(&one, "v1"), (&two, "v2")], "queue = { wait = \"300ms\" }");
    let first = ask(&gateway, "/hold", &[("x-version", "v2")]);
    until("it is there", || two.asked() == 1);
    let late = gateway.get("/hold", &[("x-version", "v2")]);
    assert!(status(&late) == 503 && late.contains("overloaded"), "{late}");
    assert_eq!((refused(&gateway, "queue_timeout"), admission(&gateway)), (Some(1.0), [1, 0]));
    // Without a queue, at once.
    let refuses = versions(&[(&one, "v1"), (&two, "v2")], "");
    let second = ask(&refuses, "/hold", &[("x-version", "v2")]);
    until("it is there", || two.asked() == 2);
    assert_eq!(status(&refuses.get("/hold", &[("x-version", "v2")])), 503);
    assert_eq!(refused(&refuses, "endpoints_full"), Some(1.0));
    two.says(200);
    assert_eq!([first, second].map(|held| status(&held.join().unwrap())), [200, 200]);
}
