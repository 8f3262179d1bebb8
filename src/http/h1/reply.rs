//! The head of an endpoint's response (RFC 9112 §4): what it says, how long the body is, and whether the connection can be
//! used again. Endpoints are given some licence that clients are not: a line may end with a line feed alone, and empty
//! lines may come first.

use super::line::{decimal, field, status_line};
use crate::http::fields::{Extent, FieldLine, Fields, USUAL};
use crate::http::headers::{is_good_response, names_in_connection};
use crate::http::malformed::Malformed;
use http::{Method, StatusCode};

/// What a response's head may be.
#[derive(Debug, Clone, Copy)]
pub struct Most {
    /// Bytes, of trailers as well.
    pub bytes: usize,
    /// Lines.
    pub headers: usize,
}

/// A response's head.
#[derive(Debug)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its lines.
    pub headers: Fields,
    /// How its body ends.
    pub length: Length,
    /// The endpoint takes another request afterwards.
    pub keeps: bool,
    /// Bytes of the head.
    pub bytes: usize,
}

/// How a body ends (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// After so many bytes.
    Bytes(u64),
    /// With the last chunk.
    Chunked,
    /// With the connection.
    UntilClose,
}

/// What is wrong with a response's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Bad {
    /// It is no response of HTTP/1.
    #[error("it is no HTTP/1 response: its first line is no version and status")]
    FirstLine,
    /// A line of it is none.
    #[error("it is no HTTP/1 response: {0}")]
    Line(&'static str),
    /// It is too large.
    #[error("its head is larger than {0} bytes (`gateway.max_response_head_bytes`)")]
    TooLarge(usize),
    /// It has too many headers.
    #[error("it has more than {0} headers (`gateway.max_response_headers`)")]
    TooMany(usize),
    /// It never comes to its end.
    #[error("more than {0} interim responses came before it")]
    Interim(u32),
    /// It can be read in several ways.
    #[error("its lengths contradict each other, or it switches unasked")]
    Contradiction,
}

impl Bad {
    fn of(line: Malformed) -> Self {
        Bad::Line(match line {
            Malformed::Folded => "a header goes on in a second line",
            Malformed::HeaderName => "a header's name has a character that is not allowed, or no colon follows it",
            _ => "a header's value has a character that is not allowed",
        })
    }
}

/// Reads a head that answers a request with this method. None: its end has not come yet.
///
/// # Errors
/// It must not be passed on.
pub fn parse(bytes: &[u8], method: &Method, may_switch: bool, most: Most) -> Result<Option<Reply>, Bad> {
    let Some(read) = read(bytes, most)? else {
        return if bytes.len() >= most.bytes { Err(Bad::TooLarge(most.bytes)) } else { Ok(None) };
    };
    if read.bytes > most.bytes {
        return Err(Bad::TooLarge(most.bytes));
    }
    let (status, old) = (read.status, read.http_10);
    let headers = Fields::of_head(&bytes[..read.bytes], read.lines);
    let chunked = headers.has("transfer-encoding");
    // HTTP/1.0 has no chunks (RFC 9112 §6.1).
    if !is_good_response(status, &headers, may_switch) || chunked && old {
        return Err(Bad::Contradiction);
    }
    let length = length(status, &headers, method, chunked).ok_or(Bad::Contradiction)?;
    let keeps = length != Length::UntilClose && keeps(&headers, old);
    Ok(Some(Reply { status, headers, length, keeps, bytes: read.bytes }))
}

/// A whole head, line by line.
struct Read {
    status: StatusCode,
    http_10: bool,
    lines: Vec<FieldLine>,
    bytes: usize,
}

fn read(bytes: &[u8], most: Most) -> Result<Option<Read>, Bad> {
    let (mut at, mut first, mut lines) = (0, None, Vec::with_capacity(USUAL));
    while let Some(end) = memchr::memchr(b'\n', &bytes[at..]) {
        let line = &bytes[at..at + end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let here = at;
        at += end + 1;
        match (first, line) {
            (None, []) => {}
            (None, line) => first = Some(status_line(line).ok_or(Bad::FirstLine)?),
            (Some((status, http_10)), []) => return Ok(Some(Read { status, http_10, lines, bytes: at })),
            (Some(_), _) if lines.len() == most.headers => return Err(Bad::TooMany(most.headers)),
            (Some(_), line) => {
                let (name, value) = field(line).map_err(Bad::of)?;
                lines.push(FieldLine { name: Extent::of(line, here, name), value: Extent::of(line, here, value) });
            }
        }
    }
    // What does not begin like one is not waited for.
    match (first, bytes.trim_ascii_start()) {
        (None, begun) if !b"HTTP/1.".starts_with(&begun[..begun.len().min(7)]) => Err(Bad::FirstLine),
        _ => Ok(None),
    }
}

/// None: its length is no number.
fn length(status: StatusCode, headers: &Fields, method: &Method, chunked: bool) -> Option<Length> {
    let bare = *method == Method::HEAD
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if bare {
        return Some(Length::Bytes(0));
    }
    if chunked {
        return Some(Length::Chunked);
    }
    match headers.get("content-length") {
        Some(length) => decimal(length).map(Length::Bytes),
        None => Some(Length::UntilClose),
    }
}

/// RFC 9112 §9.3.
fn keeps(headers: &Fields, old: bool) -> bool {
    !names_in_connection(headers, "close") && (!old || names_in_connection(headers, "keep-alive"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MOST: Most = Most { bytes: 1000, headers: 5 };

    fn reply(bytes: &[u8]) -> Result<Option<Reply>, Bad> {
        parse(bytes, &Method::GET, false, MOST)
    }

    #[test]
    fn the_body_ends_as_the_head_says() {
        use Length::{Bytes, Chunked, UntilClose};
        for (head, method, length, keeps) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n", Method::GET, Bytes(5), true),
            ("HTTP/1.1 200\r\ncontent-length: 5\r\nconnection: x, Close\r\n", Method::GET, Bytes(5), false),
            ("HTTP/1.1 200 \r\nTransfer-Encoding: Chunked\r\n", Method::POST, Chunked, true),
            ("HTTP/1.1 200 OK\r\nx: 1\r\n", Method::GET, UntilClose, false),
            ("HTTP/1.0 200 OK\r\ncontent-length: 5\r\n", Method::GET, Bytes(5), false),
            ("HTTP/1.0 200 OK\r\ncontent-length: 5\r\nconnection: Keep-Alive\r\n", Method::GET, Bytes(5), true),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n", Method::HEAD, Bytes(0), true),
            ("HTTP/1.1 204 No\r\ncontent-length: 5\r\n", Method::GET, Bytes(0), true),
            ("HTTP/1.1 304 Not\r\ntransfer-encoding: chunked\r\n", Method::GET, Bytes(0), true),
            ("HTTP/1.1 100 Continue\r\n", Method::GET, Bytes(0), true),
        ] {
            let read = parse(format!("{head}\r\nrest").as_bytes(), &method, false, MOST).unwrap().unwrap();
            assert_eq!((read.length, read.keeps, read.bytes), (length, keeps, head.len() + 2), "{head}");
        }
    }

    #[test]
    fn what_has_two_meanings_is_refused() {
        for head in [
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n",
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n",
            "HTTP/1.1 101 Switching\r\nupgrade: x\r\n",
        ] {
            assert_eq!(reply(format!("{head}\r\n").as_bytes()).unwrap_err(), Bad::Contradiction, "{head}");
        }
        assert!(parse(b"HTTP/1.1 101 Switching\r\n\r\n", &Method::GET, true, MOST).unwrap().is_some());
        for head in ["SSH-2.0-x\r\n\r\n", "HTTP/1.1 20 OK\r\n\r\n", "HTTP/1.1 200 OK\r\na b: c\r\n\r\n"] {
            assert!(matches!(reply(head.as_bytes()), Err(Bad::FirstLine | Bad::Line(_))), "{head}");
        }
    }

    #[test]
    fn heads_have_bounds() {
        let lines = |count| format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: 1\r\n".repeat(count));
        assert!(reply(lines(5).as_bytes()).unwrap().is_some());
        assert_eq!(reply(lines(6).as_bytes()).unwrap_err(), Bad::TooMany(5));
        let many = Most { bytes: 100_000, headers: 1000 };
        let read = |count| parse(lines(count).as_bytes(), &Method::GET, false, many);
        assert_eq!(read(1000).unwrap().unwrap().headers.all("x").count(), 1000);
        assert_eq!(read(1001).unwrap_err(), Bad::TooMany(1000));
        let long = format!("HTTP/1.1 200 OK\r\nx: {}", "x".repeat(1000));
        assert_eq!(reply(long.as_bytes()).unwrap_err(), Bad::TooLarge(1000));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic_and_the_beginning_of_a_head_is_none(bytes: Vec<u8>, cut in 0_usize..60) {
            let _ = reply(&bytes);
            let whole = b"HTTP/1.1 200 OK\r\nserver: x\r\nempty:\r\ncontent-length: 5\r\n\r\n";
            prop_assert!(reply(&whole[..cut.min(whole.len() - 1)]).unwrap().is_none());
            let read = reply(whole).unwrap().unwrap();
            prop_assert_eq!(read.headers.get("server"), Some(&b"x"[..]));
            prop_assert_eq!(read.headers.get("empty"), Some(&b""[..]));
        }

        #[test]
        fn it_reads_what_another_parser_reads(bytes in nearly_http()) {
            let most = Most { bytes: 10_000, headers: 20 };
            let mut lines = [httparse::EMPTY_HEADER; 20];
            let mut other = httparse::Response::new(&mut lines);
            match (super::read(&bytes, most), other.parse(&bytes)) {
                (Ok(Some(read)), Ok(httparse::Status::Complete(length))) => {
                    prop_assert_eq!((read.bytes, Some(read.status.as_u16())), (length, other.code));
                    prop_assert_eq!(read.http_10, other.version == Some(0));
                    let fields = Fields::of_head(&bytes[..length], read.lines);
                    let theirs = other.headers.iter().map(|line| (line.name.to_ascii_lowercase().into_bytes(), line.value));
                    let ours = fields.iter().map(|(name, value)| (name.to_vec(), value));
                    prop_assert_eq!(ours.collect::<Vec<_>>(), theirs.collect::<Vec<_>>());
                }
                (Ok(None), Ok(httparse::Status::Partial)) | (Err(_), Err(_)) => {}
                // What can no longer become a head is told a little later or earlier, and what nobody means is refused.
                (Ok(None), Err(_)) | (Err(_), Ok(httparse::Status::Partial)) => {}
                (ours, theirs) => prop_assert!(
                    ours.is_err() && bytes.windows(2).any(|two| two[1] == b'\r' || two[0] == b'\r'),
                    "{:?}", theirs
                ),
            }
        }
    }

    fn nearly_http() -> impl Strategy<Value = Vec<u8>> {
        let part = |text: &'static [u8]| Just(text.to_vec());
        let piece = prop_oneof![
            4 => part(b"HTTP/1.1 200 OK\r\n"),
            1 => part(b"HTTP/1.0 404\r\n"),
            1 => part(b"HTTP/1.1 503 \n"),
            4 => part(b"\r\n"),
            2 => part(b"x-a: \tb c \r\n"),
            2 => part(b"Server:nginx\r\n"),
            1 => part(b"empty:\n"),
            1 => part(b"\n"),
            1 => part(b" "),
            1 => prop::collection::vec(any::<u8>(), 0..8),
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }
}
