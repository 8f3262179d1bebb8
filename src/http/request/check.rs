//! Is a request's head one that may be forwarded? And the one form of it that all readers see.

use crate::http::error::Error;
use crate::http::fields::Fields;
use crate::http::headers::names_in_connection;
use crate::http::malformed::Malformed;
use crate::http::request::Parts;
use crate::http::settings::Gateway;
use http::{HeaderName, HeaderValue, Method, Version};

/// Checks a request's head, as far as its parser lets it through, and brings it into the one form that routes, policies and
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
        if !parts.target.as_str().is_ascii() {
            return Err(Error::Malformed(Malformed::Target));
        }
    }
    if parts.websocket {
        // As it would look in HTTP/1.1, so that policies and routes need to know one way only.
        parts.method = Method::GET;
        parts.headers.set("upgrade", b"websocket");
    } else if parts.method == Method::CONNECT || parts.method == Method::TRACE {
        return Err(Error::MethodRefused);
    }
    let path = parts.target.path();
    if !(path.starts_with('/') || path == "*" && parts.method == Method::OPTIONS) {
        return Err(Error::Malformed(Malformed::Target));
    }
    let (host, one) = {
        let mut hosts = parts.headers.all("host");
        (hosts.next(), hosts.next().is_none())
    };
    if !one || host.is_some_and(|host| !is_authority(host)) {
        return Err(Error::Malformed(Malformed::Host));
    }
    let Some(authority) = parts.target.authority() else {
        return if host.is_some() || parts.version < Version::HTTP_11 {
            Ok(())
        } else {
            Err(Error::Malformed(Malformed::Host))
        };
    };
    // HTTP/1.1's absolute form wins over `Host` (RFC 9112 §3.2.2); in HTTP/2 the two must agree.
    let agrees = host.is_none_or(|host| host.eq_ignore_ascii_case(authority.as_bytes()));
    if parts.version == Version::HTTP_2 && !agrees {
        return Err(Error::Malformed(Malformed::Authority));
    }
    if !is_authority(authority.as_bytes()) {
        return Err(Error::Malformed(Malformed::Host));
    }
    if host.is_none() || !agrees {
        parts.headers.set("host", authority.as_bytes());
    }
    if parts.version == Version::HTTP_2 {
        join_cookies(&mut parts.headers);
    }
    Ok(())
}

/// A head's size as RFC 9113 §6.5.2 counts it.
fn list_size(parts: &Parts) -> usize {
    let pseudo = parts.target.as_str().len();
    parts.headers.iter().fold(pseudo, |size, (name, value)| size + name.len() + value.len() + 32)
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
fn join_cookies(headers: &mut Fields) {
    let lines: Vec<&[u8]> = headers.all("cookie").collect();
    if lines.len() > 1 {
        let line = lines.join(&b"; "[..]);
        headers.set("cookie", &line);
    }
}

/// The protocol that the client wants to speak instead of HTTP. Never another HTTP: through `h2c` a client would reach
/// the service with requests that nobody routes or checks.
pub fn upgrade(parts: &Parts) -> Option<HeaderValue> {
    let protocol = parts.headers.only("upgrade")?;
    let asked = match parts.version {
        // Only put there by `check`, since HTTP/2 has no such header.
        Version::HTTP_2 => true,
        Version::HTTP_11 => names_in_connection(&parts.headers, "upgrade"),
        _ => false,
    };
    let name = std::str::from_utf8(protocol).ok()?.split('/').next()?.to_ascii_lowercase();
    let is_token = HeaderName::from_bytes(name.as_bytes()).is_ok();
    let passes = asked && is_token && !matches!(name.as_str(), "h2c" | "h2" | "http" | "tls");
    HeaderValue::from_bytes(protocol).ok().filter(|_| passes)
}

/// What a request to look at a hop, instead of the service behind it, is answered with: `OPTIONS *`, or `OPTIONS` that
/// may go no further (RFC 9110 §7.6.2, §9.3.7). False: it goes on, one step less far.
pub fn ends_at_this_hop(parts: &mut Parts) -> bool {
    if parts.method != Method::OPTIONS {
        return false;
    }
    let steps = parts.headers.get("max-forwards");
    let steps = steps.and_then(|steps| std::str::from_utf8(steps).ok()?.parse::<u32>().ok());
    if let Some(less) = steps.and_then(|steps| steps.checked_sub(1)) {
        parts.headers.set("max-forwards", less.to_string().as_bytes());
    }
    parts.target.path() == "*" || steps == Some(0)
}

#[cfg(test)]
mod tests;
