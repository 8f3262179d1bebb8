//! HTTP/1 to the letter: bytes in, bytes out. What another parser could read differently is refused, and nothing of it
//! reaches an origin.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

use crate::support::program::{Program, until};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The first lines of the requests that an origin was sent.
type Served = Arc<Mutex<Vec<String>>>;

/// A gateway before one origin, and what that was sent.
fn start() -> (Program, Served) {
    let (address, served) = origin();
    (before(&address), served)
}

/// A gateway before an origin.
fn before(address: &str) -> Program {
    Program::before(address, "max_head_bytes = 8192\nmax_headers = 50", "")
}

/// Answers each request with its first line, once its body was read.
fn origin() -> (String, Served) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let served = Served::default();
    let sent = Arc::clone(&served);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let sent = Arc::clone(&sent);
            std::thread::spawn(move || serve(BufReader::new(stream.unwrap()), &sent));
        }
    });
    (address, served)
}

fn serve(mut stream: BufReader<TcpStream>, sent: &Served) -> Option<()> {
    loop {
        let mut first = String::new();
        if stream.read_line(&mut first).ok()? == 0 {
            return None;
        }
        sent.lock().unwrap().push(first.trim().to_owned());
        let (mut length, mut chunked) = (0, false);
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).ok()?;
            let line = line.trim().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().ok()?;
            }
            chunked |= line == "transfer-encoding: chunked";
        }
        while chunked {
            let mut size = String::new();
            stream.read_line(&mut size).ok()?;
            let size = u64::from_str_radix(size.trim(), 16).ok()?;
            std::io::copy(&mut (&mut stream).take(size + 2), &mut std::io::sink()).ok()?;
            chunked = size > 0;
        }
        std::io::copy(&mut (&mut stream).take(length), &mut std::io::sink()).ok()?;
        let first = first.trim();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{first}", first.len());
        stream.get_mut().write_all(answer.as_bytes()).ok()?;
    }
}

/// Sends bytes, and reads until the gateway closes.
fn send(gateway: &Program, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(&gateway.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

#[test]
fn what_has_two_meanings_is_refused_and_no_origin_sees_any_of_it() {
    let (gateway, served) = start();
    let chunked = "POST /parts HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    let long = "x".repeat(9000);
    let cases: Vec<(&str, u16, String)> = vec![
        // RFC 9112 §2.2
        ("bare_line_feed", 400, "GET / HTTP/1.1\nhost: a\n\n".into()),
        ("bare_line_feed", 400, "GET / HTTP/1.1\r\nhost: a\nx: 1\r\n\r\n".into()),
        ("bare_line_feed", 400, "GET / HTTP/1.1\r\nhost: a\r\n\n".into()),
        ("bare_carriage_return", 400, "GET / HTTP/1.1\r\nhost: a\r\nx: 1\rtransfer-encoding: chunked\r\n\r\n".into()),
        ("empty_lines", 400, "\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n".into()),
        // RFC 9112 §3
        ("request_line", 400, "GET /\r\n\r\n".into()),
        ("request_line", 400, "GET  / HTTP/1.1\r\nhost: a\r\n\r\n".into()),
        ("request_line", 400, "GET / a HTTP/1.1\r\nhost: a\r\n\r\n".into()),
        ("request_line", 400, " GET / HTTP/1.1\r\nhost: a\r\n\r\n".into()),
        ("request_line", 400, "GET\t/ HTTP/1.1\r\nhost: a\r\n\r\n".into()),
        ("method", 400, "G(T / HTTP/1.1\r\nhost: a\r\n\r\n".into()),
        ("target", 400, "GET /a\u{0}b HTTP/1.1\r\nhost: a\r\n\r\n".into()),
        ("target", 400, "GET /a#b HTTP/1.1\r\nhost: a\r\n\r\n".into()),
        ("target", 400, "GET /é HTTP/1.1\r\nhost: a\r\n\r\n".into()),
        ("target_too_long", 414, format!("GET /{long} HTTP/1.1\r\nhost: a\r\n\r\n")),
        // RFC 9112 §3.2: origin form, absolute form, or an asterisk
        ("target", 400, "GET a HTTP/1.1\r\nhost: a\r\n\r\n".into()),
        ("target", 400, "GET a:80 HTTP/1.1\r\nhost: a\r\n\r\n".into()),
        ("target", 400, "GET * HTTP/1.1\r\nhost: a\r\n\r\n".into()),
        ("target", 400, "GET /<script> HTTP/1.1\r\nhost: a\r\n\r\n".into()),
        ("host", 400, "GET / HTTP/1.1\r\n\r\n".into()),
        ("host", 400, "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n".into()),
        ("host", 400, "GET / HTTP/1.1\r\nhost: a b\r\n\r\n".into()),
        ("host", 400, "GET / HTTP/1.1\r\nhost: u@a\r\n\r\n".into()),
        ("host", 400, "GET http://u@a/ HTTP/1.1\r\nhost: a\r\n\r\n".into()),
        // RFC 9112 §2.3
        ("version", 400, "GET / HTTP/0.9\r\n\r\n".into()),
        ("version", 400, "GET / HTTP/1.2\r\nhost: a\r\n\r\n".into()),
        ("version", 400, "GET / http/1.1\r\nhost: a\r\n\r\n".into()),
        // RFC 9112 §5, CVE-2019-16276 (whitespace before the colon)
        ("header_name", 400, "GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding : chunked\r\n\r\n".into()),
        ("header_name", 400, "GET / HTTP/1.1\r\nhost: a\r\n: 1\r\n\r\n".into()),
        ("header_name", 400, "GET / HTTP/1.1\r\nhost: a\r\nx\r\n\r\n".into()),
        ("header_name", 400, "GET / HTTP/1.1\r\nhost: a\r\nx\u{b}y: 1\r\n\r\n".into()),
        ("folded_header", 400, "GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\n transfer-encoding: chunked\r\n\r\n".into()),
        ("header_value", 400, "GET / HTTP/1.1\r\nhost: a\r\nx: \u{0}\r\n\r\n".into()),
        ("header_value", 400, "GET / HTTP/1.1\r\nhost: a\r\nx: \u{7f}\r\n\r\n".into()),
        ("head_too_large", 431, format!("GET / HTTP/1.1\r\nhost: a\r\nx: {long}\r\n\r\n")),
        ("head_too_large", 431, format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: 1\r\n".repeat(50))),
        // RFC 9112 §6.3, RFC 9110 §8.6
        ("content_length", 400, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +1\r\n\r\nx".into()),
        ("content_length", 400, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\nx".into()),
        ("content_length", 400, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0x1\r\n\r\nx".into()),
        ("content_length", 400, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1, 1\r\n\r\nx".into()),
        ("content_length", 400, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1 1\r\n\r\nx".into()),
        ("content_length", 400, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length:\r\n\r\nx".into()),
        ("content_length", 400, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999999999999\r\n\r\nx".into()),
        ("content_length", 400, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\nx".into()),
        ("content_length", 400, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx".into()),
        (
            "both_lengths",
            400,
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".into(),
        ),
        (
            "both_lengths",
            400,
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n".into(),
        ),
        // RFC 9112 §6.1, CVE-2020-35863 and its kin
        ("transfer_encoding", 400, "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n".into()),
        (
            "transfer_encoding",
            400,
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n".into(),
        ),
        (
            "transfer_encoding",
            400,
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n".into(),
        ),
        (
            "transfer_encoding",
            400,
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n".into(),
        ),
        (
            "transfer_encoding",
            400,
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \"chunked\"\r\n\r\n0\r\n\r\n".into(),
        ),
        ("transfer_encoding", 400, "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding:\r\n\r\n0\r\n\r\n".into()),
        (
            "transfer_encoding",
            400,
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
                .into(),
        ),
        ("transfer_encoding", 400, "POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".into()),
    ];
    for (kind, status, bytes) in &cases {
        let sample = format!("wayside_refused_requests_total{{kind=\"{kind}\"}}");
        let before = gateway.metric(&sample).unwrap();
        let answer = send(&gateway, bytes.as_bytes());
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer to {bytes:?}"));
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{bytes:?}: {answer}");
        assert!(head.contains("connection: close"), "{bytes:?}: {answer}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert!(body["error"]["reason"].as_str().unwrap().len() > 20, "{bytes:?}: {answer}");
        until("it is counted", || gateway.metric(&sample) == Some(before + 1.0));
    }
    // What goes wrong after the head has gone on its way.
    for chunks in [
        "x\r\n",
        "-1\r\nx",
        "0x1\r\nx\r\n0\r\n\r\n",
        "1 \r\nx\r\n0\r\n\r\n",
        "1\r\nxy\r\n0\r\n\r\n",
        "1\nx\n0\n\n",
        "\r\n",
    ] {
        let answer = send(&gateway, format!("{chunked}{chunks}").as_bytes());
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{chunks:?}: {answer}");
    }
    assert!(gateway.logged("refused: ").contains("kind="));
    // Whatever the cases were, the origin saw none of them; only heads of what went wrong later, some perhaps not yet.
    assert!(send(&gateway, b"GET /good HTTP/1.1\r\nhost: a\r\n\r\n").ends_with("GET /good HTTP/1.1"));
    let whole =
        served.lock().unwrap().iter().filter(|line| *line != "POST /parts HTTP/1.1").cloned().collect::<Vec<_>>();
    assert_eq!(whole, ["GET /good HTTP/1.1"]);
}

#[test]
fn requests_before_a_bad_one_are_answered_in_order() {
    let (gateway, served) = start();
    let good = "POST /1 HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nab\
                POST /2 HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";
    let smuggled = "GET /3 HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\nGET /4 HTTP/1.1\r\nhost: a\r\n\r\n";
    let answer = send(&gateway, format!("{good}{smuggled}").as_bytes());
    let order: Vec<usize> =
        ["POST /1 ", "POST /2 ", "HTTP/1.1 400 "].iter().map(|part| answer.find(part).expect(part)).collect();
    assert!(order.is_sorted(), "{answer}");
    assert!(!answer.contains("/4"), "{answer}");
    assert_eq!(*served.lock().unwrap(), ["POST /1 HTTP/1.1", "POST /2 HTTP/1.1"]);
}

#[test]
fn bytes_may_come_one_by_one() {
    let (gateway, _) = start();
    let mut stream = TcpStream::connect(&gateway.address).unwrap();
    stream.set_nodelay(true).unwrap();
    let request = b"POST /slow HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    for byte in request {
        stream.write_all(&[*byte]).unwrap();
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("POST /slow HTTP/1.1"), "{answer}");
}

#[test]
fn a_client_that_goes_on_sending_still_sees_why_it_was_refused() {
    let (gateway, _) = start();
    let mut bytes = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n".to_vec();
    bytes.resize(512 << 10, b'x');
    assert!(send(&gateway, &bytes).starts_with("HTTP/1.1 400"));
}

#[test]
fn a_client_may_close_its_half_and_wait_and_only_a_reset_says_that_it_is_gone() {
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = before(&origin.local_addr().unwrap().to_string());
    let request = || {
        let mut client = TcpStream::connect(&gateway.address).unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        let (mut upstream, _) = origin.accept().unwrap();
        upstream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        assert!(upstream.read(&mut [0; 4096]).unwrap() > 0);
        (client, upstream)
    };
    let (mut client, mut upstream) = request();
    client.shutdown(Shutdown::Write).unwrap();
    // The upstream is not let go of.
    upstream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert_eq!(upstream.read(&mut [0; 16]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    upstream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nlate").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("late"), "{answer}");

    let (client, mut upstream) = request();
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    // A reset here as well, or an end: what matters is that it comes.
    assert!(matches!(upstream.read(&mut [0; 16]), Ok(0) | Err(_)));
}

/// A request as an origin gets it, and what the client gets for this answer.
fn pass(gateway: &Program, origin: &TcpListener, request: &str, answer: &str) -> (String, String) {
    let mut client = TcpStream::connect(&gateway.address).unwrap();
    client.write_all(request.as_bytes()).unwrap();
    let (upstream, _) = origin.accept().unwrap();
    let mut upstream = BufReader::new(upstream);
    let mut received = String::new();
    while !received.ends_with("\r\n\r\n") {
        assert!(upstream.read_line(&mut received).unwrap() > 0, "{received}");
    }
    if received.contains("transfer-encoding: chunked") {
        while !received.ends_with("\r\n0\r\n") {
            assert!(upstream.read_line(&mut received).unwrap() > 0, "{received}");
        }
        while !received.ends_with("\r\n\r\n") {
            assert!(upstream.read_line(&mut received).unwrap() > 0, "{received}");
        }
    }
    upstream.get_mut().write_all(answer.as_bytes()).unwrap();
    drop(upstream);
    client.shutdown(Shutdown::Write).unwrap();
    let mut got = String::new();
    client.read_to_string(&mut got).unwrap();
    (received, got)
}

#[test]
fn what_belongs_to_a_hop_ends_there_and_the_target_names_the_host() {
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = before(&origin.local_addr().unwrap().to_string());
    let request = "POST http://shop.example/a HTTP/1.1\r\nHost: other.example\r\nConnection: close, X-One\r\nX-One: 1\r\n\
                   Keep-Alive: 5\r\nProxy-Connection: close\r\nTE: trailers, deflate\r\nX-Forwarded-For: 6.6.6.6\r\n\
                   Transfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n\
                   1\r\nx\r\n0\r\nx-sum: 1\r\nHost: evil.example\r\nAuthorization: root\r\n\r\n";
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nConnection: X-Two\r\nX-Two: 2\r\nKeep-Alive: 5\r\nProxy-Connection: close\r\nUpgrade: h2c\r\nx-three: 3\r\n\r\nok";
    let (received, got) = pass(&gateway, &origin, request, answer);
    assert!(received.starts_with("POST /a HTTP/1.1\r\n"), "{received}");
    for line in [
        "host: shop.example",
        "via: 1.1 wayside",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-host: shop.example",
        "x-forwarded-proto: http",
        "x-sum: 1",
    ] {
        assert!(received.contains(&format!("{line}\r\n")), "{line}: {received}");
    }
    for gone in ["other", "x-one", "keep-alive", "proxy-connection", "deflate", "6.6.6.6", "evil", "root"] {
        assert!(!received.to_ascii_lowercase().contains(gone), "{gone}: {received}");
    }
    assert!(got.contains("x-three: 3\r\n") && got.ends_with("\r\n\r\nok"), "{got}");
    for gone in ["x-two", "keep-alive", "proxy-connection", "upgrade"] {
        assert!(!got.to_ascii_lowercase().contains(gone), "{gone}: {got}");
    }
}

#[test]
fn a_request_about_the_gateway_is_answered_by_it() {
    let (gateway, served) = start();
    for request in
        ["OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n", "OPTIONS /a HTTP/1.1\r\nhost: a\r\nmax-forwards: 0\r\n\r\n"]
    {
        let answer = send(&gateway, request.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 204 ") && answer.contains("allow: GET, "), "{answer}");
    }
    for method in ["TRACE", "CONNECT"] {
        let target = if method == "CONNECT" { "a:80" } else { "/" };
        let answer = send(&gateway, format!("{method} {target} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("allow: GET, "), "{answer}");
    }
    assert_eq!(*served.lock().unwrap(), [""; 0]);
    assert!(
        send(&gateway, b"OPTIONS /a HTTP/1.1\r\nhost: a\r\nmax-forwards: 1\r\n\r\n").ends_with("OPTIONS /a HTTP/1.1")
    );
}
