//! `compress`, as `gzip` itself reads it, while a response still flows.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

use crate::support::gateway::Gateway;
use crate::support::origin::{Client, Protocol, full};
use crate::support::raw::{Raw, answering};
use http_body_util::BodyExt;
use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, Stdio};

/// What `gzip` makes of it; of a part, as much as there is.
fn gunzip(coded: &[u8]) -> Vec<u8> {
    let mut gzip = Command::new("gzip");
    gzip.arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = gzip.spawn().unwrap();
    child.stdin.take().unwrap().write_all(coded).unwrap();
    child.wait_with_output().unwrap().stdout
}

/// Answers each connection's request with this head and body.
fn origin(head: &'static str, body: String) -> std::net::SocketAddr {
    answering(format!("HTTP/1.1 200 OK\r\nconnection: close\r\n{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
}

#[tokio::test]
async fn a_response_is_coded_in_what_its_client_likes_best() {
    let body = "Wayside, ".repeat(20_000);
    let head = "content-type: application/json\r\netag: \"a\"";
    let gateway = Gateway::with().endpoint(origin(head, body.clone())).table("[[middleware]]\ncompress = {}\n").start();
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let mut client = Client::connect(&gateway.address, protocol).await;
        let mut ask = async |method, accepts| client.send(method, "/", &[("accept-encoding", accepts)], full("")).await;
        for (accepts, coding) in [("gzip", "gzip"), ("gzip;q=0.5, br", "br"), ("gzip, br, zstd", "zstd")] {
            let response = ask("GET", accepts).await;
            assert_eq!(response.headers()["content-encoding"], coding);
            assert_eq!(response.headers()["etag"], "W/\"a\"");
            assert_eq!(response.headers()["vary"], "accept-encoding");
            assert!(!response.headers().contains_key("content-length"));
            let coded = response.into_body().collect().await.unwrap().to_bytes();
            assert!(coded.len() < body.len() / 20, "{coding}: {}", coded.len());
            if coding == "gzip" {
                assert_eq!(gunzip(&coded), body.as_bytes());
            }
        }
        let plain = ask("GET", "identity").await;
        assert_eq!(plain.headers()["vary"], "accept-encoding");
        assert_eq!(plain.headers()["etag"], "\"a\"");
        assert_eq!(plain.into_body().collect().await.unwrap().to_bytes().len(), body.len());
    }
}

#[tokio::test]
async fn a_piece_goes_out_before_the_next_one_comes() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, goes_on) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        let mut client = Raw::accept(&listener);
        client.head();
        client.say("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n");
        goes_on.recv().unwrap();
        client.say("3\r\ntwo\r\n0\r\n\r\n");
        goes_on.recv().unwrap_err();
    });
    let gateway = Gateway::with().endpoint(address).table("[[middleware]]\ncompress = {}\n").start();
    let mut client = Client::connect(&gateway.address, Protocol::Http1).await;
    let mut response = client.send("GET", "/", &[("accept-encoding", "gzip")], full("")).await;
    assert_eq!(response.headers()["content-encoding"], "gzip");
    let mut coded = Vec::new();
    // It comes only because it was let out.
    while gunzip(&coded) != b"one" {
        coded.extend_from_slice(&response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap());
    }
    seen.send(()).unwrap();
    coded.extend_from_slice(&response.into_body().collect().await.unwrap().to_bytes());
    assert_eq!(gunzip(&coded), b"onetwo");
}

#[tokio::test]
async fn events_and_broken_bodies_are_left_alone() {
    let rule = "[[middleware]]\ncompress = { min_bytes = 1 }\n";
    let events =
        Gateway::with().endpoint(origin("content-type: text/event-stream", "data: 1\n\n".into())).table(rule).start();
    let mut client = Client::connect(&events.address, Protocol::Http1).await;
    let response = client.send("GET", "/", &[("accept-encoding", "gzip")], full("")).await;
    assert!(!response.headers().contains_key("content-encoding") && !response.headers().contains_key("vary"));
    // An endpoint that breaks off: what is coded of it must not look complete.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let broken = Gateway::with().endpoint(listener.local_addr().unwrap()).table(rule).start();
    std::thread::spawn(move || {
        let mut client = Raw::accept(&listener);
        client.head();
        client.say("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 100\r\n\r\nhalf of it");
    });
    let mut client = Client::connect(&broken.address, Protocol::Http1).await;
    let response = client.send("GET", "/", &[("accept-encoding", "br")], full("")).await;
    assert_eq!(response.headers()["content-encoding"], "br");
    assert!(response.into_body().collect().await.is_err());
}
