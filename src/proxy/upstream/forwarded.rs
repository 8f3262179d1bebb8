//! What the upstream is told about the client and about the gateway.

use crate::http::headers::{end_hop, wants_trailers};
use crate::http::request::Head;
use crate::http::request::client::X_FORWARDED_FOR;
use crate::http::settings::Gateway;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use std::fmt::Write as _;
use std::net::IpAddr;

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The headers that go upstream: a copy without what ends here, with what the gateway says about the client.
pub fn for_upstream(head: &Head, gateway: &Gateway) -> HeaderMap {
    let mut headers = head.parts.headers.clone();
    let wants_trailers = wants_trailers(&headers);
    end_hop(&mut headers);
    if wants_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    introduce(&mut headers, head, gateway);
    if let Some(via) = gateway.via.as_ref() {
        headers.append(header::VIA, via.of(head.parts.version).clone());
    }
    headers
}

/// Says who the client is. What a trusted proxy said stays, and the proxy is added to it; what anybody else said is
/// replaced or removed.
fn introduce(headers: &mut HeaderMap, head: &Head, gateway: &Gateway) {
    let host = head.parts.headers.get(header::HOST);
    let scheme = HeaderValue::from_static(head.scheme());
    if head.peer_is_trusted {
        // From the head as it came: `Connection` must not take away what it names of these.
        let lines = head.parts.headers.get_all(X_FORWARDED_FOR).iter().map(|line| without_commas(line.as_bytes()));
        let chain: Vec<&[u8]> = lines.filter(|line| !line.is_empty()).collect();
        let chain = [chain, vec![head.peer.forwarded_for.as_bytes()]].concat().join(&b", "[..]);
        let chain = HeaderValue::from_bytes(&chain).unwrap_or_else(|_| head.peer.forwarded_for.clone());
        headers.insert(X_FORWARDED_FOR, chain);
        for (name, own) in [(X_FORWARDED_PROTO, Some(&scheme)), (X_FORWARDED_HOST, host)] {
            if let Some(value) = head.parts.headers.get(&name).or(own) {
                headers.insert(name, value.clone());
            }
        }
    } else {
        gateway.remove_from_untrusted.remove_from(headers);
        headers.insert(X_FORWARDED_FOR, head.peer.forwarded_for.clone());
        headers.insert(X_FORWARDED_PROTO, scheme);
        if let Some(host) = host {
            headers.insert(X_FORWARDED_HOST, host.clone());
        }
    }
    if gateway.forwarded
        && let Ok(element) = HeaderValue::from_str(&element(head))
    {
        headers.append(header::FORWARDED, element);
    }
}

/// The same without empty elements at its ends (RFC 9110 §5.6.1).
fn without_commas(mut list: &[u8]) -> &[u8] {
    while let [b',' | b' ' | b'\t', rest @ ..] | [rest @ .., b',' | b' ' | b'\t'] = list {
        list = rest;
    }
    list
}

/// This hop in `Forwarded` (RFC 7239 §4).
fn element(head: &Head) -> String {
    let mut element = match head.peer.ip {
        IpAddr::V4(ip) => format!("for={ip}"),
        IpAddr::V6(ip) => format!("for=\"[{ip}]\""),
    };
    // A host that was checked has nothing in it that would have to be escaped.
    if let Some(host) = head.parts.headers.get(header::HOST).and_then(|host| host.to_str().ok()) {
        let _ = write!(element, ";host=\"{host}\"");
    }
    let _ = write!(element, ";proto={}", head.scheme());
    element
}

#[cfg(test)]
mod tests;
