//! Bounds on connections and bodies, each crossed once; and whom a load balancer connects for.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

use crate::support::gateway::Gateway;
use crate::support::origin::{Client, Origin, Protocol, streamed, whole};
use crate::support::program::{Program, echo, until};
use crate::support::raw::Raw;
use hyper::body::Frame;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// A gateway before an origin that answers with the head that it was sent; keys of `[gateway]` and of the service.
fn start(gateway: &str, service: &str) -> Program {
    Program::before(echo(), gateway, service)
}

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// A connection from another address of the loopback range.
fn connect_from(address: &str, gateway: &Program) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(address.parse().unwrap(), 0).into()).unwrap();
    socket.connect(&gateway.address.parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.into()
}

fn is_served(stream: &mut TcpStream) -> bool {
    let asked = stream.write_all(GET.as_bytes());
    let mut first = [0; 12];
    asked.and_then(|()| stream.read_exact(&mut first)).is_ok() && first == *b"HTTP/1.1 200"
}

#[test]
fn one_client_cannot_take_all_connections() {
    let gateway = start("max_connections_per_client = 2", "");
    let mut first = connect_from("127.0.0.9", &gateway);
    let mut second = connect_from("127.0.0.9", &gateway);
    assert!(is_served(&mut first) && is_served(&mut second));
    assert!(!is_served(&mut connect_from("127.0.0.9", &gateway)));
    assert!(gateway.logged("closed").contains("gateway.max_connections_per_client"));
    assert_eq!(gateway.metric("wayside_connections_turned_away_total"), Some(1.0));
    assert!(is_served(&mut connect_from("127.0.0.8", &gateway)));
    drop(first);
    until("there is room again", || is_served(&mut connect_from("127.0.0.9", &gateway)));

    let trusting = start("max_connections_per_client = 1\ntrusted_proxies = [\"127.0.0.9\"]", "");
    let mut open: Vec<_> = (0..3).map(|_| connect_from("127.0.0.9", &trusting)).collect();
    assert!(open.iter_mut().all(is_served));
}

#[test]
fn a_connection_is_not_used_for_ever() {
    for (bound, most) in [("max_requests_per_connection = 3", 3), ("connection_lifetime = \"1us\"", 1)] {
        let gateway = start(bound, "");
        let mut client = Raw::connect(&gateway.address);
        for number in 1..=most {
            client.say(GET);
            let (head, _) = client.response();
            assert_eq!(head.contains("\r\nconnection: close\r\n"), number == most, "{bound}: {head}");
        }
        assert_eq!(client.rest().unwrap(), "", "{bound}");
    }
}

#[tokio::test]
async fn a_connection_of_http_2_is_not_used_for_ever_and_loses_nothing() {
    let gateway = start("max_requests_per_connection = 3", "");
    let stream = tokio::net::TcpStream::connect(&gateway.address).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    let driven = tokio::spawn(connection);
    let mut answered = 0;
    loop {
        let request = http::Request::get("http://a/").body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
        match sender.try_send_request(request).await {
            Ok(response) => {
                assert_eq!(response.status(), 200);
                answered += 1;
            }
            Err(mut refused) => {
                // Not sent at all, so it can go elsewhere.
                assert!(refused.take_message().is_some());
                break;
            }
        }
    }
    // What was on its way when the goodbye came is answered, too.
    assert!((3..6).contains(&answered), "{answered}");
    driven.await.unwrap().unwrap();
}

#[test]
fn a_body_has_a_bound_where_one_is_set() {
    let gateway = start("", "max_body_bytes = 4");
    let post = |more: &str| {
        let mut client = Raw::connect(&gateway.address);
        client.say(&format!("POST / HTTP/1.1\r\nhost: a\r\n{more}"));
        client.response()
    };
    assert!(post("content-length: 4\r\nconnection: close\r\n\r\nfour").0.starts_with("HTTP/1.1 200 "));
    for more in ["content-length: 5\r\n\r\n", "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n"] {
        let (head, body) = post(more);
        assert!(head.starts_with("HTTP/1.1 413 ") && head.contains("connection: close"), "{more:?}: {head}");
        assert!(body.contains("\"body_too_large\""), "{body}");
    }
    let sample = "wayside_refused_requests_total{kind=\"body_too_large\"}";
    assert_eq!(gateway.metric(sample), Some(2.0));
    // Whoever goes on sending sees it all the same.
    let mut client = Raw::connect(&gateway.address);
    client.say("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 500000\r\n\r\n");
    client.say(&"x".repeat(500_000));
    assert!(client.response().0.starts_with("HTTP/1.1 413 "));
}

#[test]
fn a_body_that_does_not_come_is_not_waited_for() {
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = Program::before(origin.local_addr().unwrap(), "stall_timeout = \"200ms\"", "");
    for more in ["content-length: 5\r\n\r\nfour", "transfer-encoding: chunked\r\n\r\n4\r\nfo"] {
        let mut client = Raw::connect(&gateway.address);
        client.say(&format!("POST / HTTP/1.1\r\nhost: a\r\n{more}"));
        // It waits for the rest of the body.
        let mut upstream = Raw::accept(&origin);
        upstream.head();
        let answer = client.rest();
        assert!(answer.as_ref().is_ok_and(|answer| answer.starts_with("HTTP/1.1 408 ")), "{more:?}: {answer:?}");
        assert!(upstream.rest().is_ok_and(|rest| !rest.ends_with("0\r\n\r\n")));
    }
    let sample = "wayside_refused_requests_total{kind=\"body_timeout\"}";
    until("both are counted", || gateway.metric(sample) == Some(2.0));
}

#[tokio::test]
async fn a_stream_of_http_2_whose_body_does_not_come_is_answered_alone() {
    let origin = Origin::start(Protocol::Http2).await;
    let gateway = Program::before(origin.address, "stall_timeout = \"100ms\"", "protocol = \"h2\"");
    let mut client = Client::connect(&gateway.address, Protocol::Http2).await;
    let (open, body) = streamed();
    open.send(Frame::data(bytes::Bytes::from_static(b"a piece"))).await.unwrap();
    let answer = client.send("POST", "/whole", &[], body).await;
    assert_eq!(answer.status(), 408);
    assert!(whole(answer).await.0.contains("\"body_timeout\""));
    let counted = gateway.metric("wayside_refused_requests_total{kind=\"body_timeout\"}");
    assert_eq!(counted, Some(1.0));
    // gRPC's clients may listen for as long as they like.
    let (to, body) = streamed();
    let mut call = std::pin::pin!(client.send("POST", "/whole", &[("content-type", "application/grpc")], body));
    assert!(tokio::time::timeout(std::time::Duration::from_millis(300), &mut call).await.is_err());
    drop(to);
    assert_eq!(whole(call.await).await.0, "the request is over");
}

#[test]
fn without_file_descriptors_it_waits_for_some() {
    let health = "health = { path = \"/\", interval = \"20ms\", unhealthy_after = 1 }";
    let gateway = start("max_connections_per_client = 10000", health);
    let open = std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).unwrap().count();
    let limit = u64::try_from(open + 20).unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(gateway.pid()).unwrap());
    let limits = rustix::process::Rlimit { current: Some(limit), maximum: Some(limit) };
    rustix::process::prlimit(pid, rustix::process::Resource::Nofile, limits).unwrap();
    let held: Vec<_> = (0..60).map(|_| TcpStream::connect(&gateway.address).unwrap()).collect();
    assert!(gateway.logged("cannot accept").contains("Too many open files"));
    // Many a check is due meanwhile, and finds out nothing.
    let mut looks = 0;
    until("checks were due", || {
        looks += 1;
        looks > 20
    });
    drop(held);
    until("it serves again", || {
        let mut client = TcpStream::connect(&gateway.address).unwrap();
        client.set_read_timeout(Some(std::time::Duration::from_secs(1))).unwrap();
        is_served(&mut client)
    });
    assert_eq!(gateway.metric("wayside_endpoints{service=\"shop\",health=\"healthy\"}"), Some(1.0));
    // It fails twenty times a second, which is told once in a while.
    let (_, log) = gateway.stop();
    assert!(!log.iter().any(|line| line.contains("unhealthy")), "{log:?}");
    assert!(log.iter().filter(|line| line.contains("cannot accept")).count() <= 1, "{log:?}");
}

/// A header of version 2 (haproxy's proxy-protocol.txt §2.2).
fn version_2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([0x20 | command, family]);
    header.extend(u16::try_from(addresses.len()).unwrap().to_be_bytes());
    header.extend(addresses);
    header
}

#[test]
fn a_load_balancer_says_for_whom_it_connects() {
    let listener = "{ address = \"127.0.0.1:0\", proxy_protocol = true }";
    let keys = "max_connections_per_client = 1";
    let gateway = Gateway::with().endpoint(echo()).listener(listener).keys(keys).start();
    let ask = |header: &[u8]| {
        let mut stream = TcpStream::connect(&gateway.address).unwrap();
        stream.write_all(header).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let ipv6 = [[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7], [0; 16]].concat();
    let with_words = [&[203, 0, 113, 7, 10, 0, 0, 1, 0x1b, 0x39, 0, 80][..], &[4, 0, 3, b'a', b'b', b'c']].concat();
    for (header, client) in [
        (b"PROXY TCP4 203.0.113.7 10.0.0.1 56324 443\r\n".to_vec(), "203.0.113.7"),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\n".to_vec(), "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n".to_vec(), "127.0.0.1"),
        (version_2(1, 0x11, &[203, 0, 113, 7, 10, 0, 0, 1, 0x1b, 0x39, 0, 80]), "203.0.113.7"),
        (version_2(1, 0x11, &with_words), "203.0.113.7"),
        (version_2(1, 0x21, &[&ipv6[..], &[0x1b, 0x39, 0, 80]].concat()), "2001:db8::7"),
        (version_2(0, 0, &[]), "127.0.0.1"),
    ] {
        let answer = ask(&header);
        let line = format!("\r\nx-forwarded-for: {client}\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(&line), "{header:?}: {answer}");
    }
    let bad: [&[u8]; 5] = [
        b"",
        b"PROXY TCP4 203.0.113.7\r\n",
        b"PROXY TCP4 203.0.113.700 10.0.0.1 1 2\r\n",
        &version_2(1, 0x11, &[1, 2, 3]),
        &version_2(1, 0x11, &[0; 5000]),
    ];
    for header in bad {
        let mut stream = TcpStream::connect(&gateway.address).unwrap();
        let sent = stream.write_all(header).and_then(|()| stream.write_all(GET.as_bytes()));
        let mut answer = Vec::new();
        assert!(sent.and_then(|()| stream.read_to_end(&mut answer)).is_err() || answer.is_empty(), "{header:?}");
    }
    let sample = "wayside_refused_requests_total{kind=\"proxy_header\"}";
    until("they are counted", || gateway.metric(sample) == Some(5.0));
}
