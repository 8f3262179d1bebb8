//! Who the client is, where other proxies stand before the gateway, and what the upstream is told about it.

use crate::http::request::{Head, Peer};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Is this an address of a proxy whose word is taken?
pub fn is_trusted(trusted: &[IpNet], ip: IpAddr) -> bool {
    trusted.iter().any(|network| network.contains(&ip))
}

/// The client's address: the connection's peer, or, where that is a trusted proxy, the last address of
/// `x-forwarded-for` that is not one. What is left of an address that cannot be read is nobody's word.
pub fn address(headers: &HeaderMap, peer: &Peer, trusted: &[IpNet]) -> IpAddr {
    let mut client = peer.ip;
    if trusted.is_empty() || !is_trusted(trusted, client) {
        return client;
    }
    for line in headers.get_all(X_FORWARDED_FOR).iter().rev() {
        for hop in line.to_str().unwrap_or("").rsplit(',') {
            let Some(ip) = read_address(hop.trim()) else { return client };
            client = ip;
            if !is_trusted(trusted, ip) {
                return client;
            }
        }
    }
    client
}

/// An IP address, or one with a port, as some proxies write it.
fn read_address(text: &str) -> Option<IpAddr> {
    let ip = text.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
    ip.ok().map(|ip| ip.to_canonical())
}

/// Says who the client is. What a trusted proxy said stays, and the proxy is added to it; what anybody else said is
/// replaced.
pub fn introduce(headers: &mut HeaderMap, head: &Head, forwarded: bool) {
    let host = head.parts.headers.get(header::HOST);
    let scheme = HeaderValue::from_static(head.scheme());
    if head.peer_is_trusted {
        // From the head as it came: `Connection` must not take away what it names of these.
        let chain: Vec<&[u8]> = head.parts.headers.get_all(X_FORWARDED_FOR).iter().map(HeaderValue::as_bytes).collect();
        let chain = [chain, vec![head.peer.forwarded_for.as_bytes()]].concat().join(&b", "[..]);
        let chain = HeaderValue::from_bytes(&chain).unwrap_or_else(|_| head.peer.forwarded_for.clone());
        headers.insert(X_FORWARDED_FOR, chain);
        for (name, own) in [(X_FORWARDED_PROTO, Some(&scheme)), (X_FORWARDED_HOST, host)] {
            if let Some(value) = head.parts.headers.get(&name).or(own) {
                headers.insert(name, value.clone());
            }
        }
    } else {
        headers.insert(X_FORWARDED_FOR, head.peer.forwarded_for.clone());
        headers.insert(X_FORWARDED_PROTO, scheme);
        match host {
            Some(host) => headers.insert(X_FORWARDED_HOST, host.clone()),
            None => headers.remove(X_FORWARDED_HOST),
        };
        headers.remove(header::FORWARDED);
    }
    if forwarded && let Ok(element) = HeaderValue::from_str(&element(head)) {
        headers.append(header::FORWARDED, element);
    }
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
