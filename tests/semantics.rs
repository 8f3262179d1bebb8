//! What HTTP/1 means (RFC 9110, RFC 9112): who waits for whom, what ends where, and which connection is good for another
//! request.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

use crate::support::program::{Program, until};
use crate::support::raw::Raw;
use std::net::TcpListener;
use std::time::Duration;

/// Long enough to see that nothing comes that should not.
const SILENCE: Duration = Duration::from_millis(200);

/// A gateway before this origin, with keys of `[gateway]`.
fn before(origin: &TcpListener, gateway: &str) -> Program {
    Program::before(origin.local_addr().unwrap(), gateway, "")
}

/// With an origin that the test plays itself.
fn start() -> (TcpListener, Program) {
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = before(&origin, "");
    (origin, gateway)
}

/// A request on its way: who has sent it, who has got it on a connection of its own, and its head there.
fn carry(gateway: &Program, origin: &TcpListener, request: &str) -> (Raw, Raw, String) {
    let mut client = Raw::connect(&gateway.address);
    client.say(request);
    let mut upstream = Raw::accept(origin);
    let head = upstream.head();
    (client, upstream, head)
}

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const EXPECTING: &str = "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[test]
fn a_body_waits_until_the_endpoint_asks_for_it() {
    // RFC 9110 §10.1.1, both hops.
    let (origin, gateway) = start();
    let (mut client, mut upstream, head) = carry(&gateway, &origin, EXPECTING);
    assert!(head.contains("\r\nexpect: 100-continue\r\n"));
    assert!(client.is_silent(SILENCE));
    upstream.say("HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(client.head(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.say("body");
    assert_eq!(upstream.bytes(4), "body");
    upstream.say(OK);
    assert_eq!(client.response().1, "ok");
    // Both connections are good for another one, on which nothing waits.
    client.say("POST /next HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nmore");
    assert!(upstream.head().starts_with("POST /next "));
    assert_eq!(upstream.bytes(4), "more");
    upstream.say(OK);
    assert_eq!(client.response().1, "ok");
}

#[test]
fn an_endpoint_that_does_not_know_what_it_was_asked_gets_the_body_after_a_second() {
    let (origin, gateway) = start();
    let (mut client, mut upstream, _) = carry(&gateway, &origin, EXPECTING);
    assert_eq!(client.head(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.say("body");
    assert_eq!(upstream.bytes(4), "body");
    upstream.say(OK);
    assert_eq!(client.response().1, "ok");
}

#[test]
fn an_endpoint_may_refuse_a_body_unseen() {
    let (origin, gateway) = start();
    let (mut client, mut upstream, _) = carry(&gateway, &origin, EXPECTING);
    upstream.say("HTTP/1.1 417 Expectation Failed\r\ncontent-length: 2\r\n\r\nno");
    let (head, body) = client.response();
    assert!(head.starts_with("HTTP/1.1 417 ") && body == "no", "{head}");
    // Nobody knows whether the client still sends it, so neither connection is used again (RFC 9110 §10.1.1).
    assert_eq!(client.rest().unwrap(), "");
    assert!(matches!(upstream.rest().as_deref(), Ok("") | Err(_)));
}

#[test]
fn who_cannot_be_asked_is_not_waited_for() {
    let (origin, gateway) = start();
    for request in [
        // RFC 9110 §10.1.1: ignored from HTTP/1.0, and without a body.
        "POST / HTTP/1.0\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\nbody",
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\nexpect: 100-continue\r\n\r\n",
    ] {
        let (mut client, mut upstream, head) = carry(&gateway, &origin, request);
        assert!(!head.contains("expect"), "{head}");
        assert!(!head.contains("content-length: 4") || upstream.bytes(4) == "body");
        upstream.say("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok");
        assert!(client.rest().unwrap().contains(" 200 OK\r\n"));
    }
}

#[test]
fn early_hints_are_passed_on_and_not_mistaken_for_the_response() {
    // RFC 8297.
    let (origin, gateway) = start();
    let (mut client, mut upstream, _) = carry(&gateway, &origin, GET);
    let hint = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n";
    upstream.say(hint);
    // Before the response is here.
    assert_eq!(client.head(), hint);
    let last = OK.replace("content-length", "connection: close\r\ncontent-length");
    upstream.say(&format!("HTTP/1.1 102 Processing\r\n\r\n{hint}{last}"));
    assert_eq!(client.head(), hint);
    let (head, body) = client.response();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && !head.contains("link") && body == "ok", "{head}");
    assert_eq!(gateway.metric("wayside_early_hints_dropped_total"), Some(0.0));
    // HTTP/1.0 knows no interim responses.
    let (mut client, mut upstream, _) = carry(&gateway, &origin, "GET / HTTP/1.0\r\n\r\n");
    upstream.say(&format!("{hint}{OK}"));
    let (head, _) = client.response();
    assert!(head.starts_with("HTTP/1.0 200 OK\r\n") && !head.contains("link"), "{head}");
    assert_eq!(gateway.metric("wayside_early_hints_dropped_total"), Some(1.0));
}

#[test]
fn the_head_of_a_response_has_bounds() {
    let (origin, gateway) = start();
    let lines = |count| "x: 1\r\n".repeat(count);
    let long = |bytes| format!("x: {}\r\n", "x".repeat(bytes));
    for (fields, good) in [(lines(250), true), (lines(300), false), (long(200 << 10), true), (long(256 << 10), false)] {
        let (mut client, mut upstream, _) = carry(&gateway, &origin, GET);
        upstream.say(&format!("HTTP/1.1 200 OK\r\n{fields}content-length: 2\r\nconnection: close\r\n\r\nok"));
        let (head, body) = client.response();
        assert_eq!(head.starts_with("HTTP/1.1 200 "), good, "{}", fields.len());
        if !good {
            assert!(head.starts_with("HTTP/1.1 502 ") && body.contains("upstream_protocol"), "{head}{body}");
        }
    }
}

#[test]
fn a_head_that_comes_byte_by_byte_is_one() {
    let (origin, gateway) = start();
    let (mut client, mut upstream, _) = carry(&gateway, &origin, GET);
    for byte in "HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n".chars() {
        upstream.say(&byte.to_string());
    }
    upstream.end();
    assert_eq!(client.head(), "HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n");
    assert!(client.head().starts_with("HTTP/1.1 200 "));
    assert_eq!(client.bytes(11), "1\r\na\r\n0\r\n\r\n");
}

#[test]
fn an_early_answer_reaches_a_client_that_still_sends() {
    let (origin, gateway) = start();
    let (mut client, mut upstream, _) =
        carry(&gateway, &origin, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\nfirst");
    upstream.say("HTTP/1.1 413 Content Too Large\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno");
    assert!(client.response().0.starts_with("HTTP/1.1 413 "));
}

#[test]
fn a_body_that_breaks_off_does_not_look_complete() {
    let (origin, gateway) = start();
    // RFC 9112 §8: by its framing, the client can tell.
    for (answer, told) in [
        ("content-length: 10\r\n\r\nhalf", "half"),
        ("transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n", "4\r\nhalf\r\n"),
        ("transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\nx\r\n", "4\r\nhalf\r\n"),
        ("transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n", "4\r\nhalf\r\n"),
    ] {
        let (mut client, mut upstream, _) = carry(&gateway, &origin, GET);
        upstream.say(&format!("HTTP/1.1 200 OK\r\n{answer}"));
        upstream.end();
        let rest = client.rest().unwrap();
        assert!(rest.starts_with("HTTP/1.1 200 ") && rest.ends_with(told), "{answer:?}: {rest}");
    }
    // HTTP/1.0 knows no chunks: what would be an end of the body is a reset.
    for complete in [false, true] {
        let (mut client, mut upstream, _) = carry(&gateway, &origin, "GET / HTTP/1.0\r\nhost: a\r\n\r\n");
        let end = if complete { "0\r\n\r\n" } else { "" };
        upstream.say(&format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n{end}"));
        upstream.end();
        match client.rest() {
            Ok(rest) => assert!(complete && rest.ends_with("\r\n\r\nhalf"), "{rest}"),
            Err(error) => assert!(!complete && error.kind() == std::io::ErrorKind::ConnectionReset, "{error}"),
        }
    }
}

#[test]
fn what_nobody_asked_for_is_never_the_next_response() {
    let (origin, gateway) = start();
    let stray = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    let mut client = Raw::connect(&gateway.address);
    let mut ask = |origin: &TcpListener, answer: &str| {
        client.say(GET);
        let mut upstream = Raw::accept(origin);
        upstream.head();
        upstream.say(answer);
        assert_eq!(client.response().1, "ok");
        upstream
    };
    // Right behind the response; later, while the connection is idle; and a connection that the endpoint closed.
    ask(&origin, &format!("{OK}{stray}"));
    let mut upstream = ask(&origin, OK);
    upstream.say(stray);
    let mut upstream = ask(&origin, OK);
    upstream.end();
    // Each time it was a connection of its own, or this would wait for one.
    drop(ask(&origin, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"));
    ask(&origin, OK);
}

#[test]
fn a_kept_connection_that_is_closed_costs_a_safe_request_nothing() {
    let (origin, gateway) = start();
    let mut client = Raw::connect(&gateway.address);
    let keep = |client: &mut Raw| {
        client.say("GET /first HTTP/1.1\r\nhost: a\r\n\r\n");
        let mut upstream = Raw::accept(&origin);
        upstream.head();
        upstream.say(OK);
        assert_eq!(client.response().1, "ok");
        upstream
    };
    // It reads the request and closes: GET does no harm twice, POST may (RFC 9110 §9.2.2).
    let mut upstream = keep(&mut client);
    client.say("GET /again HTTP/1.1\r\nhost: a\r\n\r\n");
    assert!(upstream.head().starts_with("GET /again "));
    drop(upstream);
    let mut upstream = Raw::accept(&origin);
    assert!(upstream.head().starts_with("GET /again "));
    upstream.say("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok");
    assert_eq!(client.response().1, "ok");

    let mut upstream = keep(&mut client);
    client.say("POST /once HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody");
    assert!(upstream.head().starts_with("POST /once "));
    drop(upstream);
    let (head, body) = client.response();
    assert!(head.starts_with("HTTP/1.1 502 ") && body.contains("\"upstream_reset\""), "{head}{body}");
}

/// A client whose request is on a kept connection that the endpoint closes once it has read so much of the body.
fn lost(gateway: &Program, origin: &TcpListener, head: &str, body: &str) -> Raw {
    let (mut client, mut upstream, _) = carry(gateway, origin, GET);
    upstream.say(OK);
    assert_eq!(client.response().1, "ok");
    client.say(&format!("{head}\r\nhost: a\r\n\r\n"));
    let sent = upstream.head();
    if sent.contains("\r\nexpect: ") {
        upstream.say("HTTP/1.1 100 Continue\r\n\r\n");
        assert!(client.head().starts_with("HTTP/1.1 100 "));
    }
    client.say(body);
    assert_eq!(upstream.bytes(body.len()), body);
    client
}

#[test]
fn a_body_is_sent_again_while_all_that_was_read_of_it_is_kept() {
    // RFC 9110 §9.2.2.
    let (origin, gateway) = start();
    let put = |header: &str| format!("PUT / HTTP/1.1\r\n{header}");
    let (length, chunked) = ("\r\ncontent-length: 8\r\n", "\r\ntransfer-encoding: chunked\r\n");
    for (head, before, header, after, rest) in [
        ("content-length: 8", "complete", length, "complete", ""),
        ("content-length: 8", "half", length, "half", "rest"),
        ("expect: 100-continue\r\ncontent-length: 8", "half", length, "half", "rest"),
        ("transfer-encoding: chunked", "4\r\nhalf\r\n", chunked, "4\r\nhalf\r\n", "3\r\n of\r\n0\r\n\r\n"),
        // Its length is known by now.
        ("transfer-encoding: chunked", "8\r\ncomplete\r\n0\r\n\r\n", length, "complete", ""),
    ] {
        let mut client = lost(&gateway, &origin, &put(head), before);
        let mut upstream = Raw::accept(&origin);
        let sent = upstream.head();
        assert!(sent.contains(header) && !sent.contains("expect"), "{sent}");
        assert_eq!(upstream.bytes(after.len()), after);
        client.say(rest);
        assert_eq!(upstream.bytes(rest.len()), rest);
        upstream.say("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok");
        assert_eq!(client.response().1, "ok");
    }
    // More than 64 KiB, more pieces than 16, trailers: those are not kept.
    let large = "x".repeat((64 << 10) + 1);
    let chunk = "1\r\nx\r\n".repeat(17);
    for (head, body) in [
        ("content-length: 65537", large.as_str()),
        ("transfer-encoding: chunked", &chunk),
        ("trailer: x-sum\r\ntransfer-encoding: chunked", "1\r\nx\r\n0\r\nx-sum: 1\r\n\r\n"),
    ] {
        let (head, body) = lost(&gateway, &origin, &put(head), body).response();
        assert!(head.starts_with("HTTP/1.1 502 ") && body.contains("\"upstream_reset\""), "{head}{body}");
    }
}

#[test]
fn answers_without_a_body_have_none() {
    // RFC 9110 §9.3.2, §15.3.5, §15.4.5; RFC 9112 §6.3.
    let (origin, gateway) = start();
    let mut client = Raw::connect(&gateway.address);
    client.say("HEAD /1 HTTP/1.1\r\nhost: a\r\n\r\n");
    let mut upstream = Raw::accept(&origin);
    let cases = [
        ("HEAD", "200 OK\r\ncontent-length: 1000", true),
        ("GET", "304 Not Modified\r\ncontent-length: 1000\r\netag: \"x\"", false),
        ("GET", "204 No Content\r\ncontent-length: 0", false),
        ("HEAD", "200 OK\r\ntransfer-encoding: chunked", false),
    ];
    for (number, (_, answer, says)) in cases.iter().enumerate() {
        upstream.head();
        upstream.say(&format!("HTTP/1.1 {answer}\r\n\r\n"));
        let head = client.head();
        assert!(head.starts_with(&format!("HTTP/1.1 {}", answer.split("\r\n").next().unwrap())), "{head}");
        assert_eq!(head.contains("content-length"), *says, "{head}");
        // What comes next is the next response's head, on the same connections.
        if let Some((method, ..)) = cases.get(number + 1) {
            client.say(&format!("{method} /next HTTP/1.1\r\nhost: a\r\n\r\n"));
        }
    }
}

#[test]
fn http_1_0_is_kept_open_only_for_who_asks() {
    let (origin, gateway) = start();
    let mut client = Raw::connect(&gateway.address);
    client.say("GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n");
    let mut upstream = Raw::accept(&origin);
    // It has said no host, which HTTP/1.1 wants (RFC 9112 §3.2).
    let head = upstream.head();
    let host = format!("\r\nhost: {}\r\n", origin.local_addr().unwrap());
    assert!(head.starts_with("GET / HTTP/1.1\r\n") && head.contains(&host), "{head}");
    upstream.say(OK);
    let (head, _) = client.response();
    assert!(head.contains("connection: keep-alive"), "{head}");
    client.say("GET / HTTP/1.0\r\n\r\n");
    upstream.head();
    upstream.say(OK);
    assert!(client.rest().unwrap().ends_with("\r\n\r\nok"));
}

const CHUNKED: &str = "1\r\n2\r\n0\r\n\r\n";

#[test]
fn any_method_may_have_a_body_and_requests_in_a_row_are_answered_in_order() {
    let (origin, gateway) = start();
    let mut client = Raw::connect(&gateway.address);
    let mut sent = String::from("GET /0 HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\n1");
    for line in ["GET /1", "DELETE /2", "BREW /3", "HEAD /4", "OPTIONS /5"] {
        sent.push_str(&format!("{line} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{CHUNKED}"));
    }
    client.say(&format!("{sent}PUT /6 HTTP/1.1\r\nhost: a\r\n\r\n"));
    let mut upstream = Raw::accept(&origin);
    for (line, body) in [
        ("GET /0 ", "1"),
        ("GET /1 ", CHUNKED),
        ("DELETE /2 ", CHUNKED),
        ("BREW /3 ", CHUNKED),
        ("HEAD /4 ", CHUNKED),
        ("OPTIONS /5 ", CHUNKED),
        ("PUT /6 ", ""),
    ] {
        let head = upstream.head();
        assert!(head.starts_with(line), "{head}");
        assert_eq!(head.contains("transfer-encoding: chunked\r\n"), body == CHUNKED, "{head}");
        assert_eq!(upstream.bytes(body.len()), body);
        if line.starts_with("HEAD") {
            upstream.say("HTTP/1.1 200 OK\r\nx-of: head\r\n\r\n");
            assert!(client.head().contains("x-of: head\r\n"));
            continue;
        }
        upstream.say(&format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{line}", line.len()));
        assert_eq!(client.response().1, line);
    }
}

#[test]
fn a_response_that_has_two_meanings_is_a_502() {
    let (origin, gateway) = start();
    for answer in [
        // RFC 9112 §6.3: both lengths, several, a bad one; RFC 9110 §15.2.2: a switch that nobody asked for.
        "200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
        "200 OK\r\ncontent-length: 2, 2\r\n\r\nok",
        "200 OK\r\ncontent-length: +2\r\n\r\nok",
        "101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        "200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "200 OK\r\nx : 1\r\ncontent-length: 2\r\n\r\nok",
        "200 OK\r\nx: 1\n y: 2\r\ncontent-length: 2\r\n\r\nok",
    ] {
        let (mut client, mut upstream, _) =
            carry(&gateway, &origin, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n");
        upstream.say(&format!("HTTP/1.1 {answer}"));
        let (head, body) = client.response();
        assert!(
            head.starts_with("HTTP/1.1 502 ") && body.contains("\"upstream_protocol\""),
            "{answer:?}: {head}{body}"
        );
        assert!(matches!(upstream.rest().as_deref(), Ok("") | Err(_)), "{answer:?}");
    }
}

#[test]
fn an_endpoint_that_is_gone_is_not_kept_in_touch_with() {
    let (origin, gateway) = start();
    let (mut client, mut upstream, _) = carry(&gateway, &origin, GET);
    upstream.say(OK);
    client.response();
    std::fs::write(gateway.folder().join("services.toml"), "[services.shop]\nendpoints = []\n").unwrap();
    until("the connection closes", || !upstream.is_silent(SILENCE));
    assert_eq!(upstream.rest().unwrap(), "");
}

#[test]
fn a_kept_connection_is_closed_when_it_was_idle_or_open_for_long_enough() {
    for bound in ["upstream_idle_timeout = \"100ms\"", "upstream_lifetime = \"100ms\""] {
        let origin = TcpListener::bind("127.0.0.1:0").unwrap();
        let gateway = before(&origin, bound);
        let (mut client, mut upstream, _) = carry(&gateway, &origin, GET);
        upstream.say(OK);
        client.response();
        assert_eq!(upstream.rest().unwrap(), "", "{bound}");
    }
}

#[test]
fn no_more_connections_are_kept_than_may_be() {
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = before(&origin, "idle_upstream_connections = 0");
    let mut client = Raw::connect(&gateway.address);
    for _ in 0..2 {
        client.say(GET);
        let mut upstream = Raw::accept(&origin);
        upstream.head();
        upstream.say(OK);
        client.response();
        assert_eq!(upstream.rest().unwrap(), "");
    }
}

#[test]
fn what_only_a_proxy_may_say_reaches_nobody_from_anybody_else() {
    let said = "GET / HTTP/1.1\r\nhost: a\r\nx-real-ip: 6.6.6.6\r\nX_Real_IP: 6.6.6.6\r\nx-forwarded-port: 6\r\n\
                x_forwarded_for: 6.6.6.6\r\nx-original-url: /6\r\nx-forwarded-client-cert: 6\r\nx-client-ip: 7\r\n\r\n";
    for (gateway, six, seven) in [
        ("", false, true),
        ("trusted_proxies = [\"127.0.0.0/8\"]", true, true),
        ("remove_from_untrusted = [\"x-client-ip\", \"x-original-url\"]", true, false),
    ] {
        let origin = TcpListener::bind("127.0.0.1:0").unwrap();
        let gateway = before(&origin, gateway);
        let (_client, mut upstream, head) = carry(&gateway, &origin, said);
        assert_eq!(head.contains("real-ip: 6"), six, "{head}");
        assert_eq!(head.contains("x-client-ip: 7\r\n"), seven, "{head}");
        assert!(head.contains("x-forwarded-for: 127.0.0.1\r\n"), "{head}");
        assert!(head.contains("x_forwarded_for") == (six && seven), "{head}");
        assert!(six || !head.contains(": 6"), "{head}");
        upstream.say(OK);
    }
}

#[test]
fn an_endpoint_that_leads_back_here_is_a_loop_and_gateways_in_a_row_are_none() {
    let (origin, last) = start();
    // Each has the same name, and all but the last one the next one as its endpoint.
    let mut row = vec![last];
    for _ in 0..3 {
        row.push(Program::before(&row.last().unwrap().address, "", ""));
    }
    let (mut client, mut upstream, head) = carry(row.last().unwrap(), &origin, GET);
    assert_eq!(head.matches("via: 1.1 wayside\r\n").count(), 4, "{head}");
    upstream.say(OK);
    assert_eq!(client.response().1, "ok");

    let gateway = &row[0];
    let services = format!("[[services.shop.endpoints]]\naddress = \"{}\"\n", gateway.address);
    std::fs::write(gateway.folder().join("services.toml"), services).unwrap();
    until("it is its own endpoint", || gateway.ask("/services").contains(&gateway.address));
    let mut client = Raw::connect(&gateway.address);
    client.say(GET);
    let (head, body) = client.response();
    assert!(head.starts_with("HTTP/1.1 508 ") && body.contains("\"loop_detected\""), "{head}{body}");
    let forwarded = "wayside_requests_total{route=\"any\",service=\"shop\",code=\"5xx\"}";
    until("it went round four times", || gateway.metric(forwarded) == Some(4.0));
}
