//! Who the client is, where other proxies stand before the gateway.

use super::Peer;
use crate::http::fields::Fields;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Whom other proxies have forwarded for.
pub const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// Is this an address of a proxy whose word is taken?
pub fn is_trusted(trusted: &[IpNet], ip: IpAddr) -> bool {
    trusted.iter().any(|network| network.contains(&ip))
}

/// The client's address: the connection's peer, or, where that is a trusted proxy, the last address of
/// `x-forwarded-for` that is not one. What is left of an address that cannot be read is nobody's word.
pub fn address(headers: &Fields, peer: &Peer, trusted: &[IpNet]) -> IpAddr {
    let mut client = peer.ip;
    if trusted.is_empty() || !is_trusted(trusted, client) {
        return client;
    }
    for line in headers.all(X_FORWARDED_FOR).rev() {
        let Ok(line) = std::str::from_utf8(line) else { return client };
        // A list may have empty elements (RFC 9110 §5.6.1.2).
        for hop in line.rsplit(',').map(str::trim).filter(|hop| !hop.is_empty()) {
            let Some(ip) = read_address(hop) else { return client };
            client = ip;
            if !is_trusted(trusted, ip) {
                return client;
            }
        }
    }
    client
}

/// Did the client speak TLS, with the gateway or with the trusted proxy before it? Of several words the last one counts,
/// which is the proxy's own.
pub fn came_over_tls(headers: &Fields, peer: &Peer, peer_is_trusted: bool) -> bool {
    let told = headers.all("x-forwarded-proto").next_back().filter(|_| peer_is_trusted);
    match told.and_then(|line| line.rsplit(|byte| *byte == b',').next()) {
        Some(scheme) => scheme.trim_ascii().eq_ignore_ascii_case(b"https"),
        None => peer.tls,
    }
}

/// An IP address, also with a port, in brackets or in quotes, as some proxies write it.
fn read_address(text: &str) -> Option<IpAddr> {
    let text = inside(text, '"', '"').unwrap_or(text);
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let bracketed = || inside(text, '[', ']')?.parse::<Ipv6Addr>().ok().map(IpAddr::from);
    let ip = text.parse::<IpAddr>().ok().or_else(with_port).or_else(bracketed)?;
    Some(ip.to_canonical())
}

fn inside(text: &str, open: char, close: char) -> Option<&str> {
    text.strip_prefix(open)?.strip_suffix(close)
}
