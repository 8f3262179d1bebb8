//! Headers on their way through: what ends at this hop, and what must not come after a body.

pub mod edit;
pub mod untrusted;
pub mod via;

pub use via::Via;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode, Version};

/// Is a response what it seems to be to everybody? Two ways to say how long it is are one too many (RFC 9112 §6.3), and
/// it switches to another protocol only where that was asked for.
pub fn is_good_response<B>(response: &Response<B>, may_switch: bool) -> bool {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS && !may_switch {
        return false;
    }
    let one = |name| {
        let mut lines = response.headers().get_all(name).iter();
        (lines.next().map(HeaderValue::as_bytes), lines.next().is_none())
    };
    let ((length, one_length), (encoding, one_encoding)) =
        (one(header::CONTENT_LENGTH), one(header::TRANSFER_ENCODING));
    one_length
        && one_encoding
        && match (length, encoding) {
            (Some(length), None) => !length.is_empty() && length.iter().all(u8::is_ascii_digit),
            (None, Some(encoding)) => encoding.eq_ignore_ascii_case(b"chunked"),
            (length, encoding) => length.is_none() && encoding.is_none(),
        }
}

/// Does this header belong to one connection, whether or not `Connection` names it (RFC 9110 §7.6.1)?
fn ends_here(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "transfer-encoding"
            | "upgrade"
            | "proxy-authorization"
    )
}

/// Takes from trailers what must not come after a body: framing, routing, authentication, and what says how to read
/// the message (RFC 9110 §6.5.1). Whoever merges trailers into headers would be told something that was never checked.
pub fn end_trailers(trailers: &mut HeaderMap) {
    let denied = |name: &HeaderName| {
        // Applications that read headers as variables know no difference.
        let name = &*name.as_str().replace('_', "-");
        ["content-", "x-forwarded-", "proxy-", "if-", "accept", "sec-"].iter().any(|start| name.starts_with(start))
            || matches!(
                name,
                "host"
                    | "connection"
                    | "keep-alive"
                    | "te"
                    | "trailer"
                    | "transfer-encoding"
                    | "upgrade"
                    | "forwarded"
                    | "x-real-ip"
                    | "x-original-url"
                    | "x-rewrite-url"
                    | "via"
                    | "max-forwards"
                    | "expect"
                    | "range"
                    | "authorization"
                    | "www-authenticate"
                    | "authentication-info"
                    | "cookie"
                    | "set-cookie"
                    | "age"
                    | "cache-control"
                    | "expires"
                    | "date"
                    | "location"
                    | "retry-after"
                    | "vary"
                    | "warning"
                    | "pragma"
                    | "origin"
                    | "referer"
                    | "traceparent"
                    | "tracestate"
            )
    };
    let end: Vec<HeaderName> = trailers.keys().filter(|name| denied(name)).cloned().collect();
    for name in &end {
        trailers.remove(name);
    }
}

/// The first cookie of this name (RFC 6265 §4.2), outer quotes removed.
pub fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let pairs = headers.get_all(header::COOKIE).into_iter().flat_map(|line| line.as_bytes().split(|b| *b == b';'));
    for pair in pairs {
        let pair = pair.trim_ascii();
        let Some(value) = pair.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"=")) else { continue };
        let inner = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
        return Some(String::from_utf8_lossy(inner.unwrap_or(value)).into_owned());
    }
    None
}

/// Takes away what belongs to one connection, and all that `Connection` names.
pub fn end_hop(headers: &mut HeaderMap) {
    if !headers.keys().any(ends_here) {
        return;
    }
    let end: Vec<HeaderName> = headers.keys().filter(|name| ends_here(name)).cloned().collect();
    for name in named_by_connection(headers).iter().chain(&end) {
        headers.remove(name);
    }
}

/// The client waits with its body until it is asked for it. HTTP/1.0 does not know that (RFC 9110 §10.1.1), and hyper
/// does not ask in HTTP/2.
pub fn expects_continue(version: Version, headers: &HeaderMap) -> bool {
    let expect = headers.get(header::EXPECT);
    version == Version::HTTP_11 && expect.is_some_and(|expect| expect.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Whoever sent these takes trailers (RFC 9110 §10.1.4).
pub fn wants_trailers(headers: &HeaderMap) -> bool {
    headers.get(header::TE).is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"))
}

/// Does `Connection` name this?
pub fn names_in_connection(headers: &HeaderMap, wanted: &str) -> bool {
    let lines = headers.get_all(header::CONNECTION).iter();
    let mut names = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    names.any(|name| name.trim_ascii().eq_ignore_ascii_case(wanted.as_bytes()))
}

/// What `Connection` names, beside what ends at each hop anyway.
pub(crate) fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let lines = headers.get_all(header::CONNECTION).into_iter();
    lines
        // Nearly always; these name no header that would have to go.
        .filter(|line| ![&b"keep-alive"[..], b"close", b"Keep-Alive"].contains(&line.as_bytes()))
        .flat_map(|line| line.as_bytes().split(|b| *b == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect()
}

#[cfg(test)]
mod tests;
