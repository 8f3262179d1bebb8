//! Whatever bytes a client sends, an origin never sees a request that the gateway did not log.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on must fail")]

use crate::support::gateway::Gateway;
use crate::support::program::Program;
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::{Index, select};
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

/// Connections, each with its own bytes.
const CASES: u32 = 10_000;
/// Of them at a time.
const CLIENTS: usize = 4;

#[test]
fn an_origin_sees_no_request_that_was_not_logged() {
    let origin = Origin::start();
    let gateway = before(&origin.address);
    // Its seed is always the same.
    let mut runner = TestRunner::deterministic();
    let cases: Vec<Case> = (0..CASES).map(|_| case().new_tree(&mut runner).unwrap().current()).collect();
    std::thread::scope(|scope| {
        for first in 0..CLIENTS {
            let numbers = (first..cases.len()).step_by(CLIENTS);
            let (address, cases) = (&gateway.address, &cases);
            scope.spawn(move || numbers.for_each(|number| send(address, &client(number), &cases[number])));
        }
    });
    assert_eq!(gateway.metric("wayside_access_log_dropped_total"), Some(0.0));
    let (lines, _) = gateway.stop();
    let (seen, bad) = origin.stop();

    let mut left: HashMap<Request, i32> = HashMap::new();
    let logged: Vec<serde_json::Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &logged {
        let text = |key: &str| line[key].as_str().unwrap_or("").to_owned();
        *left.entry(Request { client: text("client"), method: text("method"), path: text("path") }).or_default() += 1;
    }
    for request in &seen {
        *left.entry(request.clone()).or_default() -= 1;
    }
    let sent = |client: &str| {
        let number = (0..cases.len()).find(|number| self::client(*number) == client);
        number.map_or_else(|| "by nobody".into(), |number| cases[number].bytes.escape_ascii().to_string())
    };
    let mut wrong: Vec<String> = bad.into_iter().map(|what| format!("no request: {what}")).collect();
    for (request, _) in left.iter().filter(|(_, left)| **left < 0) {
        wrong.push(format!("not logged: {request:?}, sent: {}", sent(&request.client)));
    }
    assert!(wrong.is_empty(), "{} at the origin:\n{}", wrong.len(), wrong.join("\n"));
    // The cases are worth something: many reach the origin, and many do not.
    let refused = logged.iter().filter(|line| line["status"] == 400).count();
    println!("{CASES} connections, {} lines logged, {} requests at the origin", logged.len(), seen.len());
    assert!(seen.len() > CASES as usize / 2 && logged.len() > seen.len() && refused > 0, "{refused} refused");
}

/// A gateway before an origin. A client says by the PROXY protocol which case it is, so that each request at the origin
/// and each line of the log can be traced to its bytes.
fn before(origin: &str) -> Program {
    let gateway = Gateway::with().endpoint(origin).service("max_attempts = 1").telemetry("access_log = \"json\"");
    gateway.listener("{ address = \"127.0.0.1:0\", proxy_protocol = true }").start()
}

/// The address of a case's client.
fn client(number: usize) -> String {
    format!("10.0.{}.{}", number / 256, number % 256)
}

/// Sends a case's bytes and reads until the gateway closes.
fn send(gateway: &str, client: &str, case: &Case) {
    let mut stream = TcpStream::connect(gateway).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "PROXY TCP4 {client} 127.0.0.1 1 2\r\n").unwrap();
    let mut rest = &case.bytes[..];
    for size in case.pieces.iter().cycle() {
        let (piece, more) = rest.split_at(rest.len().min(*size));
        // It may be refused before it has said all.
        if piece.is_empty() || stream.write_all(piece).is_err() {
            break;
        }
        rest = more;
    }
    let _ = stream.shutdown(Shutdown::Write);
    match stream.read_to_end(&mut Vec::new()) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("no end: {}", case.bytes.escape_ascii()),
        Ok(_) | Err(_) => {}
    }
}

/// What one client sends, and how it is cut.
#[derive(Debug)]
struct Case {
    bytes: Vec<u8>,
    pieces: Vec<usize>,
}

/// Requests and pieces of them, some changed here and there.
fn case() -> impl Strategy<Value = Case> {
    let part = prop_oneof![14 => request(), 1 => select(&PIECES[..]).prop_map(<[u8]>::to_vec)];
    let changes = prop_oneof![2 => Just(Vec::new()), 1 => vec(change(), 1..4)];
    let pieces = prop_oneof![vec(1_usize..40, 1..8), Just(vec![usize::MAX])];
    (vec(part, 1..6), changes, pieces).prop_map(|(parts, changes, pieces)| {
        let mut bytes = parts.concat();
        for change in changes {
            change.apply(&mut bytes);
        }
        Case { bytes, pieces }
    })
}

const METHODS: [&str; 7] = ["GET", "GET", "POST", "POST", "PUT", "HEAD", "OPTIONS"];

/// At `/refuse` an origin answers without reading the body, at `/switch` it speaks another protocol.
const TARGETS: [&str; 12] = [
    "/a",
    "/a",
    "/a",
    "/",
    "/b?x=1",
    "/c/../d",
    "/refuse",
    "/switch",
    "http://shop.example/e",
    "http://shop.example",
    "*",
    "/f%0d%0a",
];

/// Lines of a head that say where its body ends, or that could.
const LINES: [&str; 38] = [
    "",
    "",
    "Content-Length: 0\r\n",
    "content-length: 5\r\n",
    "content-length: 05\r\n",
    "content-length: +5\r\n",
    "content-length: 5, 5\r\n",
    "content-length: 5 \t\r\n",
    "content-length:\x0b5\r\n",
    "content-length: 99999999999999999999\r\n",
    "content-length : 5\r\n",
    "content_length: 5\r\n",
    "transfer-encoding: chunked\r\n",
    "Transfer-Encoding:chunked\r\n",
    "transfer-encoding: Chunked\t\r\n",
    "transfer-encoding : chunked\r\n",
    "transfer-encoding: xchunked\r\n",
    "transfer-encoding: gzip, chunked\r\n",
    "transfer-encoding: identity\r\n",
    "transfer-encoding:\r\n chunked\r\n",
    "x: 1\r\n\ttransfer-encoding: chunked\r\n",
    "x: 1\ncontent-length: 5\r\n",
    "x: 1\rcontent-length: 5\r\n",
    "x: \0\r\n",
    "connection: close\r\n",
    "connection: content-length\r\n",
    "connection: transfer-encoding\r\n",
    "connection: host, x-forwarded-for, te\r\n",
    "connection: keep-alive\r\nkeep-alive: 5\r\n",
    "connection: upgrade\r\nupgrade: websocket\r\n",
    "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n",
    "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n",
    "upgrade: websocket\r\n",
    "expect: 100-continue\r\n",
    "expect: 100-continue, x\r\n",
    "trailer: content-length\r\nte: trailers\r\n",
    "x-forwarded-for: 10.0.0.0\r\n",
    "host: b\r\n",
];

/// What could be a body, or what follows it.
const BODIES: [&str; 17] = [
    "",
    "",
    "hello",
    "hell",
    "hello hello",
    "5\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello\r\n0\r\nx-sum: 1\r\nhost: b\r\ncontent-length: 5\r\n\r\n",
    "5;x=y\r\nhello\r\n000\r\n\r\n",
    "5\nhello\n0\n\n",
    "5\r\nhello0\r\n\r\n",
    "5 \r\nhello\r\n0\r\n\r\n",
    "0x5\r\nhello\r\n0\r\n\r\n",
    "-1\r\nhello\r\n0\r\n\r\n",
    "10000000000000005\r\nhello\r\n0\r\n\r\n",
    "5\r\nhel",
    "0\r\n\r\nGET /inner HTTP/1.1\r\nhost: a\r\n\r\n",
    "0\r\nGET /inner HTTP/1.1\r\nhost: a\r\n\r\n",
];

/// What may come instead of a request.
const PIECES: [&[u8]; 9] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"0\r\n\r\n",
    b"GET /short HTTP/1.1\r\nhost: a",
    b"GET /old HTTP/1.0\r\n\r\n",
    b"GET /none\r\n",
    // HTTP/2: alone, and with a request.
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x06\x01\x05\0\0\0\x01\x82\x84\x86\x41\x01a",
];

/// A request: one whose body ends where it says, or one of which that cannot be known.
fn request() -> impl Strategy<Value = Vec<u8>> {
    let first = (select(&METHODS[..]), select(&TARGETS[..]));
    let inner =
        select(&["hello", "GET /inner HTTP/1.1\r\nhost: a\r\n\r\n", "0\r\n\r\nGET /inner HTTP/1.1\r\nhost: a\r\n\r\n"]);
    let framed = (inner, any::<bool>(), vec(select(&LINES[24..]), 0..2)).prop_map(|(body, chunked, mut lines)| {
        let length = body.len();
        let (framing, body) = if chunked {
            ("transfer-encoding: chunked\r\n".to_owned(), format!("{length:x}\r\n{body}\r\n0\r\n\r\n"))
        } else {
            (format!("content-length: {length}\r\n"), body.to_owned())
        };
        lines.push(&framing);
        (lines.concat(), body)
    });
    let loose = (vec(select(&LINES[..]), 0..3), select(&BODIES[..]));
    let loose = loose.prop_map(|(lines, body)| (lines.concat(), body.to_owned()));
    (first, prop_oneof![framed, loose]).prop_map(|((method, target), (lines, body))| {
        format!("{method} {target} HTTP/1.1\r\nhost: a\r\n{lines}\r\n{body}").into_bytes()
    })
}

/// A change of some bytes.
#[derive(Debug, Clone)]
enum Change {
    Cut(Index),
    Take(Index),
    Put(Index, u8),
    Twice(Index, Index),
}

fn change() -> impl Strategy<Value = Change> {
    let byte = prop_oneof![select(&b"\r\n \t:;,0159afAF\0\x0b\x7f\xff"[..]), any::<u8>()];
    prop_oneof![
        1 => any::<Index>().prop_map(Change::Cut),
        3 => any::<Index>().prop_map(Change::Take),
        3 => (any::<Index>(), byte).prop_map(|(at, byte)| Change::Put(at, byte)),
        2 => (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Change::Twice(from, to)),
    ]
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        match self {
            Change::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Change::Take(at) => drop(bytes.remove(at.index(bytes.len()))),
            Change::Put(at, byte) => bytes.insert(at.index(bytes.len()), *byte),
            Change::Twice(from, to) => {
                let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
                bytes.extend_from_within(from.min(to)..from.max(to));
            }
        }
    }
}

/// A request as the origin and the log tell of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Request {
    client: String,
    method: String,
    path: String,
}

/// What an origin was sent: requests, and what is none.
type Seen = (Vec<Request>, Vec<String>);

/// A strict server of HTTP/1.1 that keeps its connections.
struct Origin {
    address: String,
    listener: TcpListener,
    accepting: JoinHandle<Seen>,
}

impl Origin {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let accepted = listener.try_clone().unwrap();
        let accepting = std::thread::spawn(move || {
            let mut serving = Vec::new();
            while let Ok((stream, _)) = accepted.accept() {
                serving.push(std::thread::spawn(move || {
                    stream.set_nonblocking(false).unwrap();
                    stream.set_nodelay(true).unwrap();
                    let mut seen = Vec::new();
                    let bad = serve(BufReader::new(stream), &mut seen).err();
                    // The gateway may end a connection anywhere, but not say what is no HTTP.
                    (seen, bad.filter(|bad| bad.kind() == ErrorKind::InvalidData).map(|bad| bad.to_string()))
                }));
            }
            let served: Vec<_> = serving.into_iter().map(|serving| serving.join().unwrap()).collect();
            let (seen, bad): (Vec<_>, Vec<_>) = served.into_iter().unzip();
            (seen.concat(), bad.into_iter().flatten().collect())
        });
        Origin { address, listener, accepting }
    }

    /// Takes what is queued and reads it to its end. The gateway is gone by now.
    fn stop(self) -> Seen {
        self.listener.set_nonblocking(true).unwrap();
        drop(TcpStream::connect(self.address).unwrap());
        self.accepting.join().unwrap()
    }
}

type Stream = BufReader<TcpStream>;

/// Ends with the connection, in an error where that is not between two requests.
fn serve(mut stream: Stream, seen: &mut Vec<Request>) -> std::io::Result<()> {
    while !stream.fill_buf()?.is_empty() {
        let first = line(&mut stream)?;
        let mut parts = first.split(' ');
        let (Some(method), Some(target), Some("HTTP/1.1"), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(bad("request line", &first));
        };
        let mut headers: HashMap<String, String> = HashMap::new();
        loop {
            let line = line(&mut stream)?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| bad("header", &line))?;
            let name = name.to_ascii_lowercase();
            let once = ["host", "content-length", "transfer-encoding", "x-forwarded-for"].contains(&&*name);
            if headers.insert(name, value.trim().to_owned()).is_some() && once {
                return Err(bad("twice", &line));
            }
        }
        let header = |name: &str| headers.get(name).map_or("", |value| value);
        let path = target.split('?').next().unwrap_or("").to_owned();
        let client = header("x-forwarded-for").to_owned();
        seen.push(Request { client, method: method.to_owned(), path: path.clone() });

        if path == "/switch" && header("connection").eq_ignore_ascii_case("upgrade") {
            stream.get_mut().write_all(b"HTTP/1.1 101 \r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")?;
            return stream.read_to_end(&mut Vec::new()).map(|_| ());
        }
        if path == "/refuse" {
            return stream.get_mut().write_all(b"HTTP/1.1 417 \r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
        if headers.contains_key("expect") {
            stream.get_mut().write_all(b"HTTP/1.1 100 \r\n\r\n")?;
        }
        match (header("content-length"), header("transfer-encoding")) {
            ("", "") => {}
            ("", "chunked") => chunks(&mut stream)?,
            (length, "") => skip(&mut stream, length.parse().map_err(|_| bad("length", length))?)?,
            (length, encoding) => return Err(bad("lengths", &format!("{length} and {encoding}"))),
        }
        let body = if method == "HEAD" { "" } else { "ok" };
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{body}");
        stream.get_mut().write_all(answer.as_bytes())?;
    }
    Ok(())
}

fn chunks(stream: &mut Stream) -> std::io::Result<()> {
    loop {
        let size = line(stream)?;
        match u64::from_str_radix(&size, 16).map_err(|_| bad("chunk size", &size))? {
            0 => break,
            bytes => skip(stream, bytes)?,
        }
        let end = line(stream)?;
        if !end.is_empty() {
            return Err(bad("chunk end", &end));
        }
    }
    while !line(stream)?.is_empty() {}
    Ok(())
}

fn skip(stream: &mut Stream, bytes: u64) -> std::io::Result<()> {
    let skipped = std::io::copy(&mut stream.take(bytes), &mut std::io::sink())?;
    if skipped < bytes { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

/// A line without its end.
fn line(stream: &mut Stream) -> std::io::Result<String> {
    let mut line = Vec::new();
    stream.read_until(b'\n', &mut line)?;
    if !line.ends_with(b"\n") {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let text = String::from_utf8_lossy(&line);
    let content = text.strip_suffix("\r\n").filter(|content| !content.contains(['\r', '\0']));
    content.map(str::to_owned).ok_or_else(|| bad("line", &text))
}

fn bad(what: &str, found: &str) -> std::io::Error {
    std::io::Error::new(ErrorKind::InvalidData, format!("{what}: {found:?}"))
}
