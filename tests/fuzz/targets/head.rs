//! The scanner under HTTP/1: however bytes are cut, the verdict is the same, and what passes has one meaning, which is
//! also what hyper's parser reads.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wayside::listener::Scanner;

const HEAD_BYTES: usize = 8192;
const HEADERS: usize = 50;

/// What passes of bytes that come in pieces, and whether the rest was refused.
fn pass(bytes: &[u8], size: usize) -> (Vec<u8>, bool, bool) {
    let mut scanner = Scanner::new(HEAD_BYTES, HEADERS);
    let (mut passed, mut held) = (Vec::new(), Vec::new());
    for piece in bytes.chunks(size.max(1)) {
        let searched = held.len();
        held.extend_from_slice(piece);
        let found = scanner.scan(&held, searched);
        passed.extend(held.drain(..found.good));
        if found.bad.is_some() || scanner.waits() {
            return (passed, found.bad.is_some(), scanner.waits());
        }
    }
    (passed, false, false)
}

/// Reads what passed as requests, one after the other.
fn read(mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let Ok(httparse::Status::Complete(head)) = request.parse(bytes) else {
            // Unfinished, which is no request to anybody; anything else would be an error.
            assert!(request.parse(bytes).is_ok(), "passed, but not read");
            return;
        };
        let values = |name: &str| {
            let headers = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
            headers.map(|header| header.value).collect::<Vec<_>>()
        };
        let (lengths, encodings) = (values("content-length"), values("transfer-encoding"));
        assert!(lengths.len() + encodings.len() <= 1, "two lengths");
        assert!(encodings.iter().all(|value| value.eq_ignore_ascii_case(b"chunked")));
        let wish = !values("upgrade").is_empty();
        bytes = &bytes[head..];
        if let [length] = lengths[..] {
            let length: u64 = std::str::from_utf8(length).unwrap().parse().unwrap();
            bytes = &bytes[usize::try_from(length).unwrap_or(usize::MAX).min(bytes.len())..];
        }
        while !encodings.is_empty() {
            let Ok(httparse::Status::Complete((line, size))) = httparse::parse_chunk_size(bytes) else {
                assert!(httparse::parse_chunk_size(bytes).is_ok(), "a chunk passed, but not read");
                return;
            };
            bytes = &bytes[line..];
            if size == 0 {
                // Trailers: lines up to an empty one.
                loop {
                    let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") else { return };
                    bytes = &bytes[end + 2..];
                    if end == 0 {
                        break;
                    }
                }
                break;
            }
            let Some(rest) = usize::try_from(size).ok().and_then(|size| bytes.get(size..)) else { return };
            assert!(rest.len() < 2 || rest.starts_with(b"\r\n"), "a chunk goes on past its size");
            bytes = rest.get(2..).unwrap_or_default();
        }
        if wish {
            return;
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((size, bytes)) = input.split_first() else { return };
    let whole = pass(bytes, bytes.len());
    assert_eq!(whole, pass(bytes, usize::from(*size)), "it matters how bytes are cut");
    read(&whole.0);
});
