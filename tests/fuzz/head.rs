//! The scanner: how bytes are cut changes nothing, and a head that passes is the same to another parser.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wayside::http::downstream::scanner::Scanner;

/// Small, so that they are met.
const HEAD_BYTES: usize = 1000;
const HEADERS: usize = 10;

fuzz_target!(|bytes: &[u8]| {
    let whole = scan(bytes, || usize::MAX, |_| ());
    assert_eq!(scan(bytes, || 1, check), whole, "byte by byte");
    // Which pieces, the bytes themselves say: each change of them changes these.
    let mut state = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| mix(hash ^ u64::from(*byte)));
    let piece = || {
        state = mix(state);
        1 + (state >> 33) as usize % 40
    };
    assert_eq!(scan(bytes, piece, |_| ()), whole, "in pieces");
    assert!(whole.0 <= bytes.len());
});

fn mix(hash: u64) -> u64 {
    (hash ^ (hash >> 29)).wrapping_mul(0x0100_0000_01b3)
}

/// How many bytes are good when they come in such pieces, and what is bad after them. Who wishes for another protocol is
/// not given it. Heads are seen one by one where the pieces are single bytes: then no line comes together with others.
fn scan(
    bytes: &[u8],
    mut piece: impl FnMut() -> usize,
    mut see_head: impl FnMut(&[u8]),
) -> (usize, Option<&'static str>) {
    let mut scanner = Scanner::new(HEAD_BYTES, HEADERS);
    let (mut held, mut head, mut good, mut at) = (Vec::new(), Vec::new(), 0, 0);
    while at < bytes.len() {
        let more = piece().min(bytes.len() - at);
        let mut searched = held.len();
        held.extend_from_slice(&bytes[at..at + more]);
        at += more;
        loop {
            let in_body = scanner.is_inside_body();
            let found = scanner.scan(&held, searched);
            let passed: Vec<u8> = held.drain(..found.good).collect();
            good += passed.len();
            if let Some(bad) = found.bad {
                return (good, Some(bad.name()));
            }
            if !in_body {
                head.extend(passed);
                if !scanner.is_inside_head(false) {
                    see_head(&head);
                    head.clear();
                }
            }
            if !scanner.waits() {
                break;
            }
            scanner.goes_on();
            searched = 0;
        }
    }
    (good, None)
}

/// What passed as a head: the same lines to another parser, and never two lengths.
fn check(head: &[u8]) {
    let lines: Vec<&[u8]> =
        head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line)).collect();
    let lines: Vec<&[u8]> = lines.into_iter().filter(|line| !line.is_empty()).collect();
    // The empty line that may come before a request.
    let Some((first, lines)) = lines.split_first() else { return };
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    assert_eq!(parsed.parse(head), Ok(httparse::Status::Complete(head.len())));
    let version = format!("HTTP/1.{}", parsed.version.unwrap());
    let request_line = [parsed.method.unwrap(), parsed.path.unwrap(), &version].join(" ");
    assert_eq!(request_line.as_bytes(), *first);
    assert_eq!(parsed.headers.len(), lines.len());
    let mut lengths = 0;
    for (header, line) in parsed.headers.iter().zip(lines) {
        let colon = line.iter().position(|byte| *byte == b':').unwrap();
        assert_eq!((header.name.as_bytes(), header.value), (&line[..colon], line[colon + 1..].trim_ascii()));
        match header.name.to_ascii_lowercase().as_str() {
            "content-length" => assert!(!header.value.is_empty() && header.value.iter().all(u8::is_ascii_digit)),
            "transfer-encoding" => assert!(header.value.eq_ignore_ascii_case(b"chunked") && version == "HTTP/1.1"),
            _ => continue,
        }
        lengths += 1;
    }
    assert!(lengths <= 1, "{}", head.escape_ascii());
}
