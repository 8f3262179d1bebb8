//! Lines of a head: what may stand in one, and a map of many.

use crate::http::malformed::Malformed;
use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};

/// `METHOD target HTTP/1.x`: method, target, and whether it is HTTP/1.0.
pub(super) fn request_line(line: &[u8]) -> Result<(&[u8], &[u8], bool), Malformed> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Malformed::RequestLine);
    };
    if !is_token(method) {
        return Err(Malformed::Method);
    }
    if target.len() > LONGEST_TARGET {
        return Err(Malformed::TargetTooLong);
    }
    // What is not simply a path is rare, so a way to read it that costs something will do. Which form fits which method is
    // not a matter of framing.
    let plain = target.starts_with(b"/") && target.iter().all(|byte| is_plain(*byte));
    let good = || target.is_ascii() && !target.contains(&b'#') && http::Uri::try_from(target).is_ok();
    if !plain && !good() {
        return Err(Malformed::Target);
    }
    match version {
        b"HTTP/1.1" => Ok((method, target, false)),
        b"HTTP/1.0" => Ok((method, target, true)),
        // Both are said to be something else.
        version if !target.starts_with(b"/") && !version.starts_with(b"HTTP/") => Err(Malformed::NotHttp),
        _ => Err(Malformed::Version),
    }
}

/// `name: value`, the value without the whitespace around it.
pub(super) fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(Malformed::Folded);
    }
    let colon = memchr::memchr(b':', line).ok_or(Malformed::HeaderName)?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if !is_token(name) {
        return Err(Malformed::HeaderName);
    }
    if !is_text(value) {
        return Err(Malformed::HeaderValue);
    }
    Ok((name, value.trim_ascii()))
}

/// What `Uri` takes.
const LONGEST_TARGET: usize = (u16::MAX - 1) as usize;

/// What `Uri` takes anywhere in a path and its query: more than RFC 3986 allows, since browsers send it.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~') && !matches!(byte, b'#' | b'<' | b'>' | b'"' | b'`')
}

/// No control but a tab. Each byte is looked at, with no way out on the first bad one: many at once, that is faster.
fn is_text(bytes: &[u8]) -> bool {
    !bytes.iter().fold(false, |bad, byte| bad | (*byte < b' ' && *byte != b'\t') | (*byte == 0x7f))
}

/// RFC 9110 §5.6.2.
fn is_token(text: &[u8]) -> bool {
    const TOKEN: [bool; 256] = {
        let mut table = [false; 256];
        let marks = b"!#$%&'*+-.^_`|~";
        let mut at = 0;
        while at < marks.len() {
            table[marks[at] as usize] = true;
            at += 1;
        }
        let mut byte = 0;
        while byte < 128 {
            if (byte as u8).is_ascii_alphanumeric() {
                table[byte] = true;
            }
            byte += 1;
        }
        table
    };
    !text.is_empty() && text.iter().all(|byte| TOKEN[usize::from(*byte)])
}

/// Digits only, no sign, no list.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(text).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok()
}

/// The lines of a head as a map; its values share one copy of the head.
pub(super) fn map(head: &[u8], lines: &[httparse::Header<'_>]) -> Result<HeaderMap, httparse::Error> {
    let whole = Bytes::copy_from_slice(head);
    let mut headers = HeaderMap::with_capacity(lines.len());
    for line in lines {
        let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| httparse::Error::HeaderName)?;
        let from = (line.value.as_ptr() as usize).wrapping_sub(head.as_ptr() as usize);
        let value = match from.checked_add(line.value.len()) {
            Some(to) if from <= to && to <= whole.len() => whole.slice(from..to),
            _ => Bytes::copy_from_slice(line.value),
        };
        headers.append(name, HeaderValue::from_maybe_shared(value).map_err(|_| httparse::Error::HeaderValue)?);
    }
    Ok(headers)
}

/// Trailers: lines up to an empty one.
///
/// # Errors
/// They are no header lines, or too many.
pub(super) fn fields(bytes: &[u8], most: usize) -> Result<HeaderMap, Malformed> {
    let mut lines = vec![httparse::EMPTY_HEADER; most];
    match httparse::parse_headers(bytes, &mut lines) {
        Ok(httparse::Status::Complete((_, lines))) => map(bytes, lines).map_err(|_| Malformed::HeaderValue),
        Ok(httparse::Status::Partial) | Err(httparse::Error::NewLine) => Err(Malformed::BareLineFeed),
        Err(httparse::Error::TooManyHeaders) => Err(Malformed::HeadTooLarge),
        Err(httparse::Error::HeaderName) => Err(Malformed::HeaderName),
        Err(_) => Err(Malformed::HeaderValue),
    }
}
