//! State that two gateways share through a real Redis, and what becomes of requests when that is killed.
#![allow(clippy::unwrap_used, reason = "for tests")]

use crate::support::program::{Program, get, until};
use crate::support::redis::{Redis, words};
use crate::support::shop::{built, drop_in};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Counts, takes and remembers, and answers with what it knows.
const POLICY: &str = r#"
wit_bindgen::generate!({ path: "wit" });
use exports::wayside::policy::routing::{Decision, Guest, Response};
use wayside::policy::{request, state};
struct Policy;
impl Guest for Policy {
    fn init(_: String) -> Result<(), String> {
        Ok(())
    }
    fn decide() -> Result<Decision, String> {
        let path = request::path();
        let body = match path.as_str() {
            "/count" => state::add("n", 1, 0).to_string(),
            "/read" => state::add("n", 0, 0).to_string(),
            "/take" => state::take("b", 1, 0.0, 20).granted.to_string(),
            "/get" => state::get("v").unwrap_or("none".into()),
            "/first" => state::get_or_set("first", &request::header("x-name").unwrap_or_default(), 0),
            "/set" => { state::set("v", "said", 0); "set".into() }
            _ => return Ok(Decision::Next),
        };
        Ok(Decision::Respond(Response { status: 200, headers: vec![], body }))
    }
}
export!(Policy);
"#;

fn policy() -> &'static [u8] {
    static POLICIES: OnceLock<[Vec<u8>; 1]> = OnceLock::new();
    &POLICIES.get_or_init(|| built([POLICY.to_owned()]))[0]
}

fn gateway(redis: &Redis, sidecar: &str) -> Program {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("policies")).unwrap();
    drop_in(&folder.path().join("policies/counts.wasm"), policy());
    drop_in(&folder.path().join("policies/counts.toml"), format!("state = \"shared\"\n{sidecar}").as_bytes());
    // On a machine that is busy with other tests, 5 ms are soon over.
    let config = format!(
        "[policies]\ndirectory = \"policies\"\n[stores.shared]\nkind = \"redis\"\naddress = \"redis://{}\"\ndeadline = \"10s\"\n",
        redis.address
    );
    Program::start(folder, &config, &[])
}

fn ask(gateway: &Program, path: &str) -> String {
    ask_as(gateway, path, "nobody")
}

fn ask_as(gateway: &Program, path: &str, name: &str) -> String {
    let answer = gateway.get(path, &[("x-name", name)]);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

fn connected(gateway: &Program) {
    until("the store is connected", || gateway.metric("wayside_store_up{store=\"shared\"}") == Some(1.0));
}

/// How often the store has answered.
fn told(gateway: &Program) -> f64 {
    gateway.metric("wayside_store_operations_total{store=\"shared\",outcome=\"answered\"}").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_buckets_and_values_are_those_of_all_gateways() {
    let redis = Redis::start().await;
    let (one, two) = tokio::task::block_in_place(|| (gateway(&redis, ""), gateway(&redis, "")));
    tokio::task::block_in_place(|| {
        [&one, &two].iter().for_each(|gateway| connected(gateway));
        for _ in 0..50 {
            ask(&one, "/count");
            ask(&two, "/count");
        }
        // What each of them did is in the store, and soon in the other's copy.
        until("one knows all", || ask(&one, "/read") == "100");
        until("two knows all", || ask(&two, "/read") == "100");
        // Twenty tokens for both. Each knows what the store said of its last take, and the other may have taken one since.
        let granted = |gateway: &Program| {
            let before = told(gateway);
            let granted = ask(gateway, "/take") == "true";
            until("the store has told what is left", || told(gateway) > before);
            usize::from(granted)
        };
        let given: usize = (0..30).map(|_| granted(&one) + granted(&two)).sum();
        assert!((20..=22).contains(&given), "{given}");
        assert_eq!(ask(&two, "/get"), "none");
        ask(&one, "/set");
        assert_eq!(ask(&one, "/get"), "said");
        until("two sees it", || ask(&two, "/get") == "said");
        ask_as(&one, "/first", "one");
        until("the first one is first everywhere", || ask_as(&two, "/first", "two") == "one");
        assert_eq!(ask_as(&one, "/first", "one"), "one");
    });
    let sum: i64 = redis.ask(&words(&["GET", "wayside:c:counts:n"])).await;
    assert_eq!(sum, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_killed_costs_no_request() {
    let mut redis = Redis::start().await;
    let gateways =
        ["", "on_store_failure = \"closed\"\n"].map(|sidecar| tokio::task::block_in_place(|| gateway(&redis, sidecar)));
    let [open, closed] = &gateways;
    tokio::task::block_in_place(|| {
        gateways.iter().for_each(connected);
        ask(open, "/count");
        until("it is counted", || ask(open, "/read") == "1");
    });
    redis.process.kill();
    tokio::task::block_in_place(|| {
        // Each of these is answered, and at once.
        for number in 2..=50 {
            assert_eq!(ask(open, "/count"), number.to_string());
            assert_eq!(ask(open, "/take"), if number <= 21 { "true" } else { "false" });
        }
        until("it is known to fail", || {
            ask(closed, "/count");
            closed.metric("wayside_store_up{store=\"shared\"}") == Some(0.0)
        });
        assert_eq!((ask(closed, "/take").as_str(), ask(closed, "/get").as_str()), ("false", "none"));
        assert!(open.metric("wayside_store_operations_total{store=\"shared\",outcome=\"failed\"}") > Some(0.0));
    });
    redis.start_again().await;
    tokio::task::block_in_place(|| {
        gateways.iter().for_each(connected);
        until("it grants again", || ask(closed, "/take") == "true");
    });
}

/// Whatever happens, the load ends with it.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_dies_and_comes_back_under_load_loses_no_request() {
    let mut redis = Redis::start().await;
    let gateway = tokio::task::block_in_place(|| gateway(&redis, ""));
    tokio::task::block_in_place(|| connected(&gateway));
    let (over, asked, address) = (AtomicBool::new(false), AtomicU64::new(0), &gateway.address);
    let load = || {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !over.load(Relaxed) {
                        for path in ["/count", "/take", "/set", "/get"] {
                            let answer = get(address, path, &[]);
                            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
                            asked.fetch_add(1, Relaxed);
                        }
                    }
                });
            }
            let _ends = Ends(&over);
            let more = |than: u64| until("more were answered", || asked.load(Relaxed) >= than);
            more(200);
            for _ in 0..3 {
                redis.process.kill();
                until("it is known to fail", || gateway.metric("wayside_store_up{store=\"shared\"}") == Some(0.0));
                more(asked.load(Relaxed) + 200);
                tokio::runtime::Handle::current().block_on(redis.start_again());
                connected(&gateway);
                more(asked.load(Relaxed) + 200);
            }
        });
    };
    tokio::task::block_in_place(load);
}

#[test]
fn a_store_that_cannot_be_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let check = |stores: &str| {
        let file = folder.path().join("wayside.toml");
        std::fs::write(&file, format!("[gateway]\n[stores.shared]\n{stores}")).unwrap();
        let checked =
            Command::new(env!("CARGO_BIN_EXE_wayside")).args(["check", "--config"]).arg(file).output().unwrap();
        String::from_utf8(checked.stderr).unwrap()
    };
    for (stores, problem) in [
        ("kind = \"memcached\"", "stores.shared: `kind`: expected `redis`"),
        ("kind = \"redis\"", "stores.shared: missing field `address`"),
        ("kind = \"redis\"\naddress = \"redis://127.0.0.1:1\"\ndeadline = \"0s\"", "`deadline`: must be more than 0"),
    ] {
        let told = check(stores);
        assert!(told.contains(problem), "{stores}: {told}");
    }
}

/// A gateway with this limit and no policies; everything that passes is answered with 404.
fn limiting(redis: &Redis, more: &str) -> Program {
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "[stores.shared]\nkind = \"redis\"\naddress = \"redis://{}\"\ndeadline = \"10s\"\n[[rate_limits]]\nname = \"all\"\n\
         key = \"header:x-name\"\nrate = \"1/h\"\nburst = 20\nstore = \"shared\"\n{more}",
        redis.address
    );
    Program::start(folder, &config, &[])
}

/// Whether it comes through.
fn passes(gateway: &Program, name: &str) -> bool {
    let answer = gateway.get("/", &[("x-name", name)]);
    assert!(answer.starts_with("HTTP/1.1 404") || answer.starts_with("HTTP/1.1 429"), "{answer}");
    answer.starts_with("HTTP/1.1 404")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_is_that_of_all_gateways() {
    let redis = Redis::start().await;
    let (one, two) = tokio::task::block_in_place(|| (limiting(&redis, ""), limiting(&redis, "")));
    tokio::task::block_in_place(|| {
        [&one, &two].iter().for_each(|gateway| connected(gateway));
        // Each knows what the store said of its last grant, and the other may have granted one since.
        let passed = |gateway: &Program, name: &str| {
            let before = told(gateway);
            let passed = passes(gateway, name);
            if passed {
                until("the store has told what is left", || told(gateway) > before);
            }
            usize::from(passed)
        };
        let given: usize = (0..30).map(|_| passed(&one, "a") + passed(&two, "a")).sum();
        assert!((20..=22).contains(&given), "{given}");
        // One that was asked for nothing yet finds out with its first grant.
        let given: usize = (0..40).map(|_| passed(&one, "b")).sum();
        assert_eq!(given, 20);
        assert_eq!((0..9).map(|_| passed(&two, "b")).sum::<usize>(), 1);
        // What is refused is no work for the store.
        let before = told(&one);
        (0..20).for_each(|_| assert!(!passes(&one, "b")));
        assert_eq!(told(&one), before);
    });
    // Names that clients gave are no keys of the store.
    let keys: Vec<String> = redis.ask(&words(&["KEYS", "*"])).await;
    assert!(keys.len() == 2 && keys.iter().all(|key| key.starts_with("wayside:b:rate_limits/all:")), "{keys:?}");
    assert!(keys.iter().all(|key| key.len() == "wayside:b:rate_limits/all:".len() + 32), "{keys:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_outlives_its_store() {
    let mut redis = Redis::start().await;
    let gateways = ["", "on_store_failure = \"closed\"\n"];
    let gateways = gateways.map(|more| tokio::task::block_in_place(|| limiting(&redis, more)));
    let [open, closed] = &gateways;
    tokio::task::block_in_place(|| gateways.iter().for_each(connected));
    redis.process.kill();
    tokio::task::block_in_place(|| {
        // Each of these is answered, and at once.
        assert_eq!((0..30).filter(|_| passes(open, "a")).count(), 20);
        let mut names = (0..20).map(|number| number.to_string());
        until("it is known to fail", || {
            passes(closed, &names.next().unwrap_or_default());
            closed.metric("wayside_store_up{store=\"shared\"}") == Some(0.0)
        });
        assert!(!passes(closed, "nobody yet"));
        assert!(closed.get("/", &[]).contains("retry-after: 1\r\n"));
    });
    redis.start_again().await;
    tokio::task::block_in_place(|| {
        gateways.iter().for_each(connected);
        until("it grants again", || passes(closed, "nobody yet"));
    });
}
