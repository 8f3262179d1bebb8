//! Whatever bytes a client sends, the origin never sees a request that the gateway did not log.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

#[path = "support/program.rs"]
mod program;

use program::{Program, until};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How often each method and path was seen.
type Seen = BTreeMap<String, usize>;

/// Takes each request that its bytes are, as a lenient server would: lines may end in a line feed alone, names are
/// compared without case and whitespace, the last length counts, and chunks win over it.
fn serve(stream: TcpStream, seen: &Mutex<Seen>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut first = Vec::new();
        if stream.read_until(b'\n', &mut first).ok()? == 0 {
            return None;
        }
        let first = String::from_utf8_lossy(&first).trim().to_owned();
        if first.is_empty() {
            continue;
        }
        let mut words = first.split_whitespace();
        let what = format!("{} {}", words.next().unwrap_or(""), words.next().unwrap_or(""));
        *seen.lock().unwrap().entry(what).or_default() += 1;
        let (mut length, mut chunked) = (0_u64, false);
        loop {
            let mut line = Vec::new();
            if stream.read_until(b'\n', &mut line).ok()? == 0 {
                return None;
            }
            let line = String::from_utf8_lossy(&line).to_ascii_lowercase();
            if line.trim().is_empty() {
                break;
            }
            let Some((name, value)) = line.split_once(':') else { continue };
            match name.trim() {
                "content-length" => length = value.trim().trim_start_matches('+').parse().unwrap_or(0),
                "transfer-encoding" => chunked |= value.contains("chunked"),
                _ => {}
            }
        }
        if chunked {
            chunks(&mut stream)?;
        } else {
            std::io::copy(&mut (&mut stream).take(length), &mut std::io::sink()).ok()?;
        }
        stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").ok()?;
    }
}

/// Chunks up to the last one and its trailers.
fn chunks(stream: &mut BufReader<TcpStream>) -> Option<()> {
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        let size = u64::from_str_radix(line.split(';').next().unwrap_or("").trim(), 16).ok()?;
        if size == 0 {
            while !line.trim().is_empty() {
                line.clear();
                stream.read_line(&mut line).ok().filter(|read| *read > 0)?;
            }
            return Some(());
        }
        std::io::copy(&mut stream.take(size + 2), &mut std::io::sink()).ok()?;
    }
}

/// What is likely to be read in two ways.
const PIECES: [&str; 46] = [
    "GET /a HTTP/1.1\r\n",
    "POST /b HTTP/1.1\r\n",
    "GET /c HTTP/1.0\r\n",
    "PUT http://a/d HTTP/1.1\r\n",
    "OPTIONS * HTTP/1.1\r\n",
    "GET /e HTTP/1.1\n",
    "GET /f\r\n",
    "CONNECT a:80 HTTP/1.1\r\n",
    "Host: a\r\n",
    "Host: a\n",
    "Host : a\r\n",
    "Content-Length: 3\r\n",
    "Content-Length: 28\r\n",
    "Content-Length: 0\r\n",
    "Content-Length: +3\r\n",
    "Content-Length: 3, 3\r\n",
    "Content-Length : 3\r\n",
    " Content-Length: 3\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\n",
    "Transfer-Encoding:\tchunked\r\n",
    "Transfer-Encoding : chunked\r\n",
    "Transfer-Encoding: xchunked\r\n",
    "Transfer-Encoding: chunked, identity\r\n",
    "Transfer-Encoding: identity\r\n chunked\r\n",
    "Transfer-Encoding\0: chunked\r\n",
    "X: 1\rTransfer-Encoding: chunked\r\n",
    "Connection: close\r\n",
    "Connection: Content-Length, Transfer-Encoding\r\n",
    "Connection: upgrade\r\nUpgrade: websocket\r\n",
    "Expect: 100-continue\r\n",
    "\r\n",
    "\n",
    "\r",
    "abc",
    "GET /smuggled HTTP/1.1\r\n\r\n",
    "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    "3\r\nabc\r\n",
    "3;a=b\r\nabc\r\n",
    "3\nabc\n",
    "0x3\r\nabc\r\n",
    "3 \r\nabc\r\n",
    "0\r\n\r\n",
    "0\r\nHost: b\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "fffffffffffffffff\r\n",
];

/// Bytes, and where they are cut when they are sent.
fn bytes() -> impl Strategy<Value = (Vec<u8>, Vec<usize>)> {
    let good = prop_oneof![
        Just("GET /a HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        Just("POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc".to_owned()),
        Just("POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".to_owned()),
    ];
    let piece = prop::sample::select(&PIECES[..]).prop_map(str::to_owned);
    let head = (prop::sample::select(&PIECES[..8]), prop::collection::vec(prop::sample::select(&PIECES[8..31]), 0..5))
        .prop_map(|(line, headers)| format!("{line}Host: a\r\n{}\r\n", headers.concat()));
    let text = prop::collection::vec(prop_oneof![2 => good, 3 => head, 3 => piece], 1..8);
    let text = text.prop_map(|pieces| pieces.concat().into_bytes());
    let mutations = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    (text, mutations, prop::collection::vec(1_usize..60, 0..4)).prop_map(|(mut text, mutations, cuts)| {
        for (place, byte) in mutations {
            let place = place.index(text.len());
            text[place] = byte;
        }
        (text, cuts)
    })
}

/// Sends it in these pieces, and reads until the gateway closes.
fn send(gateway: &Program, bytes: &[u8], cuts: &[usize]) {
    let mut stream = TcpStream::connect(&gateway.address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut rest = bytes;
    for cut in cuts {
        let (now, later) = rest.split_at((*cut).min(rest.len()));
        // The gateway may have seen enough.
        let _ = stream.write_all(now);
        rest = later;
    }
    let _ = stream.write_all(rest);
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.read_to_end(&mut Vec::new());
}

#[test]
fn the_origin_sees_no_request_that_was_not_logged() {
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let services = format!("[[services.shop.endpoints]]\naddress = \"{}\"\n", origin.local_addr().unwrap());
    std::fs::write(folder.path().join("services.toml"), services).unwrap();
    let seen = Arc::<Mutex<Seen>>::default();
    let at_origin = Arc::clone(&seen);
    std::thread::spawn(move || {
        for stream in origin.incoming() {
            let seen = Arc::clone(&at_origin);
            std::thread::spawn(move || serve(stream.unwrap(), &seen));
        }
    });
    let config = "head_timeout = \"300ms\"\nstall_timeout = \"300ms\"\n[telemetry]\naccess_log = \"json\"\n\
                  [sources.local]\nkind = \"file\"\npath = \"services.toml\"\n\
                  [services.shop]\nsource = \"local\"\nmax_attempts = 1\nattempt_timeout = \"1s\"\n\
                  [[routes]]\nmatch = { path_prefix = \"/\" }\nservice = \"shop\"\n";
    let gateway = Program::start(folder, config, &[]);
    // Always the same cases.
    let config = Config { cases: 20_000, rng_seed: RngSeed::Fixed(17), failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&bytes(), |(bytes, cuts)| {
            send(&gateway, &bytes, &cuts);
            Ok(())
        })
        .unwrap();
    until("all is over", || gateway.metric("wayside_exchanges_in_flight") == Some(0.0));
    assert_eq!(gateway.metric("wayside_access_log_dropped_total"), Some(0.0));
    let (lines, _) = gateway.stop();
    let mut logged = Seen::new();
    for line in &lines {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        // A request that had to be sent twice is in the log once, with two attempts or on two connections.
        if line["attempts"].as_u64().unwrap() > 0 {
            let what = format!("{} {}", line["method"].as_str().unwrap(), line["path"].as_str().unwrap());
            *logged.entry(what).or_default() += 1;
        }
    }
    let seen = seen.lock().unwrap();
    println!("{} requests were logged, {} were seen", logged.values().sum::<usize>(), seen.values().sum::<usize>());
    // The test is worth something only if much gets through.
    assert!(logged.values().sum::<usize>() > 5000, "{logged:?}");
    for (what, times) in &*seen {
        assert!(logged.get(what).is_some_and(|logged| times <= logged), "{what}: {times} times, logged: {logged:?}");
    }
}
