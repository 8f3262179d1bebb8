//! The real program with real clients and origins of both protocols: what passes, what is tried again, and what time
//! and bounds do.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

use crate::support::gateway::Gateway;
use crate::support::origin::Protocol::{self, Http1, Http2};
use crate::support::origin::{Client, Origin, empty, full, streamed, whole};
use crate::support::program::{Program, nobody, until};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body_util::BodyExt;
use hyper::body::Frame;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

const PROTOCOLS: [(Protocol, Protocol); 4] = [(Http1, Http1), (Http1, Http2), (Http2, Http1), (Http2, Http2)];

/// A gateway before these endpoints, with keys of `[gateway]` and of the service.
fn gateway(endpoints: &[SocketAddr], upstream: Protocol, gateway: &str, service: &str) -> Program {
    let protocol = if upstream == Http2 { "protocol = \"h2\"" } else { "" };
    Gateway::with().endpoints(endpoints).keys(gateway).service(protocol).service(service).start()
}

#[tokio::test]
async fn bodies_and_trailers_pass_both_ways_in_all_protocols() {
    for ((downstream, upstream), method) in PROTOCOLS.into_iter().flat_map(|both| [(both, "POST"), (both, "GET")]) {
        let origin = Origin::start(upstream).await;
        let gateway = gateway(&[origin.address], upstream, "", "");
        let mut client = Client::connect(&gateway.address, downstream).await;
        let (to, body) = streamed();
        let sending = tokio::spawn(async move {
            for piece in ["one ", "two ", "three"] {
                to.send(Frame::data(Bytes::from_static(piece.as_bytes()))).await.unwrap();
            }
            let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), HeaderValue::from_static("13"))]);
            to.send(Frame::trailers(trailers)).await.unwrap();
        });
        // hyper's client takes a GET for one without a body unless it is told.
        let chunked = ("transfer-encoding", "chunked");
        let headers = [("te", "trailers"), ("trailer", "x-sum"), chunked];
        let headers = &headers[..if downstream == Http1 { 3 } else { 2 }];
        let response = client.send(method, "/echo", headers, body).await;
        assert_eq!(response.status(), 200, "{downstream:?} to {upstream:?}");
        let (text, trailers) = whole(response).await;
        assert_eq!(text, "one two three", "{method} {downstream:?} to {upstream:?}");
        assert_eq!(trailers.unwrap()["x-sum"], "13", "{method} {downstream:?} to {upstream:?}");
        sending.await.unwrap();
        // The connection goes on.
        assert_eq!(whole(client.send("GET", "/next", &[], empty()).await).await.0, "/next");
    }
}

#[tokio::test]
async fn a_piece_is_passed_on_before_the_next_one_is_sent() {
    for (downstream, upstream) in PROTOCOLS {
        let origin = Origin::start(upstream).await;
        let gateway = gateway(&[origin.address], upstream, "", "");
        let mut client = Client::connect(&gateway.address, downstream).await;
        let (to, body) = streamed();
        to.send(Frame::data(Bytes::from_static(b"piece"))).await.unwrap();
        let mut response = client.send("POST", "/echo", &[], body).await;
        // Only when a piece has come back is the next one sent, so a gateway that collects them would hang here.
        for _ in 0..5 {
            let piece = response.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(piece, "piece", "{downstream:?} to {upstream:?}");
            to.send(Frame::data(Bytes::from_static(b"piece"))).await.unwrap();
        }
        drop(to);
        assert_eq!(whole(response).await.0, "piece");
    }
}

/// Writes until nothing is taken for a second; bytes that were.
fn write_until_stuck(stream: &mut TcpStream) -> usize {
    stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let block = vec![b'x'; 64 << 10];
    let mut written = 0;
    while written < ALL {
        match stream.write(&block) {
            Ok(more) => written += more,
            Err(_) => break,
        }
    }
    written
}

/// More than all kernels' buffers on the way together, which take some MiB each.
const ALL: usize = 256 << 20;

#[test]
fn what_the_upstream_does_not_take_is_not_taken_from_the_client() {
    // Takes connections, since the kernel does, and reads nothing.
    let origin = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = gateway(&[origin.local_addr().unwrap()], Http1, "", "");
    let mut client = TcpStream::connect(&gateway.address).unwrap();
    write!(client, "POST /deaf HTTP/1.1\r\nhost: a\r\ncontent-length: {ALL}\r\n\r\n").unwrap();
    let written = write_until_stuck(&mut client);
    assert!(written < ALL / 4, "{written} bytes were taken");
}

#[test]
fn what_the_client_does_not_take_is_not_taken_from_the_upstream() {
    let origin = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = gateway(&[origin.local_addr().unwrap()], Http1, "", "");
    let mut client = TcpStream::connect(&gateway.address).unwrap();
    write!(client, "GET /much HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    let (mut stream, _) = origin.accept().unwrap();
    let mut head = [0; 4096];
    assert!(stream.read(&mut head).unwrap() > 0);
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {ALL}\r\n\r\n").unwrap();
    let written = write_until_stuck(&mut stream);
    assert!(written < ALL / 4, "{written} bytes were taken");
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_costs_its_time_and_no_more() {
    for (downstream, upstream) in PROTOCOLS {
        let origin = Origin::start(upstream).await;
        let cases =
            [("attempt_timeout = \"50ms\"\nmax_attempts = 1", "upstream_timeout"), ("timeout = \"50ms\"", "timeout")];
        for (service, code) in cases {
            let gateway = gateway(&[origin.address], upstream, "", service);
            let mut client = Client::connect(&gateway.address, downstream).await;
            let response = client.send("GET", "/silent", &[], empty()).await;
            assert_eq!(response.status(), 504, "{service}");
            assert!(whole(response).await.0.contains(&format!("\"{code}\"")), "{service}");
        }
    }
}

#[tokio::test]
async fn the_time_of_an_upload_is_not_the_endpoints() {
    for (downstream, upstream) in PROTOCOLS {
        let origin = Origin::start(upstream).await;
        let gateway = gateway(&[origin.address], upstream, "", "attempt_timeout = \"100ms\"");
        for (path, status, text) in [("/whole", 200, "the request is over"), ("/silent", 504, "\"upstream_timeout\"")] {
            let mut client = Client::connect(&gateway.address, downstream).await;
            let (to, body) = streamed();
            to.send(Frame::data(Bytes::from_static(b"a piece"))).await.unwrap();
            let mut answer = std::pin::pin!(client.send("POST", path, &[], body));
            let early = tokio::time::timeout(Duration::from_millis(300), &mut answer).await;
            assert!(early.is_err(), "{downstream:?} to {upstream:?}: {early:?}");
            drop(to);
            let answer = answer.await;
            assert_eq!(answer.status(), status, "{downstream:?} to {upstream:?}");
            assert!(whole(answer).await.0.contains(text));
        }
    }
}

#[tokio::test]
async fn the_whole_time_also_ends_a_body() {
    for (downstream, upstream) in PROTOCOLS {
        let origin = Origin::start(upstream).await;
        let gateway = gateway(&[origin.address], upstream, "", "timeout = \"100ms\"");
        let mut client = Client::connect(&gateway.address, downstream).await;
        let mut response = client.send("GET", "/endless", &[], empty()).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.frame().await.unwrap().unwrap().into_data().unwrap(), "first");
        // Not an end as if it were complete.
        assert!(response.frame().await.unwrap().is_err(), "{downstream:?} to {upstream:?}");
    }
}

#[tokio::test]
async fn a_connect_that_takes_too_long_is_tried_elsewhere() {
    // A full accept queue: the kernel drops what else would connect.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    let mut waiting = Vec::new();
    while let Ok(Ok(stream)) =
        tokio::time::timeout(Duration::from_millis(200), tokio::net::TcpStream::connect(address)).await
    {
        waiting.push(stream);
    }
    let service = "connect_timeout = \"50ms\"\nmax_attempts = 2";
    let alone = gateway(&[address], Http1, "", service);
    assert!(alone.get("/a", &[]).contains("connect_failed"));
    let origin = Origin::start(Http1).await;
    let helped = gateway(&[address, origin.address], Http1, "", service);
    let asked = tokio::task::spawn_blocking(move || (0..4).map(|_| helped.get("/a", &[])).collect::<Vec<_>>());
    for answer in asked.await.unwrap() {
        assert!(answer.ends_with("/a"), "{answer}");
    }
}

#[tokio::test]
async fn a_failed_connect_is_tried_elsewhere_for_any_method_and_the_body_goes_along() {
    for (downstream, upstream) in PROTOCOLS {
        let origin = Origin::start(upstream).await;
        let dead = [nobody(), nobody()];
        let gateway = gateway(&[dead[0].address, dead[1].address, origin.address], upstream, "", "max_attempts = 3");
        let mut client = Client::connect(&gateway.address, downstream).await;
        for turn in 0..6 {
            let response = client.send("POST", "/echo", &[], full(&format!("body {turn}"))).await;
            assert_eq!(response.status(), 200, "{downstream:?} to {upstream:?}");
            assert_eq!(whole(response).await.0, format!("body {turn}"));
        }
        assert_eq!(origin.served.load(Relaxed), 6);
    }
}

#[tokio::test]
async fn attempts_end_with_max_attempts() {
    let dead: Vec<_> = (0..5).map(|_| nobody()).collect();
    let endpoints: Vec<SocketAddr> = dead.iter().map(|nobody| nobody.address).collect();
    for most in [1, 2, 3] {
        let gateway = gateway(&endpoints, Http1, "", &format!("max_attempts = {most}"));
        assert!(gateway.get("/a", &[]).contains("connect_failed"));
        let sample = "wayside_upstream_attempts_total{service=\"shop\",outcome=\"connect_failed\"}";
        until("the attempts are counted", || gateway.metric(sample) == Some(f64::from(most)));
    }
}

#[tokio::test]
async fn what_was_sent_is_sent_again_only_where_that_does_no_harm() {
    // Takes a request and hangs up.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (count, mut counted) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 4096]).await.unwrap() > 0);
            let _ = count.send(());
        }
    });
    let origin = Origin::start(Http1).await;
    let gateway = gateway(&[address, origin.address], Http1, "", "max_attempts = 2\nretry_status = [503]");
    let mut client = Client::connect(&gateway.address, Http1).await;
    for method in ["GET", "GET", "DELETE", "DELETE"] {
        let response = client.send(method, "/a", &[], empty()).await;
        assert_eq!(response.status(), 200, "{method}");
        whole(response).await;
    }
    let mut statuses = Vec::new();
    for _ in 0..2 {
        let response = client.send("POST", "/a", &[], full("order")).await;
        statuses.push(response.status().as_u16());
        whole(response).await;
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 502], "one of two goes to each endpoint, and is not sent again");
    // Of six requests three went there first.
    for _ in 0..3 {
        counted.recv().await.unwrap();
    }
    assert!(counted.try_recv().is_err());
    let before = origin.served.load(Relaxed);
    let response = client.send("POST", "/busy", &[], empty()).await;
    assert!([502, 503].contains(&response.status().as_u16()));
    whole(response).await;
    assert!(origin.served.load(Relaxed) - before <= 1, "a POST is not sent again for its status");
}

#[tokio::test]
async fn heads_have_bounds() {
    let origin = Origin::start(Http1).await;
    let gateway = gateway(&[origin.address], Http1, "max_head_bytes = 8192\nmax_headers = 20", "");
    let long = "x".repeat(9000);
    let many: Vec<(String, &str)> = (0..25).map(|n| (format!("x-{n}"), "1")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let some = &many[..15];
    for (headers, status) in [(some, 200), (&many[..], 431), (&[("x-long", long.as_str())], 431)] {
        let mut client = Client::connect(&gateway.address, Http1).await;
        assert_eq!(client.send("GET", "/a", headers, empty()).await.status(), status);
    }
    let mut client = Client::connect(&gateway.address, Http2).await;
    let answer = client.try_send("GET", "/a", &[("x-long", &long)], empty()).await;
    assert!(answer.map_or(true, |response| response.status() == 431), "HTTP/2");
    // Others go on.
    let mut client = Client::connect(&gateway.address, Http2).await;
    assert_eq!(client.send("GET", "/a", some, empty()).await.status(), 200);
    assert_eq!(origin.served.load(Relaxed), 2);
}

#[tokio::test]
async fn connections_have_a_bound_and_a_place_is_free_again_when_one_ends() {
    let origin = Origin::start(Http1).await;
    let gateway = gateway(&[origin.address], Http1, "max_connections = 2", "");
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(&gateway.address, Http1).await;
        whole(client.send("GET", "/a", &[], empty()).await).await;
        clients.push(client);
    }
    let mut third = Client::connect(&gateway.address, Http1).await;
    assert!(third.try_send("GET", "/a", &[], empty()).await.is_err());
    clients.pop();
    loop {
        let mut client = Client::connect(&gateway.address, Http1).await;
        if client.try_send("GET", "/a", &[], empty()).await.is_ok() {
            break;
        }
    }
}

#[tokio::test]
async fn every_connection_is_served_whichever_worker_accepted_it() {
    const MANY: usize = 200;
    let origin = Origin::start(Http1).await;
    let gateway = gateway(&[origin.address], Http1, "", "");
    let mut clients = Vec::new();
    for turn in 0..MANY {
        // In runs that differ, so that workers have to hand over what the kernel gave them.
        if turn % 3 == 2 {
            clients.remove(turn % clients.len());
        }
        let mut client = Client::connect(&gateway.address, Http1).await;
        assert_eq!(whole(client.send("GET", "/a", &[], empty()).await).await.0, "/a");
        clients.push(client);
    }
    for client in &mut clients {
        assert_eq!(whole(client.send("GET", "/b", &[], empty()).await).await.0, "/b");
    }
    drop(clients);
    let gone = tokio::task::spawn_blocking(move || {
        until("none is open", || gateway.metric("wayside_connections") == Some(0.0));
    });
    gone.await.unwrap();
}

#[tokio::test]
async fn a_drain_lets_what_is_in_flight_end_and_takes_nothing_more() {
    for (downstream, upstream) in PROTOCOLS {
        let origin = Origin::start(upstream).await;
        let gateway = gateway(&[origin.address], upstream, "", "");
        let mut client = Client::connect(&gateway.address, downstream).await;
        let mut idle = Client::connect(&gateway.address, downstream).await;
        whole(idle.send("GET", "/a", &[], empty()).await).await;
        let asked = tokio::spawn(async move {
            let response = client.send("GET", "/held", &[], empty()).await;
            (client, response)
        });
        origin.holding.notified().await;
        gateway.signal("TERM");
        until("it says that it drains", || gateway.ask("/readyz").contains("draining"));
        // An idle connection is closed (HTTP/1), or told to open no more streams (GOAWAY).
        tokio::time::timeout(Duration::from_secs(20), idle.closed()).await.expect("closed");
        until("it takes no more connections", || TcpStream::connect(&gateway.address).is_err());
        origin.release.notify_one();
        let (mut client, response) = asked.await.unwrap();
        if downstream == Http1 {
            assert_eq!(response.headers()["connection"], "close");
        }
        assert_eq!(whole(response).await.0, "let go", "{downstream:?} to {upstream:?}");
        tokio::time::timeout(Duration::from_secs(20), client.closed()).await.expect("closed");
        assert_eq!(gateway.ended(), Some(0));
    }
}

#[tokio::test]
async fn a_drain_has_a_deadline() {
    let origin = Origin::start(Http1).await;
    let gateway = gateway(&[origin.address], Http1, "drain_timeout = \"100ms\"", "");
    let mut client = Client::connect(&gateway.address, Http1).await;
    let asked = tokio::spawn(async move { client.try_send("GET", "/held", &[], empty()).await });
    origin.holding.notified().await;
    gateway.signal("TERM");
    assert_eq!(gateway.ended(), Some(0));
    assert!(asked.await.unwrap().is_err());
}

#[tokio::test]
async fn a_second_interrupt_waits_for_nobody() {
    let origin = Origin::start(Http1).await;
    let gateway = gateway(&[origin.address], Http1, "drain_timeout = \"1h\"", "");
    let mut client = Client::connect(&gateway.address, Http1).await;
    let asked = tokio::spawn(async move { client.try_send("GET", "/held", &[], empty()).await });
    origin.holding.notified().await;
    gateway.signal("INT");
    until("it says that it drains", || gateway.ask("/readyz").contains("draining"));
    gateway.signal("INT");
    assert_eq!(gateway.ended(), Some(1));
    assert!(asked.await.unwrap().is_err());
}
