//! The head of an endpoint's response: `httparse` reads its lines, and it is told here how long the body is and whether
//! the connection can be used again.

use super::line::map;
use crate::http::headers::{is_good_response, names_in_connection};
use http::header::{self, HeaderMap};
use http::{Method, Response, StatusCode, Version};
use std::mem::MaybeUninit;

/// As many headers are read without an allocation.
const USUAL: usize = 64;

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
    /// Its status, version and headers.
    pub response: Response<()>,
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
    #[error("it is no HTTP/1 response: {0}")]
    Syntax(httparse::Error),
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

/// Reads a head that answers a request with this method. None: its end has not come yet.
///
/// # Errors
/// It must not be passed on.
pub fn parse(bytes: &[u8], method: &Method, may_switch: bool, most: Most) -> Result<Option<Reply>, Bad> {
    let mut few = [MaybeUninit::uninit(); USUAL];
    let parsed = match read(bytes, &mut few[..USUAL.min(most.headers)]) {
        Err(httparse::Error::TooManyHeaders) if most.headers > USUAL => {
            read(bytes, &mut vec![MaybeUninit::uninit(); most.headers])
        }
        parsed => parsed,
    };
    let (response, head) = match parsed {
        Ok(Some(read)) => read,
        Ok(None) if bytes.len() >= most.bytes => return Err(Bad::TooLarge(most.bytes)),
        Ok(None) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Bad::TooMany(most.headers)),
        Err(error) => return Err(Bad::Syntax(error)),
    };
    if head > most.bytes {
        return Err(Bad::TooLarge(most.bytes));
    }
    let old = response.version() == Version::HTTP_10;
    let chunked = response.headers().contains_key(header::TRANSFER_ENCODING);
    // HTTP/1.0 has no chunks (RFC 9112 §6.1).
    if !is_good_response(&response, may_switch) || chunked && old {
        return Err(Bad::Contradiction);
    }
    let length = length(&response, method, chunked).ok_or(Bad::Contradiction)?;
    let keeps = length != Length::UntilClose && keeps(response.headers(), old);
    Ok(Some(Reply { response, length, keeps, bytes: head }))
}

/// The head and how many bytes it has.
fn read<'a>(
    bytes: &'a [u8],
    lines: &mut [MaybeUninit<httparse::Header<'a>>],
) -> Result<Option<(Response<()>, usize)>, httparse::Error> {
    let mut parsed = httparse::Response::new(&mut []);
    let httparse::Status::Complete(head) =
        httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, bytes, lines)?
    else {
        return Ok(None);
    };
    let mut response = Response::new(());
    // A complete head has both.
    *response.status_mut() = StatusCode::from_u16(parsed.code.unwrap_or(0)).map_err(|_| httparse::Error::Status)?;
    *response.version_mut() = if parsed.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    *response.headers_mut() = map(&bytes[..head], parsed.headers)?;
    Ok(Some((response, head)))
}

/// None: its length is no number.
fn length(response: &Response<()>, method: &Method, chunked: bool) -> Option<Length> {
    let status = response.status();
    let bare = *method == Method::HEAD
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if bare {
        return Some(Length::Bytes(0));
    }
    if chunked {
        return Some(Length::Chunked);
    }
    match response.headers().get(header::CONTENT_LENGTH) {
        Some(length) => length.to_str().ok()?.parse().ok().map(Length::Bytes),
        None => Some(Length::UntilClose),
    }
}

/// RFC 9112 §9.3.
fn keeps(headers: &HeaderMap, old: bool) -> bool {
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
            assert!(matches!(reply(head.as_bytes()), Err(Bad::Syntax(_))), "{head}");
        }
    }

    #[test]
    fn heads_have_bounds() {
        let lines = |count| format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: 1\r\n".repeat(count));
        assert!(reply(lines(5).as_bytes()).unwrap().is_some());
        assert_eq!(reply(lines(6).as_bytes()).unwrap_err(), Bad::TooMany(5));
        let many = Most { bytes: 100_000, headers: 1000 };
        let read = |count| parse(lines(count).as_bytes(), &Method::GET, false, many);
        assert_eq!(read(1000).unwrap().unwrap().response.headers().get_all("x").iter().count(), 1000);
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
            prop_assert_eq!(read.response.headers()["server"].as_bytes(), b"x");
            prop_assert_eq!(read.response.headers()["empty"].as_bytes(), b"");
        }
    }
}
