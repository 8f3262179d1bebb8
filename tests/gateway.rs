//! The real program with real origins: what a client sees.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

use crate::support::gateway::Gateway;
use crate::support::program::{Program, nobody, until};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

/// With these endpoints behind `/users`, and these keys of `[gateway]`.
fn start(endpoints: &[String], gateway: &str) -> Program {
    let users = Gateway::with().named("users").endpoints(endpoints).route("match = { path_prefix = \"/users\" }");
    users.keys(gateway).start()
}

/// Sends bytes on a new connection and reads until the gateway closes it.
fn send(gateway: &Program, bytes: &str) -> String {
    let mut stream = TcpStream::connect(&gateway.address).unwrap();
    stream.write_all(bytes.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// An origin that answers each connection once with its name; its thread ends with the test.
fn origin(name: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut line = String::new();
            while stream.read_line(&mut line).unwrap() > 2 {
                line.clear();
            }
            let length = name.len();
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{name}");
            stream.get_mut().write_all(answer.as_bytes()).unwrap();
        }
    });
    address
}

#[test]
fn requests_go_round_and_a_dead_endpoint_fails_none() {
    let dead = nobody();
    let gateway = start(&[origin("one"), dead.address.to_string(), origin("two")], "");
    let answers: Vec<String> = (0..12).map(|_| gateway.get("/users", &[])).collect();
    assert!(answers.iter().all(|answer| answer.starts_with("HTTP/1.1 200")), "{answers:?}");
    for name in ["one", "two"] {
        assert!(answers.iter().any(|answer| answer.ends_with(name)), "{answers:?}");
    }
}

#[test]
fn the_gateways_own_answers_are_json_with_a_stable_code() {
    let gateway = start(&[], "");
    for (path, status, code) in [("/nowhere", "404", "no_route"), ("/users", "503", "no_endpoint")] {
        let answer = gateway.get(path, &[]);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        let body: serde_json::Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        assert_eq!(body["error"]["code"], code);
    }
}

#[test]
fn a_service_that_cannot_be_reached_is_a_502() {
    let dead = nobody();
    let gateway = start(&[dead.address.to_string()], "");
    assert!(gateway.get("/users", &[]).contains("connect_failed"));
}

#[test]
fn a_client_that_says_nothing_or_too_little_is_let_go() {
    let gateway = start(&[origin("one")], "head_timeout = \"100ms\"\nidle_timeout = \"100ms\"");
    for said in ["", "PRI * HTTP/2.0\r\n"] {
        assert_eq!(send(&gateway, said), "", "after {said:?}");
    }
    // Half a request: that it took too long.
    for said in ["G", "GET /users HTTP/1.1\r\nhost:", "GET /users HTTP/1.1\r\nhost: a\r\n"] {
        let answer = send(&gateway, said);
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("\"head_timeout\""), "after {said:?}: {answer}");
    }
    // Idle after a request: the answer, then the close.
    assert!(send(&gateway, "GET /users HTTP/1.1\r\nhost: a\r\n\r\n").ends_with("one"));
}

#[test]
fn who_speaks_no_http_is_told_nothing_in_it() {
    let gateway = start(&[], "");
    for said in ["INVALID CONNECTION PREFACE\r\n\r\n", "DESCRIBE rtsp://a/b RTSP/1.0\r\n\r\n"] {
        assert_eq!(send(&gateway, said), "", "after {said:?}");
    }
    let sample = "wayside_refused_requests_total{kind=\"not_http\"}";
    until("both are counted", || gateway.metric(sample) == Some(2.0));
    // A request with a version that nobody knows is one all the same.
    for said in ["GET / RTSP/1.0\r\n\r\n", "GET http://a/ HTTP/3\r\n\r\n"] {
        assert!(send(&gateway, said).starts_with("HTTP/1.1 400 "), "after {said:?}");
    }
}

#[test]
fn half_a_headers_frame_is_not_waited_for_as_an_idle_connection_is() {
    let gateway = start(&[], "head_timeout = \"100ms\"\nidle_timeout = \"10m\"");
    let mut stream = TcpStream::connect(&gateway.address).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    // RFC 9113 §3.4, then SETTINGS, then a whole request: `GET /` with `:authority: a` (RFC 7541, appendix A).
    let head = [0x82, 0x86, 0x84, 0x41, 1, b'a'];
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    stream.write_all(&[&[0, 0, 6, 1, 5, 0, 0, 0, 1][..], &head].concat()).unwrap();
    // Its answer shows that the connection is past its first head.
    let mut answer = Vec::new();
    while !answer.windows(8).any(|bytes| bytes == b"no_route") {
        let mut some = [0; 1024];
        let read = stream.read(&mut some).unwrap();
        assert!(read > 0, "closed before the answer");
        answer.extend_from_slice(&some[..read]);
    }
    stream.write_all(&[&[0, 0, 6, 1, 5, 0, 0, 0, 3][..], &head[..2]].concat()).unwrap();
    stream.read_to_end(&mut answer).expect("closed by the head's timer");
}

#[test]
fn sigterm_ends_it_with_exit_code_0() {
    start(&[], "").stop();
}
