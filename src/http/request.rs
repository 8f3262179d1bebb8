//! The request's head as every part of the gateway sees it: checked once, path normalised once.

pub mod body;
pub mod check;
pub mod client;

use http::request::Parts;
use http::{HeaderValue, Uri, header};
use ipnet::IpNet;
use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The other end of a client's connection.
#[derive(Debug)]
pub struct Peer {
    /// Where it connected from.
    pub address: SocketAddr,
    /// Its IP address, as IPv4 where it is one mapped to IPv6.
    pub ip: IpAddr,
    /// The same for `x-forwarded-for`: written once, since it goes with every request.
    pub forwarded_for: HeaderValue,
    /// It came over TLS.
    pub tls: bool,
    /// Subject of its verified certificate (RFC 4514), if it has one.
    pub tls_subject: Option<Arc<str>>,
}

impl Peer {
    /// Who connected from there, without TLS.
    pub fn new(address: SocketAddr) -> Arc<Self> {
        Arc::new(Peer::from(address))
    }

    /// Who connected from there over TLS, and who it proved to be.
    pub fn over_tls(address: SocketAddr, subject: Option<Arc<str>>) -> Arc<Self> {
        Arc::new(Peer { tls: true, tls_subject: subject, ..Peer::from(address) })
    }

    fn from(address: SocketAddr) -> Self {
        let ip = address.ip().to_canonical();
        // An IP address is always a good header value.
        let forwarded_for =
            HeaderValue::from_str(&ip.to_string()).unwrap_or_else(|_| HeaderValue::from_static("unknown"));
        Peer { address, ip, forwarded_for, tls: false, tls_subject: None }
    }
}

/// The head of one request. Policies, routes and the upstream see the same path and host through it.
#[derive(Debug)]
pub struct Head {
    /// As hyper parsed it.
    pub parts: Parts,
    /// The other end of the connection.
    pub peer: Arc<Peer>,
    /// That is a proxy whose word about the client is taken.
    pub peer_is_trusted: bool,
    /// The client: the peer, or who a trusted one says it is.
    pub client: IpAddr,
    /// The protocol that the client wants to speak instead (RFC 9110 §7.8).
    pub upgrade: Option<HeaderValue>,
    /// It asked so in HTTP/2's way (RFC 8441), so it is answered with 200.
    pub extended_connect: bool,
    /// The path with its dot segments resolved, where that changed it.
    resolved: Option<String>,
    /// The host in lower case, where that changed it.
    lowered: Option<String>,
}

impl Head {
    /// Takes a parsed head and resolves what every reader needs.
    pub fn new(parts: Parts, peer: Arc<Peer>, trusted_proxies: &[IpNet]) -> Arc<Self> {
        let resolved = match resolve_dots(parts.uri.path()) {
            Cow::Borrowed(_) => None,
            Cow::Owned(path) => Some(path),
        };
        let host = host(&parts);
        let lowered = host.bytes().any(|byte| byte.is_ascii_uppercase()).then(|| host.to_ascii_lowercase());
        let upgrade = check::upgrade(&parts);
        let extended_connect = parts.version == http::Version::HTTP_2 && upgrade.is_some();
        let peer_is_trusted = client::is_trusted(trusted_proxies, peer.ip);
        let client = client::address(&parts.headers, &peer, trusted_proxies);
        Arc::new(Head { parts, peer, peer_is_trusted, client, upgrade, extended_connect, resolved, lowered })
    }

    /// Starts with `/`; without query; dot segments resolved, percent-encoding and case kept. `*` for `OPTIONS *`.
    pub fn path(&self) -> &str {
        self.resolved.as_deref().unwrap_or_else(|| plain_path(&self.parts.uri))
    }

    /// What follows the `?`, as sent.
    pub fn query(&self) -> Option<&str> {
        self.parts.uri.query()
    }

    /// Host of the authority, lower case, without port and user; "" where there is none.
    pub fn host(&self) -> &str {
        self.lowered.as_deref().unwrap_or_else(|| host(&self.parts))
    }

    /// `http` or `https`: how the client reached the gateway.
    pub fn scheme(&self) -> &'static str {
        if self.peer.tls { "https" } else { "http" }
    }

    /// The path differs from what the client sent, so the upstream's target has to be written anew.
    pub fn path_was_resolved(&self) -> bool {
        self.resolved.is_some()
    }
}

/// An absolute-form target without path means `/` (RFC 9112 §3.2.1).
fn plain_path(uri: &Uri) -> &str {
    match uri.path() {
        "" => "/",
        path => path,
    }
}

/// The authority's host as sent: of the target (RFC 9112 §3.2.2 prefers it), else of the `Host` header.
fn host(parts: &Parts) -> &str {
    if let Some(host) = parts.uri.host() {
        return host;
    }
    let value = parts.headers.get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or("");
    let end = match value.strip_prefix('[') {
        // An IPv6 literal keeps its brackets; the port follows them.
        Some(rest) => rest.find(']').map_or(value.len(), |i| i + 2),
        None => value.rfind(':').unwrap_or(value.len()),
    };
    &value[..end]
}

/// Resolves `.` and `..` segments (RFC 3986 §5.2.4), also where their dots are percent-encoded: upstreams decode them,
/// and a route must not be talked around. `/a/..` ends in a slash; `..` above the root stays at the root.
pub(crate) fn resolve_dots(path: &str) -> Cow<'_, str> {
    let dots = |segment: &str| -> usize {
        match segment.len() {
            0 => 0,
            1..=6 => match segment.to_ascii_lowercase().replace("%2e", ".").as_str() {
                "." => 1,
                ".." => 2,
                _ => 0,
            },
            _ => 0,
        }
    };
    // Nearly every path: nothing that could be a dot segment, so nothing is looked at twice.
    let bytes = path.as_bytes();
    let suspicious = bytes.windows(2).any(|pair| pair[0] == b'/' && (pair[1] == b'.' || pair[1] == b'%'));
    if !suspicious || !path.split('/').any(|segment| dots(segment) > 0) {
        return Cow::Borrowed(path);
    }
    let mut kept: Vec<&str> = Vec::new();
    let mut trailing = false;
    for segment in path.split('/').skip(1) {
        trailing = true;
        match dots(segment) {
            0 => {
                kept.push(segment);
                trailing = false;
            }
            1 => {}
            _ => {
                kept.pop();
            }
        }
    }
    let mut resolved = String::with_capacity(path.len());
    for segment in &kept {
        resolved.push('/');
        resolved.push_str(segment);
    }
    if trailing || kept.is_empty() {
        resolved.push('/');
    }
    Cow::Owned(resolved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dot_segments_are_resolved_and_nothing_else_is_touched() {
        let cases = [
            ("/a/b", "/a/b"),
            ("/", "/"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/b/.", "/a/b/"),
            ("/../../a", "/a"),
            ("/..", "/"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/a/.../b", "/a/.../b"),
            ("/a//b", "/a//b"),
            ("/a//../b", "/a/b"),
            ("/%41/.hidden", "/%41/.hidden"),
            ("/a%2fb/..%2fc", "/a%2fb/..%2fc"),
        ];
        for (sent, expected) in cases {
            assert_eq!(resolve_dots(sent), expected, "{sent}");
        }
    }

    #[test]
    fn host_is_lower_case_without_port() {
        let cases =
            [("Shop.Example:8080", "shop.example"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]"), ("a", "a"), ("", "")];
        for (sent, expected) in cases {
            let request = http::Request::builder().header("host", sent).uri("/x").body(()).unwrap();
            let head = Head::new(request.into_parts().0, Peer::new(([127, 0, 0, 1], 1).into()), &[]);
            assert_eq!(head.host(), expected, "{sent}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_resolved_path_has_no_dot_segment_and_stays_the_same(path in "(/(\\.|\\.\\.|%2[eE]|a|b%41|\\.\\.\\.){0,2}){1,8}") {
            let once = resolve_dots(&path).into_owned();
            proptest::prop_assert!(once.starts_with('/'));
            proptest::prop_assert_eq!(resolve_dots(&once), once.as_str());
        }
    }
}
