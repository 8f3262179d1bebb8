//! HTTP/2 to the letter: frames in, frames out. What another parser could read differently is refused, and what makes
//! work for nothing is cut off.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on must fail")]

use crate::support::program::{Program, until};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A gateway before an origin, and the first lines of what that was sent. It answers nothing to `/held`.
fn start() -> (Program, Arc<Mutex<Vec<String>>>) {
    with_keys("")
}

fn with_keys(keys: &str) -> (Program, Arc<Mutex<Vec<String>>>) {
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = origin.local_addr().unwrap();
    let served = Arc::<Mutex<Vec<String>>>::default();
    let lines = Arc::clone(&served);
    std::thread::spawn(move || {
        for stream in origin.incoming() {
            let lines = Arc::clone(&lines);
            std::thread::spawn(move || serve(BufReader::new(stream.unwrap()), &lines));
        }
    });
    (Program::before(address, &format!("{keys}max_head_bytes = 8192\nmax_headers = 50"), ""), served)
}

fn serve(mut stream: BufReader<TcpStream>, lines: &Mutex<Vec<String>>) -> Option<()> {
    loop {
        let (mut first, mut line) = (String::new(), String::new());
        stream.read_line(&mut first).ok().filter(|read| *read > 0)?;
        while stream.read_line(&mut line).ok()? > 2 {
            line.clear();
        }
        lines.lock().unwrap().push(first.trim().to_owned());
        if first.contains("/held") {
            std::io::copy(&mut stream, &mut std::io::sink()).ok()?;
            return None;
        }
        if first.contains("/half") {
            stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf").ok()?;
            return None;
        }
        stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").ok()?;
    }
}

/// A frame that came.
#[derive(Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(gateway: &Program) -> Self {
        let stream = TcpStream::connect(&gateway.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut client = Client(BufReader::new(stream));
        client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        client.send(&frame(SETTINGS, 0, 0, b"")).unwrap();
        client
    }

    fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.get_mut().write_all(bytes)
    }

    /// The next frame; none: the connection has ended.
    fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).ok()?;
        let [a, b, c, kind, flags, s1, s2, s3, s4] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.0.read_exact(&mut payload).ok()?;
        Some(Frame { kind, flags, stream: u32::from_be_bytes([s1, s2, s3, s4]), payload })
    }

    /// The next frame of this kind; none: the connection has ended.
    fn next_of(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.next()?;
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }

    /// All that was sent has been read.
    fn ping(&mut self) -> Option<()> {
        self.send(&frame(PING, 0, 0, b"12345678")).ok()?;
        self.next_of(PING).map(drop)
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A header block (RFC 7541 §6.2.2), each line a literal.
fn block(lines: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in lines {
        block.push(0);
        for text in [name, value] {
            // Lengths above 126 go on in a second byte and further ones (RFC 7541 §5.1).
            match u8::try_from(text.len()) {
                Ok(length @ 0..127) => block.push(length),
                _ => {
                    block.push(127);
                    let mut rest = text.len() - 127;
                    while rest >= 128 {
                        block.push(u8::try_from(rest % 128).unwrap() | 128);
                        rest /= 128;
                    }
                    block.push(u8::try_from(rest).unwrap());
                }
            }
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

const GOOD: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/good")];

fn with(more: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    GOOD.iter().chain(more).copied().collect()
}

/// With another value, or without it.
fn but(name: &str, value: Option<&'static str>) -> Vec<(&'static str, &'static str)> {
    let lines = GOOD.iter().map(|(own, old)| if *own == name { (*own, value) } else { (*own, Some(*old)) });
    lines.filter_map(|(name, value)| Some((name, value?))).collect()
}

#[test]
fn what_has_two_meanings_is_refused_and_no_origin_sees_any_of_it() {
    let (gateway, served) = start();
    for lines in [
        // RFC 9113 §8.2.1: no upper case, no controls, nothing around.
        with(&[("X-Upper", "1")]),
        with(&[("x y", "1")]),
        with(&[("", "1")]),
        with(&[("x", "1\r\nhost: evil")]),
        with(&[("x", "1\0")]),
        with(&[("x:y", "1")]),
        // §8.2.2: what belongs to a connection.
        with(&[("connection", "x")]),
        with(&[("keep-alive", "5")]),
        with(&[("proxy-connection", "close")]),
        with(&[("transfer-encoding", "chunked")]),
        with(&[("upgrade", "websocket")]),
        with(&[("te", "gzip")]),
        // §8.3: pseudo-headers are known, once, first, and complete.
        with(&[(":path", "/twice")]),
        with(&[(":status", "200")]),
        with(&[(":unknown", "1")]),
        with(&[("x", "1"), (":extra", "1")]),
        but(":method", None),
        but(":scheme", None),
        but(":path", None),
        but(":path", Some("")),
        but(":path", Some("no-slash")),
        but(":path", Some("/a b")),
        but(":path", Some("/a\r\nx: 1")),
        but(":path", Some("/é")),
        but(":method", Some("GE T")),
        but(":authority", None),
        but(":authority", Some("u@a")),
        but(":authority", Some("a b")),
        with(&[("host", "other")]),
        // RFC 9110 §8.6.
        with(&[("content-length", "+1")]),
        with(&[("content-length", "1"), ("content-length", "2")]),
        with(&[("content-length", "1")]),
    ] {
        let mut client = Client::connect(&gateway);
        client.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&lines))).unwrap();
        let answer = loop {
            let frame = client.next().expect("an answer");
            if matches!(frame.kind, HEADERS | RST_STREAM | GOAWAY) {
                break frame;
            }
        };
        // 400 is entry 12 of HPACK's static table.
        let refused = if answer.kind == HEADERS { answer.payload[0] == 0x80 | 12 } else { true };
        assert!(refused, "{lines:?}: {answer:?}");
    }
    assert_eq!(*served.lock().unwrap(), [""; 0]);
    // A body that is not as long as it said (RFC 9113 §8.1.1).
    for (length, body) in [("1", &b"ab"[..]), ("3", b"ab")] {
        let mut client = Client::connect(&gateway);
        let lines = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/parts")];
        let lines = lines.into_iter().chain([("content-length", length)]).collect::<Vec<_>>();
        client.send(&frame(HEADERS, END_HEADERS, 1, &block(&lines))).unwrap();
        client.send(&frame(DATA, END_STREAM, 1, body)).unwrap();
        assert!(client.next_of(RST_STREAM).is_some());
    }
    let mut client = Client::connect(&gateway);
    client.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&GOOD))).unwrap();
    assert_eq!(client.next_of(DATA).unwrap().payload, b"ok");
    let whole = served.lock().unwrap().iter().filter(|line| !line.contains("/parts")).cloned().collect::<Vec<_>>();
    assert_eq!(whole, ["GET /good HTTP/1.1"]);
}

#[test]
fn a_stream_of_which_nothing_is_taken_does_not_hold_up_its_endpoint() {
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = Program::before(origin.local_addr().unwrap(), "stall_timeout = \"300ms\"", "");
    let mut client = Client::connect(&gateway);
    // SETTINGS_INITIAL_WINDOW_SIZE.
    client.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).unwrap();
    client.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&GOOD))).unwrap();
    let (mut held, _) = origin.accept().unwrap();
    held.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut head = [0; 4096];
    assert!(held.read(&mut head).unwrap() > 0);
    held.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nsome").unwrap();
    // The connection is closed, long before `timeout`.
    assert!(matches!(held.read(&mut head), Ok(0) | Err(_)));
    // Another stream, of which all is taken.
    client.send(&frame(HEADERS, END_STREAM | END_HEADERS, 3, &block(&GOOD))).unwrap();
    client.send(&frame(WINDOW_UPDATE, 0, 3, &[0, 0, 1, 0])).unwrap();
    let (mut next, _) = origin.accept().unwrap();
    assert!(next.read(&mut head).unwrap() > 0);
    next.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").unwrap();
    assert_eq!(client.next_of(DATA).unwrap().payload, b"ok");
}

#[test]
fn a_body_that_breaks_off_is_a_reset_and_not_an_end() {
    let (gateway, _) = start();
    let mut client = Client::connect(&gateway);
    let half = [GOOD[0], GOOD[1], GOOD[2], (":path", "/half")];
    client.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&half))).unwrap();
    let data = client.next_of(DATA).unwrap();
    assert_eq!((&data.payload[..], data.flags & END_STREAM), (&b"half"[..], 0));
    let end = loop {
        let frame = client.next().unwrap();
        if frame.stream == 1 {
            break frame;
        }
    };
    assert_eq!(end.kind, RST_STREAM, "{end:?}");
    // The connection and its other streams go on.
    client.send(&frame(HEADERS, END_STREAM | END_HEADERS, 3, &block(&GOOD))).unwrap();
    assert_eq!(client.next_of(DATA).unwrap().payload, b"ok");
}

#[test]
fn a_connection_has_so_many_streams_and_no_more() {
    let (gateway, served) = with_keys("max_streams = 4\n");
    let mut client = Client::connect(&gateway);
    let settings = client.next_of(SETTINGS).unwrap().payload;
    // RFC 9113 §6.5.2: SETTINGS_MAX_CONCURRENT_STREAMS is 3.
    let told = settings.chunks(6).find(|setting| setting[..2] == [0, 3]).unwrap();
    assert_eq!(told[2..], [0, 0, 0, 4]);
    let held = block(&[GOOD[0], GOOD[1], GOOD[2], (":path", "/held")]);
    for stream in [1, 3, 5, 7, 9] {
        client.send(&frame(HEADERS, END_STREAM | END_HEADERS, stream, &held)).unwrap();
    }
    let refused = client.next_of(RST_STREAM).unwrap();
    assert_eq!((refused.stream, &refused.payload[..]), (9, &[0, 0, 0, 7][..]));
    until("the others are on their way", || served.lock().unwrap().len() == 4);
    // There is room when one is taken back.
    client.send(&frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])).unwrap();
    client.send(&frame(HEADERS, END_STREAM | END_HEADERS, 11, &block(&GOOD))).unwrap();
    assert_eq!(client.next_of(DATA).unwrap().payload, b"ok");
}

/// Sends until the gateway has enough of it.
fn flood(gateway: &Program, mut next: impl FnMut(u32) -> Vec<u8>) -> bool {
    let mut client = Client::connect(gateway);
    // What is read is no matter, but it must be read.
    let mut reader = client.0.get_ref().try_clone().unwrap();
    let reading = std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
    let cut = (0..200_000).any(|number| client.send(&next(number)).is_err());
    drop(client);
    let _ = reading.join();
    cut
}

#[test]
fn frames_that_carry_nothing_are_cut_off() {
    let (gateway, _) = start();
    let counted = |kind: &str| gateway.metric(&format!("wayside_refused_requests_total{{kind=\"{kind}\"}}")).unwrap();
    // CVE-2019-9512, CVE-2019-9515, CVE-2019-9513, and kinds that nobody knows.
    let floods: [fn(u32) -> Vec<u8>; 4] = [
        |_| frame(PING, 0, 0, b"12345678"),
        |_| frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255]),
        |_| frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]),
        |_| frame(0xbe, 0, 0, b""),
    ];
    for (number, next) in floods.into_iter().enumerate() {
        let before = counted("control_flood");
        assert!(flood(&gateway, next), "{number}");
        until("it is counted", || counted("control_flood") > before);
    }
    // CVE-2024-27316: a head without end, which h2 cuts off. CVE-2019-9518: bodies of nothing.
    let endless = |number| match number {
        0 => frame(HEADERS, END_STREAM, 1, &block(&GOOD)),
        _ => frame(CONTINUATION, 0, 1, &block(&[("x", "1")])),
    };
    assert!(flood(&gateway, endless));
    let empty = |number| match number {
        0 => frame(HEADERS, END_HEADERS, 1, &block(&[(":method", "POST"), GOOD[1], GOOD[2], (":path", "/held")])),
        _ => frame(DATA, 0, 1, b""),
    };
    assert!(flood(&gateway, empty));
    // A client that behaves is served all the while.
    let mut client = Client::connect(&gateway);
    client.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&GOOD))).unwrap();
    assert_eq!(client.next_of(DATA).unwrap().payload, b"ok");
}

#[test]
fn requests_that_are_taken_back_are_bounded() {
    let (gateway, served) = start();
    let held = block(&[GOOD[0], GOOD[1], GOOD[2], (":path", "/held")]);
    let reset = |stream| frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]);
    // CVE-2023-44487, before a request is accepted: h2 cuts it off.
    let rapid = |number: u32| {
        let stream = number * 2 + 1;
        let mut frames = frame(HEADERS, END_STREAM | END_HEADERS, stream, &held);
        frames.extend(reset(stream));
        frames
    };
    assert!(flood(&gateway, rapid));
    // The same once each request has gone on its way.
    let mut client = Client::connect(&gateway);
    let mut taken_back = 0;
    let cut = (0..5000_u32).any(|number| {
        let stream = number * 2 + 1;
        let sent = client.send(&frame(HEADERS, END_STREAM | END_HEADERS, stream, &held)).is_ok();
        taken_back += 1;
        !(sent && client.ping().is_some() && client.send(&reset(stream)).is_ok())
    });
    assert!(cut && taken_back > 400, "{taken_back}");
    let sample = "wayside_refused_requests_total{kind=\"cancel_flood\"}";
    until("it is counted", || gateway.metric(sample) == Some(1.0));
    until("nothing is in flight", || gateway.metric("wayside_exchanges_in_flight") == Some(0.0));
    assert!(served.lock().unwrap().len() <= taken_back + 200);
}

#[test]
fn a_head_has_bounds() {
    let (gateway, _) = start();
    let long: &'static str = Box::leak("x".repeat(5000).into_boxed_str());
    let mut client = Client::connect(&gateway);
    let many = with(&[("x", "1"); 60]);
    for (stream, lines) in [(1, with(&[("a", long), ("b", long)])), (3, many)] {
        client.send(&frame(HEADERS, END_STREAM | END_HEADERS, stream, &block(&lines))).unwrap();
        let answer = client.next_of(DATA).unwrap();
        assert_eq!(answer.stream, stream);
        assert!(String::from_utf8(answer.payload).unwrap().contains("\"head_too_large\""));
    }
    let sample = "wayside_refused_requests_total{kind=\"head_too_large\"}";
    assert_eq!(gateway.metric(sample), Some(2.0));
    // Far too large: h2 resets it, and has no words for it.
    let far = [with(&[("a", long); 5]), with(&[("b", long)])].concat();
    let bytes = block(&far);
    client.send(&frame(HEADERS, END_STREAM, 5, &bytes[..16000])).unwrap();
    client.send(&frame(CONTINUATION, END_HEADERS, 5, &bytes[16000..])).unwrap();
    assert_eq!(client.next_of(RST_STREAM).unwrap().stream, 5);
}

#[test]
fn a_priority_that_makes_no_sense_costs_its_stream_at_most() {
    const FLAG: u8 = 0x20;
    let (gateway, _) = start();
    let on_itself = |stream: u32| [&stream.to_be_bytes()[..], &[15]].concat();
    let held = [GOOD[0], GOOD[1], GOOD[2], (":path", "/held")];
    let with_priority = [on_itself(1), block(&GOOD)].concat();
    let open = frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&held));
    // RFC 7540 §5.3.1: a stream cannot depend on itself. RFC 9113 §5.3.2 wishes priorities of this kind away.
    for (which, frames) in [
        ("of a stream to come", vec![frame(PRIORITY, 0, 1, &on_itself(1))]),
        ("of an open stream", vec![open, frame(PRIORITY, 0, 1, &on_itself(1))]),
        ("in a head", vec![frame(HEADERS, END_STREAM | END_HEADERS | FLAG, 1, &with_priority)]),
    ] {
        let mut client = Client::connect(&gateway);
        client.send(&frames.concat()).unwrap();
        client.send(&frame(HEADERS, END_STREAM | END_HEADERS, 3, &block(&GOOD))).unwrap();
        loop {
            let frame = client.next().expect(which);
            match (frame.kind, frame.stream) {
                (DATA, 3) => break assert_eq!(frame.payload, b"ok", "{which}"),
                (RST_STREAM, 1) => assert_eq!(frame.payload, [0, 0, 0, 1], "{which}: PROTOCOL_ERROR"),
                (RST_STREAM | GOAWAY, _) => panic!("{which}: {frame:?}"),
                _ => {}
            }
        }
    }
    until("nothing is left of them", || gateway.metric("wayside_exchanges_in_flight") == Some(0.0));
}
