//! A client's bytes: how they are cut changes nothing, and a head that passes is the same to another parser.
#![no_main]

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, Version};
use libfuzzer_sys::fuzz_target;
use wayside::http::h1::flow::Flow;
use wayside::http::h1::head::{Parsed, Parser};
use wayside::http::malformed::Malformed;
use wayside::http::request::target::Target;

/// Small, so that they are met.
const HEAD_BYTES: usize = 1000;
const HEADERS: usize = 10;

fuzz_target!(|bytes: &[u8]| {
    let whole = read(bytes, || usize::MAX);
    assert_eq!(read(bytes, || 1), whole, "byte by byte");
    // Which pieces, the bytes themselves say: each change of them changes these.
    let mut state = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| mix(hash ^ u64::from(*byte)));
    let piece = || {
        state = mix(state);
        1 + (state >> 33) as usize % 40
    };
    assert_eq!(read(bytes, piece), whole, "in pieces");
});

fn mix(hash: u64) -> u64 {
    (hash ^ (hash >> 29)).wrapping_mul(0x0100_0000_01b3)
}

/// What was read of one connection.
#[derive(Debug, Default, PartialEq)]
struct Told {
    /// Each request: its head as text, its content and its trailers.
    requests: Vec<(String, Vec<u8>, Option<HeaderMap>)>,
    bad: Option<Malformed>,
}

/// One request after the other, of bytes that come in such pieces.
fn read(bytes: &[u8], mut piece: impl FnMut() -> usize) -> Told {
    let (mut told, mut held, mut at) = (Told::default(), Vec::new(), 0);
    let (mut parser, mut flow) = (Parser::new(HEAD_BYTES, HEADERS), Flow::Over);
    while at < bytes.len() {
        let more = piece().min(bytes.len() - at);
        held.extend_from_slice(&bytes[at..at + more]);
        at += more;
        if let Err(bad) = advance(&mut held, &mut parser, &mut flow, &mut told) {
            told.bad = Some(bad);
            return told;
        }
    }
    told
}

/// As far as the bytes that are here say something.
fn advance(held: &mut Vec<u8>, parser: &mut Parser, flow: &mut Flow, told: &mut Told) -> Result<(), Malformed> {
    loop {
        if let Some((_, content, trailers)) = told.requests.last_mut() {
            let mut rest = Bytes::from(std::mem::take(held));
            let mut next = || flow.next(&mut rest);
            while let Some(frame) = next()? {
                match frame.into_data() {
                    Ok(data) => content.extend_from_slice(&data),
                    Err(frame) => *trailers = frame.into_trailers().ok(),
                }
            }
            held.extend_from_slice(&rest);
        }
        if !flow.is_over() || held.is_empty() {
            return Ok(());
        }
        let Some(found) = parser.read(held)? else { return Ok(()) };
        check(&held[..found.bytes], &found);
        held.drain(..found.bytes);
        told.requests.push((format!("{:?} {:?}", found.parts, found.body), Vec::new(), None));
        (*parser, *flow) = (Parser::new(HEAD_BYTES, HEADERS), found.body);
    }
}

/// What passed as a head: the same to another parser, and never two lengths.
fn check(head: &[u8], found: &Parsed) {
    let mut lines = [httparse::EMPTY_HEADER; HEADERS];
    let mut other = httparse::Request::new(&mut lines);
    assert_eq!(other.parse(head), Ok(httparse::Status::Complete(head.len())));
    let parts = &found.parts;
    assert_eq!(other.method, Some(parts.method.as_str()));
    assert_eq!(other.path.and_then(|path| path.parse().ok()).map(|uri: Uri| Target::of(&uri)), Some(parts.target.clone()));
    assert_eq!(other.version, Some(u8::from(parts.version == Version::HTTP_11)));
    let (mut headers, mut lengths) = (HeaderMap::new(), 0);
    for line in other.headers.iter() {
        let value = HeaderValue::from_bytes(line.value.trim_ascii()).unwrap();
        headers.append(HeaderName::from_bytes(line.name.as_bytes()).unwrap(), value);
        match line.name.to_ascii_lowercase().as_str() {
            "content-length" => assert!(!line.value.is_empty() && line.value.iter().all(u8::is_ascii_digit)),
            "transfer-encoding" => {
                assert!(line.value.eq_ignore_ascii_case(b"chunked") && parts.version == Version::HTTP_11);
            }
            _ => continue,
        }
        lengths += 1;
    }
    assert_eq!(headers, parts.headers.to_map());
    assert!(lengths <= 1, "{}", head.escape_ascii());
}
