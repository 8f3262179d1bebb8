//! Headers on their way through: what ends at this hop, and what must not come after a body.

pub mod edit;
pub mod untrusted;
pub mod via;

pub use via::Via;

use crate::http::fields::Fields;
use http::header::{HeaderMap, HeaderName};
use http::{StatusCode, Version};

/// Is a response what it seems to be to everybody? Two ways to say how long it is are one too many (RFC 9112 §6.3), and
/// it switches to another protocol only where that was asked for.
pub fn is_good_response(status: StatusCode, headers: &Fields, may_switch: bool) -> bool {
    if status == StatusCode::SWITCHING_PROTOCOLS && !may_switch {
        return false;
    }
    let one = |name| {
        let mut lines = headers.all(name);
        (lines.next(), lines.next().is_none())
    };
    let ((length, one_length), (encoding, one_encoding)) = (one("content-length"), one("transfer-encoding"));
    one_length
        && one_encoding
        && match (length, encoding) {
            (Some(length), None) => !length.is_empty() && length.iter().all(u8::is_ascii_digit),
            (None, Some(encoding)) => encoding.eq_ignore_ascii_case(b"chunked"),
            (length, encoding) => length.is_none() && encoding.is_none(),
        }
}

/// What belongs to one connection, whether or not `Connection` names it (RFC 9110 §7.6.1).
const ENDS_HERE: [&str; 7] =
    ["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade", "proxy-authorization"];

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
pub fn cookie(headers: &Fields, name: &str) -> Option<String> {
    let pairs = headers.all("cookie").flat_map(|line| line.split(|byte| *byte == b';'));
    for pair in pairs {
        let pair = pair.trim_ascii();
        let Some(value) = pair.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"=")) else { continue };
        let inner = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
        return Some(String::from_utf8_lossy(inner.unwrap_or(value)).into_owned());
    }
    None
}

/// Takes away what belongs to one connection, and all that `Connection` names.
pub fn end_hop(headers: &mut Fields) {
    if headers.may_have(&ENDS_HERE) {
        let goes_on = goes_on(headers);
        headers.retain(goes_on);
    }
}

/// Which of these headers do not end at this hop.
pub fn goes_on(headers: &Fields) -> impl Fn(&[u8]) -> bool + use<> {
    // Most heads have none that could.
    let some_end = headers.may_have(&ENDS_HERE);
    let named = if some_end { named_by_connection(headers) } else { Vec::new() };
    move |name| {
        let is_named = || !named.is_empty() && named.binary_search_by(|named| named[..].cmp(name)).is_ok();
        !some_end || !(ENDS_HERE.iter().any(|ends| ends.as_bytes() == name) || is_named())
    }
}

/// The client waits with its body until it is asked for it. HTTP/1.0 does not know that (RFC 9110 §10.1.1), and hyper
/// does not ask in HTTP/2.
pub fn expects_continue(version: Version, headers: &Fields) -> bool {
    let expect = headers.get("expect");
    version == Version::HTTP_11 && expect.is_some_and(|expect| expect.eq_ignore_ascii_case(b"100-continue"))
}

/// Whoever sent these takes trailers (RFC 9110 §10.1.4).
pub fn wants_trailers(headers: &Fields) -> bool {
    headers.get("te").is_some_and(|te| te.eq_ignore_ascii_case(b"trailers"))
}

/// Does `Connection` name this?
pub fn names_in_connection(headers: &Fields, wanted: &str) -> bool {
    headers.all("connection").any(|line| {
        let mut names = line.split(|byte| *byte == b',');
        names.any(|name| name.trim_ascii().eq_ignore_ascii_case(wanted.as_bytes()))
    })
}

/// What `Connection` names, beside what ends at each hop anyway; in order, since a client may name thousands.
fn named_by_connection(headers: &Fields) -> Vec<Vec<u8>> {
    // Nearly always; these name no header that would have to go.
    let lines = headers.all("connection").filter(|line| ![&b"keep-alive"[..], b"close", b"Keep-Alive"].contains(line));
    let names = lines.flat_map(|line| line.split(|byte| *byte == b','));
    let mut named: Vec<_> = names.map(|name| name.trim_ascii().to_ascii_lowercase()).collect();
    named.sort_unstable();
    named
}

#[cfg(test)]
mod tests;
