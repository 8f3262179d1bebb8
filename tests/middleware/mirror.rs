//! `mirror` before a shadow that answers, hangs, is slow to be there, or is not.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

use crate::support::gateway::Gateway;
use crate::support::heard::Heard;
use crate::support::program::{Program, get_as, nobody, until};
use crate::support::raw::Raw;
use std::fmt::Display;
use std::net::TcpListener;

const OBEDIENT: &[u8] = include_bytes!("../guests/obedient.wasm");

fn gateway(shadow: impl Display, shop: impl Display, keys: &str) -> Program {
    let rule = format!("[[middleware]]\nname = \"copies\"\nmirror = {{ service = \"shadow\"{keys} }}\n");
    Gateway::with().named("shadow").endpoint(shadow).named("shop").endpoint(shop).table(&rule).start()
}

fn counted(gateway: &Program) -> [f64; 3] {
    ["mirrored", "left_out", "failed"].map(|outcome| {
        let labels = format!("middleware=\"copies\",kind=\"mirror\",outcome=\"{outcome}\"");
        gateway.metric(&format!("wayside_middleware_total{{{labels}}}")).unwrap()
    })
}

fn under_way(gateway: &Program) -> bool {
    !gateway.ask("/middleware").contains("\"in_flight\":0")
}

#[test]
fn a_copy_says_what_it_is_and_its_answer_is_nobodys() {
    let (shop, shadow) = (Heard::saying(200, "", "sold"), Heard::saying(500, "x-shadow: 1\r\n", "oops"));
    let gateway = gateway(shadow.address, shop.address, "");
    let mut client = Raw::connect(&gateway.address);
    client.say("GET /a?b=c HTTP/1.1\r\nhost: shop.example\r\nx-wayside-mirror: 0\r\ncookie: n=1\r\n\r\n");
    let seen = client.response();
    assert!(seen.0.starts_with("HTTP/1.1 200") && !seen.0.contains("x-shadow") && seen.1 == "sold", "{seen:?}");
    // A body that comes in pieces, with and without a length.
    client.say("PUT /b HTTP/1.1\r\nhost: shop.example\r\nexpect: 100-continue\r\ncontent-length: 6\r\n\r\n");
    client.say("abc");
    client.say("def");
    while !client.head().starts_with("HTTP/1.1 200") {}
    assert_eq!(client.bytes(4), "sold");
    until("both are copied", || counted(&gateway) == [2.0, 0.0, 0.0]);
    let (sent, copies) = (shop.requests(), shadow.requests());
    for ((sent, body), first) in sent.iter().zip(["get /a?b=c http/1.1", "put /b http/1.1"]) {
        assert!(sent.starts_with(first) && !sent.contains("x-wayside-mirror"), "{sent}");
        let (copy, copied) = copies.iter().find(|(copy, _)| copy.starts_with(first)).unwrap();
        assert!(copy.contains("x-wayside-mirror: 1\r\n") && copy.contains("host: shop.example\r\n"), "{copy}");
        assert!(!copy.contains("expect") && copied == body, "{copy}");
    }
    assert!(
        copies.iter().any(|(copy, _)| copy.contains("cookie: n=1")) && copies.iter().any(|(_, body)| body == "abcdef")
    );
    until("nothing is under way", || !under_way(&gateway));
}

#[test]
fn what_goes_to_no_service_and_half_a_body_is_not_copied() {
    let shadow = Heard::saying(200, "", "");
    // Answers before it has read a word of the body, and reads the rest in its own time.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let hasty = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        loop {
            let mut gateway = Raw::accept(&listener);
            gateway.head();
            gateway.say("HTTP/1.1 413 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            std::thread::spawn(move || drop(gateway.rest()));
        }
    });
    let rule = "[[middleware]]\nname = \"copies\"\nmirror = { service = \"shadow\", timeout = \"300ms\" }\n";
    let gateway = Gateway::with().named("shadow").endpoint(shadow.address).named("shop").endpoint(hasty);
    let gateway = gateway.table(rule).policy("obedient.wasm", OBEDIENT).start();
    let ask = |headers: &[(&str, &str)]| get_as(&gateway.address, "a", "/", headers);
    assert!(ask(&[("x-answer", "203")]).ends_with("answered"));
    assert!(ask(&[("x-forward", "nowhere")]).starts_with("HTTP/1.1 503"), "a fault");
    assert!(ask(&[]).starts_with("HTTP/1.1 404"), "nobody knows where to");
    assert_eq!((counted(&gateway), under_way(&gateway)), ([0.0; 3], false));
    // The client has sent a half when it is answered.
    let mut client = Raw::connect(&gateway.address);
    client.say("PUT / HTTP/1.1\r\nhost: a\r\nx-forward: shop\r\ncontent-length: 6\r\n\r\nabc");
    assert!(client.head().starts_with("HTTP/1.1 413"));
    until("it is left out", || counted(&gateway) == [0.0, 1.0, 0.0]);
    assert!(ask(&[("x-forward", "shop")]).starts_with("HTTP/1.1 413"));
    until("one is copied", || counted(&gateway) == [1.0, 1.0, 0.0]);
    assert_eq!(shadow.requests().len(), 1);
}

#[test]
fn a_shadow_that_hangs_or_is_gone_costs_nothing_and_is_seen() {
    let shop = Heard::saying(200, "", "sold");
    let silent = Heard::answering(|_| None);
    let hangs = gateway(silent.address, shop.address, ", max_in_flight = 1, max_body_bytes = 3, timeout = \"2s\"");
    let ask = |gateway: &Program| assert!(get_as(&gateway.address, "a", "/", &[]).ends_with("sold"));
    ask(&hangs);
    until("a copy is under way", || silent.requests().len() == 1);
    (0..3).for_each(|_| ask(&hangs));
    assert_eq!((counted(&hangs), silent.requests().len()), ([0.0, 3.0, 0.0], 1));
    // Its time ends, and with it the place that it had.
    until("it is over", || counted(&hangs)[2] == 1.0);
    until("its place is free", || !under_way(&hangs));
    let mut client = Raw::connect(&hangs.address);
    client.say("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nabcd");
    assert_eq!(client.response().1, "sold");
    assert_eq!((counted(&hangs), silent.requests().len()), ([0.0, 4.0, 1.0], 1));
    let nobody = nobody();
    let gone = gateway(nobody.address, shop.address, "");
    ask(&gone);
    until("it failed", || counted(&gone) == [0.0, 0.0, 1.0]);
    let none = gateway(silent.address, shop.address, ", percent = 0");
    (0..9).for_each(|_| ask(&none));
    assert_eq!((counted(&none), silent.requests().len()), ([0.0; 3], 1));
}
