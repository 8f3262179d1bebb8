//! WebSocket and other protocols: after a 101 bytes pass both ways as they are.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

use crate::support::program::{Program, until};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SWITCH: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n";

fn start(keys: &str) -> (Program, TcpListener) {
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    (Program::before(origin.local_addr().unwrap(), keys, ""), origin)
}

fn client(gateway: &Program) -> BufReader<TcpStream> {
    let stream = TcpStream::connect(&gateway.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    BufReader::new(stream)
}

fn accept(origin: &TcpListener) -> BufReader<TcpStream> {
    let stream = origin.accept().unwrap().0;
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    BufReader::new(stream)
}

/// A head, line by line, up to its empty line.
fn head(stream: &mut BufReader<TcpStream>) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(stream.read_line(&mut head).unwrap() > 0, "{head}");
    }
    head.to_ascii_lowercase()
}

fn exactly(stream: &mut BufReader<TcpStream>, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

/// Both ends of a tunnel.
fn tunnel(gateway: &Program, origin: &TcpListener) -> (BufReader<TcpStream>, BufReader<TcpStream>) {
    let mut client = client(gateway);
    // The first frame does not wait for the answer.
    write!(
        client.get_mut(),
        "GET /chat HTTP/1.1\r\nhost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n\0first\n"
    )
    .unwrap();
    let mut upstream = accept(origin);
    let asked = head(&mut upstream);
    assert!(asked.contains("connection: upgrade\r\n") && asked.contains("upgrade: websocket\r\n"), "{asked}");
    writeln!(upstream.get_mut(), "{SWITCH}\0hello").unwrap();
    let answer = head(&mut client);
    assert!(answer.starts_with("http/1.1 101 ") && answer.contains("upgrade: websocket\r\n"), "{answer}");
    assert_eq!(exactly(&mut client, 7), b"\0hello\n");
    assert_eq!(exactly(&mut upstream, 7), b"\0first\n");
    (client, upstream)
}

#[test]
fn bytes_pass_both_ways_and_each_side_may_end_first() {
    let (gateway, origin) = start("");
    for client_first in [true, false] {
        let (mut client, mut upstream) = tunnel(&gateway, &origin);
        let much: Vec<u8> = (0..1 << 20).map(|n: u32| (n % 251) as u8).collect();
        for _ in 0..3 {
            let mut writer = client.get_mut().try_clone().unwrap();
            let sent = much.clone();
            let writing = std::thread::spawn(move || writer.write_all(&sent).unwrap());
            assert!(exactly(&mut upstream, much.len()) == much);
            writing.join().unwrap();
            upstream.get_mut().write_all(b"\r\n\r\nthanks").unwrap();
            assert_eq!(exactly(&mut client, 10), b"\r\n\r\nthanks");
        }
        let (first, last) = if client_first { (&mut client, &mut upstream) } else { (&mut upstream, &mut client) };
        first.get_mut().shutdown(Shutdown::Write).unwrap();
        assert_eq!(last.read(&mut [0; 1]).unwrap(), 0);
        // What is said afterwards still arrives.
        last.get_mut().write_all(b"late").unwrap();
        assert_eq!(exactly(first, 4), b"late");
        last.get_mut().shutdown(Shutdown::Write).unwrap();
        assert_eq!(first.read(&mut [0; 1]).unwrap(), 0);
    }
    until("both are over", || gateway.metric("wayside_exchanges_in_flight") == Some(0.0));
}

#[test]
fn a_refused_wish_leaves_http_as_it_was() {
    let (gateway, origin) = start("");
    let mut client = client(&gateway);
    let wish = "GET /1 HTTP/1.1\r\nhost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    write!(client.get_mut(), "{wish}GET /2 HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    let mut upstream = accept(&origin);
    for (path, status) in [("/1", "426 Upgrade Required"), ("/2", "200 OK")] {
        assert!(head(&mut upstream).starts_with(&format!("get {path} ")));
        write!(upstream.get_mut(), "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").unwrap();
        assert!(head(&mut client).starts_with(&format!("http/1.1 {}", status.to_ascii_lowercase())));
    }
}

#[test]
fn nobody_is_led_past_the_gateway() {
    let (gateway, origin) = start("");
    // CVE-2020-5902's kin: through an upgrade to h2c, requests would pass that nobody routes.
    for wish in [
        "Connection: Upgrade\r\nUpgrade: h2c\r\n",
        "Connection: Upgrade\r\nUpgrade: HTTP/2.0\r\n",
        "Upgrade: websocket\r\n",
    ] {
        let mut client = client(&gateway);
        write!(client.get_mut(), "GET / HTTP/1.1\r\nhost: a\r\n{wish}\r\n").unwrap();
        let mut upstream = accept(&origin);
        let asked = head(&mut upstream);
        assert!(!asked.contains("upgrade"), "{asked}");
        // And a 101 that nobody asked for is none.
        write!(upstream.get_mut(), "{SWITCH}GET").unwrap();
        assert!(head(&mut client).starts_with("http/1.1 502 "));
    }
}

#[test]
fn a_quiet_tunnel_ends() {
    let (gateway, origin) = start("upgrade_idle_timeout = \"100ms\"\n");
    let (mut client, mut upstream) = tunnel(&gateway, &origin);
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(upstream.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn a_drain_waits_for_tunnels_as_long_as_it_says() {
    let (gateway, origin) = start("upgrade_drain_timeout = \"300ms\"\n");
    let (mut client, mut upstream) = tunnel(&gateway, &origin);
    gateway.signal("TERM");
    // Meanwhile it goes on.
    client.get_mut().write_all(b"still").unwrap();
    assert_eq!(exactly(&mut upstream, 5), b"still");
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(gateway.ended(), Some(0));
}

#[tokio::test]
async fn a_stream_of_http_2_becomes_a_websocket() {
    let (gateway, origin) = start("");
    let io = TokioIo::new(tokio::net::TcpStream::connect(&gateway.address).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(async { drop(connection.await) });
    // Whether the gateway can do this is told by its settings, which must have come before.
    sender
        .send_request(Request::options("http://a/").header("max-forwards", "0").body(Empty::<Bytes>::new()).unwrap())
        .await
        .unwrap();
    let request = Request::connect("http://a/chat?room=1")
        .extension(hyper::ext::Protocol::from_static("websocket"))
        .header("sec-websocket-version", "13")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let upstream = tokio::task::spawn_blocking(move || {
        let mut upstream = accept(&origin);
        let asked = head(&mut upstream);
        write!(upstream.get_mut(), "{SWITCH}hello").unwrap();
        let got = exactly(&mut upstream, 4);
        (asked, got)
    });
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(!response.headers().contains_key("sec-websocket-accept"), "{response:?}");
    let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    let mut hello = [0; 5];
    stream.read_exact(&mut hello).await.unwrap();
    assert_eq!(&hello, b"hello");
    stream.write_all(b"ping").await.unwrap();
    let (asked, got) = upstream.await.unwrap();
    assert!(asked.starts_with("get /chat?room=1 http/1.1\r\n") && asked.contains("upgrade: websocket\r\n"), "{asked}");
    assert!(asked.contains("sec-websocket-version: 13\r\n") && asked.contains("sec-websocket-key: "), "{asked}");
    assert_eq!(got, b"ping");
}

/// An HTTP/2 origin that turns streams into tunnels, if `carries`, and sends back there what it gets.
async fn http2_origin(carries: bool) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = hyper::service::service_fn(|mut request: Request<hyper::body::Incoming>| async move {
                let answer = http::Response::builder();
                if request.method() != http::Method::CONNECT {
                    assert!(!request.headers().contains_key("upgrade"));
                    return answer.status(426).body(Empty::<Bytes>::new());
                }
                assert_eq!(request.extensions().get::<hyper::ext::Protocol>().unwrap().as_str(), "websocket");
                assert_eq!(request.headers()["sec-websocket-version"], "13");
                assert!(!request.headers().contains_key("sec-websocket-key"));
                tokio::spawn(async move {
                    let stream = TokioIo::new(hyper::upgrade::on(&mut request).await.unwrap());
                    let (mut from, mut to) = tokio::io::split(stream);
                    tokio::io::copy(&mut from, &mut to).await.unwrap();
                    to.shutdown().await.unwrap();
                });
                answer.status(200).body(Empty::new())
            });
            let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            if carries {
                builder.enable_connect_protocol();
            }
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

const WISH: &str = "GET /chat HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                    sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[tokio::test]
async fn a_websocket_goes_to_an_endpoint_of_http_2_as_a_stream() {
    let gateway = Program::before(http2_origin(true).await, "", "protocol = \"h2\"");
    let mut client = tokio::net::TcpStream::connect(&gateway.address).await.unwrap();
    client.write_all(format!("{WISH}first").as_bytes()).await.unwrap();
    let mut answer = String::new();
    while !answer.ends_with("\r\n\r\nfirst") {
        answer.push(char::from(client.read_u8().await.unwrap()));
    }
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert!(answer.contains("\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{answer}");
    client.write_all(b"second").await.unwrap();
    client.shutdown().await.unwrap();
    let mut rest = String::new();
    client.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "second");

    // From HTTP/2 as well.
    let io = TokioIo::new(tokio::net::TcpStream::connect(&gateway.address).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(async { drop(connection.await) });
    let plain = Request::get("http://a/").body(Empty::<Bytes>::new()).unwrap();
    assert_eq!(sender.send_request(plain).await.unwrap().status(), 426);
    let request = Request::connect("http://a/chat")
        .extension(hyper::ext::Protocol::from_static("websocket"))
        .header("sec-websocket-version", "13")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    stream.write_all(b"third").await.unwrap();
    let mut back = [0; 5];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"third");
}

#[tokio::test]
async fn an_endpoint_of_http_2_that_has_no_such_streams_is_asked_without_the_wish() {
    let gateway = Program::before(http2_origin(false).await, "", "protocol = \"h2\"");
    let io = TokioIo::new(tokio::net::TcpStream::connect(&gateway.address).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(async { drop(connection.with_upgrades().await) });
    for _ in 0..2 {
        let mut request = Request::get("/chat").header("host", "a").body(Empty::<Bytes>::new()).unwrap();
        request.headers_mut().insert("connection", "upgrade".parse().unwrap());
        request.headers_mut().insert("upgrade", "websocket".parse().unwrap());
        sender.ready().await.unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), 426);
        response.into_body().collect().await.unwrap();
    }
}
