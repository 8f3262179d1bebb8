//! Is a request's head one that may be forwarded? And the one form of it that all readers see.

use crate::http::error::Error;
use crate::http::headers::named_by_connection;
use crate::http::malformed::Malformed;
use crate::http::settings::Gateway;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Version};

/// Checks a request's head, as far as hyper lets it through, and brings it into the one form that routes, policies and
/// the upstream see: `Host` says what the client asked for, and cookies are in one line.
///
/// # Errors
/// Why it must not be forwarded.
pub fn check(parts: &mut Parts, limits: &Gateway) -> Result<(), Error> {
    if parts.version == Version::HTTP_2 {
        // Of HTTP/1 the parser has seen to it.
        if parts.headers.len() > limits.max_headers || list_size(parts) > limits.max_head_bytes {
            return Err(Error::Malformed(Malformed::HeadTooLarge));
        }
        if !parts.uri.path_and_query().is_none_or(|target| target.as_str().is_ascii()) {
            return Err(Error::Malformed(Malformed::Target));
        }
    }
    let extended = parts.extensions.get::<hyper::ext::Protocol>().map(|protocol| protocol.as_str().to_owned());
    if extended.is_some_and(|protocol| protocol.eq_ignore_ascii_case("websocket")) {
        // As it would look in HTTP/1.1, so that policies and routes need to know one way only.
        parts.method = Method::GET;
        parts.headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    } else if parts.method == Method::CONNECT || parts.method == Method::TRACE {
        return Err(Error::MethodRefused);
    }
    let asterisk = parts.uri.path() == "*";
    if asterisk && parts.method != Method::OPTIONS || !asterisk && !parts.uri.path().starts_with('/') {
        return Err(Error::Malformed(Malformed::Target));
    }
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() || host.is_some_and(|host| !is_authority(host.as_bytes())) {
        return Err(Error::Malformed(Malformed::Host));
    }
    let Some(authority) = parts.uri.authority() else {
        return if host.is_some() || parts.version < Version::HTTP_11 {
            Ok(())
        } else {
            Err(Error::Malformed(Malformed::Host))
        };
    };
    let authority = authority.as_str();
    // HTTP/1.1's absolute form wins over `Host` (RFC 9112 §3.2.2); in HTTP/2 the two must agree.
    let agrees = host.is_none_or(|host| host.as_bytes().eq_ignore_ascii_case(authority.as_bytes()));
    if parts.version == Version::HTTP_2 && !agrees {
        return Err(Error::Malformed(Malformed::Authority));
    }
    if !is_authority(authority.as_bytes()) {
        return Err(Error::Malformed(Malformed::Host));
    }
    if host.is_none() || !agrees {
        let host = HeaderValue::from_str(authority).map_err(|_| Error::Malformed(Malformed::Host))?;
        parts.headers.insert(header::HOST, host);
    }
    if parts.version == Version::HTTP_2 {
        join_cookies(&mut parts.headers);
    }
    Ok(())
}

/// A head's size as RFC 9113 §6.5.2 counts it.
fn list_size(parts: &Parts) -> usize {
    let pseudo = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    parts.headers.iter().fold(pseudo, |size, (name, value)| size + name.as_str().len() + value.len() + 32)
}

/// A host name, or an IPv4 or bracketed IPv6 address, with or without a port. Stricter than RFC 3986 §3.2: what no
/// client uses in a name (`@` and a user above all) is read differently by different servers.
pub fn is_authority(text: &[u8]) -> bool {
    let (host, port) = match text.iter().rposition(|byte| *byte == b':') {
        Some(at) if !text.ends_with(b"]") => (&text[..at], &text[at + 1..]),
        _ => (text, &b""[..]),
    };
    let inner = match host.strip_prefix(b"[") {
        Some(rest) => {
            rest.strip_suffix(b"]").filter(|ip| ip.iter().all(|b| b.is_ascii_hexdigit() || b":.".contains(b)))
        }
        None => Some(host).filter(|name| name.iter().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(b))),
    };
    inner.is_some_and(|inner| !inner.is_empty()) && port.len() <= 5 && port.iter().all(u8::is_ascii_digit)
}

/// HTTP/2 lets a client send its cookies in several lines; HTTP/1.1 and policies see one (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut lines = headers.get_all(header::COOKIE).iter();
    if let (Some(_), Some(_)) = (lines.next(), lines.next()) {
        let lines: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
        if let Ok(line) = HeaderValue::from_bytes(&lines.join(&b"; "[..])) {
            headers.insert(header::COOKIE, line);
        }
    }
}

/// The protocol that the client wants to speak instead of HTTP. Never another HTTP: through `h2c` a client would reach
/// the service with requests that nobody routes or checks.
pub fn upgrade(parts: &Parts) -> Option<HeaderValue> {
    let mut wanted = parts.headers.get_all(header::UPGRADE).iter();
    let (Some(protocol), None) = (wanted.next(), wanted.next()) else { return None };
    let asked = match parts.version {
        // Only put there by `check`, since HTTP/2 has no such header.
        Version::HTTP_2 => true,
        Version::HTTP_11 => named_by_connection(&parts.headers).contains(&header::UPGRADE),
        _ => false,
    };
    let name = protocol.to_str().ok()?.split('/').next()?.to_ascii_lowercase();
    let is_token = HeaderName::from_bytes(name.as_bytes()).is_ok();
    (asked && is_token && !matches!(name.as_str(), "h2c" | "h2" | "http" | "tls")).then(|| protocol.clone())
}

/// What a request to look at a hop, instead of the service behind it, is answered with: `OPTIONS *`, or `OPTIONS` that
/// may go no further (RFC 9110 §7.6.2, §9.3.7). False: it goes on, one step less far.
pub fn ends_at_this_hop(parts: &mut Parts) -> bool {
    if parts.method != Method::OPTIONS {
        return false;
    }
    let steps = parts.headers.get(header::MAX_FORWARDS).and_then(|steps| steps.to_str().ok()?.parse::<u32>().ok());
    if let Some(less) = steps.and_then(|steps| steps.checked_sub(1)) {
        parts.headers.insert(header::MAX_FORWARDS, less.into());
    }
    parts.uri.path() == "*" || steps == Some(0)
}

#[cfg(test)]
mod tests;
