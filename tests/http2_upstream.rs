//! HTTP/2 connections to endpoints: that leave, whose streams run out, and that fall silent (RFC 9113 §5.1.2, §6.7, §6.8).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

use crate::support::program::Program;
use crate::support::raw::Raw;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const END: u8 = 5;
/// `:status: 200` (RFC 7541, Appendix A).
const OK: &[u8] = &[0x88];

/// An endpoint that says just what a test wants.
struct Endpoint(TcpStream);

impl Endpoint {
    /// Takes the next connection; `settings` as they stand in the frame.
    fn accept(listener: &TcpListener, settings: &[u8]) -> Self {
        let mut stream = listener.accept().unwrap().0;
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.read_exact(&mut [0; 24]).unwrap();
        let mut endpoint = Endpoint(stream);
        endpoint.send(SETTINGS, 0, 0, settings);
        endpoint
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        self.0.write_all(&[&head, payload].concat()).unwrap();
    }

    /// The stream of the next request.
    fn request(&mut self) -> u32 {
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            self.0.read_exact(&mut vec![0; length]).unwrap();
            match head[3] {
                HEADERS => return u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
                SETTINGS if head[4] & ACK == 0 => self.send(SETTINGS, ACK, 0, &[]),
                _ => {}
            }
        }
    }

    fn answer(&mut self, stream: u32) {
        self.send(HEADERS, END, stream, OK);
    }
}

/// One worker, so that it has one connection.
fn before(listener: &TcpListener, gateway: &str) -> Program {
    Program::before(
        listener.local_addr().unwrap(),
        &format!("workers = 1\n{gateway}"),
        "protocol = \"h2\"\nmax_attempts = 1",
    )
}

fn post(gateway: &Program) -> Raw {
    let mut client = Raw::connect(&gateway.address);
    client.say("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\norder");
    client
}

#[test]
fn what_an_endpoint_that_leaves_has_not_seen_goes_again_and_the_rest_to_its_end() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = before(&listener, "");
    let mut first = post(&gateway);
    let mut leaving = Endpoint::accept(&listener, &[]);
    let seen = leaving.request();
    let mut unseen = [post(&gateway), post(&gateway)];
    let streams = [leaving.request(), leaving.request()];
    assert!(streams.iter().all(|stream| *stream > seen));
    // No further stream than the first was looked at.
    leaving.send(GOAWAY, 0, 0, &[&seen.to_be_bytes()[..], &[0; 4]].concat());
    let mut next = Endpoint::accept(&listener, &[]);
    for _ in &unseen {
        let stream = next.request();
        next.answer(stream);
    }
    for client in &mut unseen {
        assert!(client.head().starts_with("HTTP/1.1 200 "));
    }
    leaving.answer(seen);
    assert!(first.head().starts_with("HTTP/1.1 200 "));
}

#[test]
fn where_streams_run_out_another_connection_is_opened() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = before(&listener, "");
    let mut client = post(&gateway);
    // SETTINGS_MAX_CONCURRENT_STREAMS.
    let mut one = Endpoint::accept(&listener, &[0, 3, 0, 0, 0, 1]);
    let stream = one.request();
    one.answer(stream);
    assert!(client.head().starts_with("HTTP/1.1 200 "));
    let mut first = post(&gateway);
    let held = one.request();
    let mut second = post(&gateway);
    let mut other = Endpoint::accept(&listener, &[0, 3, 0, 0, 0, 1]);
    let stream = other.request();
    other.answer(stream);
    assert!(second.head().starts_with("HTTP/1.1 200 "));
    one.answer(held);
    assert!(first.head().starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_connection_that_fell_silent_is_found_and_left() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = before(&listener, "upstream_keepalive = \"100ms\"");
    let mut client = Raw::connect(&gateway.address);
    client.say("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let mut silent = Endpoint::accept(&listener, &[]);
    silent.request();
    // It answers no PING.
    let mut next = Endpoint::accept(&listener, &[]);
    let stream = next.request();
    next.answer(stream);
    assert!(client.head().starts_with("HTTP/1.1 200 "));
}
