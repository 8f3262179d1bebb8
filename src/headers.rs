//! Headers on their way through: what ends at this hop, what the gateway adds, what a policy edits.

use crate::policy::HeaderEdit;
use crate::request::Head;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Version};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// What is wrong with a request's head, as far as hyper lets it through.
///
/// # Errors
/// Why it must not be forwarded.
pub fn check(parts: &http::request::Parts) -> Result<(), crate::error::Error> {
    use crate::error::Error::{BadRequest, MethodRefused};
    if parts.method == Method::CONNECT || parts.method == Method::TRACE {
        return Err(MethodRefused);
    }
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (_, Some(_)) => return Err(BadRequest("The request has more than one Host header.")),
        (None, _) if parts.version == Version::HTTP_11 && parts.uri.host().is_none() => {
            return Err(BadRequest("The request has no Host header."));
        }
        _ => {}
    }
    Ok(())
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

/// The headers that go upstream: a copy without what ends here, with what the gateway says about the client.
pub fn for_upstream(head: &Head) -> HeaderMap {
    let mut headers = head.parts.headers.clone();
    let te = headers.get(header::TE);
    let wants_trailers = te.is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    end_hop(&mut headers);
    if wants_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    // No peer is trusted to say who the client is, so what it claims is replaced.
    headers.insert(X_FORWARDED_FOR, head.peer.forwarded_for.clone());
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(head.scheme()));
    match authority(head) {
        Some(host) => headers.insert(X_FORWARDED_HOST, host),
        None => headers.remove(X_FORWARDED_HOST),
    };
    headers
}

/// The authority that the client asked for, as sent: of the target, else of the `Host` header (RFC 9112 §3.2.2).
pub fn authority(head: &Head) -> Option<HeaderValue> {
    match head.parts.uri.authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
        None => head.parts.headers.get(header::HOST).cloned(),
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

/// What `Connection` names, beside what ends at each hop anyway.
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let lines = headers.get_all(header::CONNECTION).into_iter();
    lines
        // Nearly always; these name no header that would have to go.
        .filter(|line| ![&b"keep-alive"[..], b"close", b"Keep-Alive"].contains(&line.as_bytes()))
        .flat_map(|line| line.as_bytes().split(|b| *b == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect()
}

/// Applies a policy's edits in order.
pub fn edit(headers: &mut HeaderMap, edits: &[HeaderEdit]) {
    for edit in edits {
        match edit {
            HeaderEdit::Set(name, value) => {
                headers.insert(name, value.clone());
            }
            HeaderEdit::Append(name, value) => {
                headers.append(name, value.clone());
            }
            HeaderEdit::Remove(name) => {
                headers.remove(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Peer;

    fn head(lines: &[(&str, &str)]) -> std::sync::Arc<Head> {
        let mut request = http::Request::builder().uri("/x");
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        Head::new(request.body(()).unwrap().into_parts().0, Peer::new(([10, 0, 0, 1], 4711).into()))
    }

    #[test]
    fn what_belongs_to_the_connection_ends_here() {
        let head = head(&[
            ("host", "a"),
            ("connection", "close, X-Secret"),
            ("x-secret", "1"),
            ("keep-alive", "5"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("proxy-connection", "close"),
            ("x-forwarded-for", "6.6.6.6"),
            ("accept", "*/*"),
        ]);
        let headers = for_upstream(&head);
        let mut left: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        left.sort();
        assert_eq!(
            left,
            [
                "accept: */*",
                "host: a",
                "te: trailers",
                "x-forwarded-for: 10.0.0.1",
                "x-forwarded-host: a",
                "x-forwarded-proto: http"
            ]
        );
    }

    #[test]
    fn edits_apply_in_order() {
        let name = HeaderName::from_static("x-a");
        let value = HeaderValue::from_static;
        let mut headers = HeaderMap::new();
        edit(
            &mut headers,
            &[
                HeaderEdit::Append(name.clone(), value("1")),
                HeaderEdit::Set(name.clone(), value("2")),
                HeaderEdit::Append(name.clone(), value("3")),
            ],
        );
        assert_eq!(headers.get_all(&name).iter().collect::<Vec<_>>(), ["2", "3"]);
        edit(&mut headers, &[HeaderEdit::Remove(name)]);
        assert!(headers.is_empty());
    }

    #[test]
    fn cookies_are_found_by_exact_name() {
        let lines = [&b"xsid=0; sid=\"a b\";sid=2"[..], b"e=; q=\"; u=\xc3\xa9"];
        let line = |line: &[u8]| (header::COOKIE, HeaderValue::from_bytes(line).unwrap());
        let headers: HeaderMap = lines.into_iter().map(line).collect();
        let cases = [("sid", Some("a b")), ("SID", None), ("e", Some("")), ("q", Some("\"")), ("u", Some("é"))];
        for (name, expected) in cases {
            assert_eq!(cookie(&headers, name).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn a_request_has_one_host() {
        let check = |lines: &[(&str, &str)]| check(&head(lines).parts).map_err(crate::error::Error::code);
        assert_eq!(check(&[("host", "a")]), Ok(()));
        assert_eq!(check(&[]), Err("bad_request"));
        assert_eq!(check(&[("host", "a"), ("host", "a")]), Err("bad_request"));
    }
}
