//! Who the client is, where other proxies stand before the gateway.

use super::Peer;
use http::header::{HeaderMap, HeaderName};
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};

/// Whom other proxies have forwarded for.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

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
