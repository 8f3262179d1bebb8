//! What a service's trouble costs others: retries, their budget, the breaker.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

use crate::support::gateway::Gateway;
use crate::support::program::{Program, until};
use crate::support::raw::{Raw, answering};
use crate::support::saying::Saying;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

fn status(gateway: &Program) -> String {
    let answer = gateway.get("/", &[]);
    answer.split(' ').nth(1).unwrap().to_owned()
}

fn shop(gateway: &Program) -> Value {
    let shown: Value = serde_json::from_str(&gateway.ask("/services")).unwrap();
    shown["services"].as_array().unwrap().iter().find(|service| service["name"] == "shop").unwrap().clone()
}

#[test]
fn a_breaker_opens_refuses_and_closes_when_the_service_is_well_again() {
    let origin = Saying::start();
    let keys = "breaker = { window = \"60s\", min_requests = 5, open = \"300ms\", probes = 2 }";
    let gateway = Gateway::with().endpoint(origin.address).service(keys).start();
    origin.says(500);
    (0..5).for_each(|_| assert_eq!(status(&gateway), "500"));
    let refused = gateway.get("/", &[]);
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("\"code\":\"breaker\""), "{refused}");
    assert!(refused.to_lowercase().contains("retry-after: 1\r\n"), "{refused}");
    assert_eq!((origin.asked(), gateway.metric(r#"wayside_breaker_open{service="shop"}"#)), (5, Some(1.0)));
    // Whoever finds out is told what the others are not: that it still fails.
    until("one finds out", || status(&gateway) == "500");
    assert_eq!((origin.asked(), shop(&gateway)["breaker"].as_str()), (6, Some("open")));
    origin.says(200);
    until("another one finds out", || status(&gateway) == "200");
    assert_eq!(shop(&gateway)["breaker"], "half-open");
    assert_eq!((status(&gateway), shop(&gateway)["breaker"].as_str()), ("200".into(), Some("closed")));
    assert_eq!(gateway.metric(r#"wayside_breaker_opened_total{service="shop"}"#), Some(2.0));
}

/// Three endpoints are asked, without a wait between them.
const RETRYING: &str = "max_attempts = 3\nretry_on = [\"503\"]\nretry_backoff = { base = \"0s\", max = \"0s\" }";

#[test]
fn retries_cost_no_more_than_their_budget() {
    let origins = [Saying::start(), Saying::start(), Saying::start()];
    origins.iter().for_each(|origin| origin.says(503));
    let budget = "retry_budget = { percent = 10, min_per_second = 0, burst = 4 }";
    let before = |keys: &str| {
        let gateway = Gateway::with().endpoints(origins.iter().map(|origin| origin.address));
        gateway.keys(keys).service(&format!("{RETRYING}\n{budget}")).start()
    };
    let asked = || origins.iter().map(Saying::asked).sum::<usize>();
    let stranger = before("");
    assert_eq!(shop(&stranger)["retries_left"], 4);
    (0..100).for_each(|_| assert_eq!(status(&stranger), "503"));
    // Four at first, and one for ten requests.
    assert!((113..=114).contains(&asked()), "{}", asked());
    assert!(stranger.metric(r#"wayside_retries_refused_total{service="shop"}"#) > Some(80.0));
    assert!(!stranger.get("/", &[]).contains("x-wayside-retry"));
    let trusting = before("trusted_proxies = [\"127.0.0.1/32\"]");
    let told = |answer: String| answer.contains("x-wayside-retry: no");
    assert_eq!([(); 3].map(|()| told(trusting.get("/", &[]))), [false, false, true]);
}

#[test]
fn three_gateways_in_a_row_do_not_multiply_their_retries() {
    let origins = [Saying::start(), Saying::start(), Saying::start()];
    origins.iter().for_each(|origin| origin.says(503));
    let keys = format!("{RETRYING}\nretry_budget = {{ burst = 10, min_per_second = 0 }}");
    // A gateway is three endpoints for the one before it.
    let before = |addresses: Vec<String>| {
        let gateway = (0..3).fold(Gateway::with(), |gateway, _| gateway.listener("\"127.0.0.1:0\""));
        gateway.endpoints(addresses).keys("trusted_proxies = [\"127.0.0.1/32\"]\nvia = \"\"").service(&keys).start()
    };
    let third = before(origins.iter().map(|origin| origin.address.to_string()).collect());
    let second = before(third.addresses.clone());
    let first = before(second.addresses.clone());
    let requests = 300;
    (0..requests).for_each(|_| assert_eq!(status(&first), "503"));
    let asked = origins.iter().map(Saying::asked).sum::<usize>();
    // 27 times as many without a budget; a fifth more with the signal to stop, beside what is there at first.
    assert!(asked as f64 <= 1.21 * f64::from(requests) + 3.64 * 10.0, "{asked}");
}

/// A request that its endpoint may hold.
fn ask(gateway: &Program) -> TcpStream {
    let mut stream = TcpStream::connect(&gateway.address).unwrap();
    stream.write_all(b"GET /hold HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    stream
}

/// The status of its answer.
fn answer(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap_or_default().to_owned()
}

#[test]
fn where_an_answer_takes_long_another_endpoint_is_asked_beside_and_the_first_good_one_counts() {
    let origins = [Saying::start(), Saying::start()];
    origins[0].says(0);
    let keys = "hedge = { after = \"20ms\" }\nstrategy = \"round-robin\"\nattempt_timeout = \"60s\"";
    let before = |keys: &str| {
        let gateway = Gateway::with().endpoints(origins.iter().map(|origin| origin.address));
        gateway.service(keys).start()
    };
    let gateway = before(keys);
    (0..6).for_each(|_| assert_eq!(answer(ask(&gateway)), "200"));
    let hedges = || gateway.metric(r#"wayside_hedges_total{service="shop"}"#).unwrap();
    assert!(origins[0].asked() >= 3 && hedges() >= 3.0, "{} {}", origins[0].asked(), hedges());
    // Nobody waits for those any more, and they are no failures: it takes its turn.
    until("nothing is in flight", || {
        shop(&gateway)["endpoints"].as_array().unwrap().iter().all(|endpoint| endpoint["in_flight"] == 0)
    });
    assert!(shop(&gateway)["endpoints"].as_array().unwrap().iter().all(|endpoint| endpoint["healthy"] == true));
    // A failure of one is not the answer while the other is on its way.
    origins[1].says(503);
    let asked = origins[1].asked();
    let waiting = ask(&gateway);
    until("the other one has failed", || origins[1].asked() > asked);
    origins[0].says(201);
    assert_eq!(answer(waiting), "201");
}

#[test]
fn a_hedge_draws_on_the_retry_budget() {
    let origins = [Saying::start(), Saying::start()];
    origins.iter().for_each(|origin| origin.says(0));
    let gateway = Gateway::with().endpoints(origins.iter().map(|origin| origin.address));
    let budget = "retry_budget = { percent = 0, min_per_second = 0, burst = 0 }";
    let gateway = gateway.service(&format!("hedge = {{ after = \"1ms\" }}\n{budget}")).start();
    let waiting = ask(&gateway);
    until("no other is asked", || gateway.metric(r#"wayside_retries_refused_total{service="shop"}"#) == Some(1.0));
    origins.iter().for_each(|origin| origin.says(200));
    assert_eq!(answer(waiting), "200");
    assert_eq!(origins.iter().map(Saying::asked).sum::<usize>(), 1);
}

/// An origin that says how long its bodies are, and sends `hello`.
fn saying_length(length: usize) -> SocketAddr {
    answering(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\nhello"))
}

#[test]
fn a_body_that_breaks_off_counts_as_a_failure_for_all_who_count() {
    let (breaking, whole) = (saying_length(100), saying_length(5));
    let ask = |gateway: &Program| {
        let mut client = Raw::connect(&gateway.address);
        client.say("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let head = client.head();
        // To its end, of whichever kind that is.
        let _ = client.rest();
        head
    };
    let keys = "outlier = { consecutive = 3 }\nstrategy = \"round-robin\"";
    let gateway = Gateway::with().endpoints([breaking, whole]).service(keys).start();
    (0..6).for_each(|_| assert!(ask(&gateway).starts_with("HTTP/1.1 200")));
    let ejections = "wayside_endpoint_ejections_total{service=\"shop\",cause=\"consecutive\"}";
    until("it is put aside", || gateway.metric(ejections) == Some(1.0));
    let endpoints = &shop(&gateway)["endpoints"];
    assert_eq!((&endpoints[0]["state"], &endpoints[1]["state"]), (&"ejected".into(), &"healthy".into()));
    assert!(endpoints[0]["failures"].as_f64() > Some(2.0) && endpoints[1]["failures"].is_null());

    let breaker = "breaker = { window = \"60s\", min_requests = 5, open = \"60s\" }";
    let gateway = Gateway::with().endpoint(breaking).service(breaker).start();
    (0..5).for_each(|_| assert!(ask(&gateway).starts_with("HTTP/1.1 200")));
    until("it opens", || gateway.metric(r#"wayside_breaker_open{service="shop"}"#) == Some(1.0));
    assert!(ask(&gateway).starts_with("HTTP/1.1 503"));
}
