//! The request's head as every part of the gateway sees it: checked once, path normalised once.

pub mod body;
pub mod check;
pub mod client;
pub mod path;
pub mod target;

use crate::http::error::Error;
use crate::http::fields::Fields;
use crate::http::malformed::Malformed;
use crate::http::settings::Paths;
use http::{HeaderValue, Method, Version};
use ipnet::IpNet;
use path::Path;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use target::Target;

/// The other end of a client's connection.
#[derive(Debug)]
pub struct Peer {
    /// Where it connected from.
    pub address: SocketAddr,
    /// Its IP address, as IPv4 where it is one mapped to IPv6.
    pub ip: IpAddr,
    /// The same for `x-forwarded-for`: written once, since it goes with every request.
    pub forwarded_for: Box<str>,
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
        Peer { address, ip, forwarded_for: ip.to_string().into(), tls: false, tls_subject: None }
    }
}

/// What a request's head says, as it came.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Its method.
    pub method: Method,
    /// What it is for.
    pub target: Target,
    /// HTTP/1.0, HTTP/1.1 or HTTP/2.
    pub version: Version,
    /// Its lines.
    pub headers: Fields,
    /// It asks for a WebSocket in HTTP/2's way (RFC 8441).
    pub websocket: bool,
}

impl From<http::request::Parts> for Parts {
    /// Of what hyper has read.
    fn from(parts: http::request::Parts) -> Self {
        let protocol = parts.extensions.get::<hyper::ext::Protocol>();
        Parts {
            websocket: protocol.is_some_and(|protocol| protocol.as_str().eq_ignore_ascii_case("websocket")),
            target: Target::of(&parts.uri),
            headers: Fields::of_map(&parts.headers),
            method: parts.method,
            version: parts.version,
        }
    }
}

/// The head of one request. Policies, routes and the upstream see the same path and host through it.
#[derive(Debug, Clone)]
pub struct Head {
    /// As it came, in the one form that [`check::check`] gives it.
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
    /// What a token said of who asks, once it was verified.
    pub claims: Option<Arc<serde_json::Map<String, serde_json::Value>>>,
    /// How its path is read.
    pub paths: Paths,
    /// The path as it was read; the kind of what is wrong with it.
    path: Result<Path, Malformed>,
    /// The host in lower case, worked out once: every rule looks at it.
    host: Box<str>,
}

impl Head {
    /// Takes a parsed head and resolves what every reader needs.
    pub fn new(parts: impl Into<Parts>, peer: Arc<Peer>, trusted_proxies: &[IpNet]) -> Arc<Self> {
        Self::with(parts.into(), peer, trusted_proxies, Paths::default())
    }

    /// The same with its path read in this way.
    pub fn with(parts: Parts, peer: Arc<Peer>, trusted_proxies: &[IpNet], paths: Paths) -> Arc<Self> {
        let path = Path::read(parts.target.path(), paths);
        let mut host: Box<str> = host(&parts).into();
        host.make_ascii_lowercase();
        let upgrade = check::upgrade(&parts);
        let extended_connect = parts.version == Version::HTTP_2 && upgrade.is_some();
        let peer_is_trusted = client::is_trusted(trusted_proxies, peer.ip);
        let client = client::address(&parts.headers, &peer, trusted_proxies);
        Arc::new(Head {
            parts,
            peer,
            peer_is_trusted,
            client,
            upgrade,
            extended_connect,
            claims: None,
            paths,
            path,
            host,
        })
    }

    /// Is its path one that must not be forwarded?
    ///
    /// # Errors
    /// Other servers could resolve it differently.
    pub fn check_path(&self) -> Result<(), Error> {
        self.path.as_ref().map(|_| ()).map_err(|malformed| Error::Malformed(*malformed))
    }

    /// Starts with `/`; without query; in normal form (see [`path::normal`]), with its slashes and parameters as sent. `*`
    /// for `OPTIONS *`.
    pub fn path(&self) -> &str {
        let normal = self.path.as_ref().ok().and_then(|path| path.normal.as_deref());
        normal.unwrap_or_else(|| self.parts.target.path())
    }

    /// The path as match rules compare it (see [`path::matched`]).
    pub fn matched_path(&self) -> &[u8] {
        let matched = self.path.as_ref().ok().and_then(|path| path.matched.as_deref());
        matched.unwrap_or_else(|| self.path().as_bytes())
    }

    /// What follows the `?`, as sent.
    pub fn query(&self) -> Option<&str> {
        self.parts.target.query()
    }

    /// Host of the authority, lower case, without port, user and the dot of a full name; "" where there is none.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// `http` or `https`: how the client reached the gateway.
    pub fn scheme(&self) -> &'static str {
        if self.peer.tls { "https" } else { "http" }
    }

    /// The path differs from what the client sent, so the upstream's target has to be written anew.
    pub fn path_was_resolved(&self) -> bool {
        self.path.as_ref().is_ok_and(|path| path.normal.is_some())
    }
}

/// The authority's host as sent: of the target (RFC 9112 §3.2.2 prefers it), else of the `Host` header.
fn host(parts: &Parts) -> &str {
    // What has a user was refused, and is told of all the same.
    let told = parts.target.authority().map(|authority| authority.rsplit_once('@').map_or(authority, |(_, host)| host));
    let value = told.map(str::as_bytes).or_else(|| parts.headers.get("host")).unwrap_or_default();
    let end = match value {
        // An IPv6 literal keeps its brackets; the port follows them.
        [b'[', ..] => memchr::memchr(b']', value).map(|at| at + 1),
        _ => memchr::memrchr(b':', value),
    };
    without_dot(std::str::from_utf8(&value[..end.unwrap_or(value.len())]).unwrap_or(""))
}

/// `shop.example.` is `shop.example`, written to its end (RFC 1034 §3.1).
pub fn without_dot(host: &str) -> &str {
    host.strip_suffix('.').filter(|host| !host.is_empty()).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_is_lower_case_without_port() {
        let cases = [
            ("Shop.Example:8080", "shop.example"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
            ("a", "a"),
            ("", ""),
            ("Shop.Example.", "shop.example"),
            ("shop.example.:8080", "shop.example"),
            ("shop.example..", "shop.example."),
            (".", "."),
        ];
        for (sent, expected) in cases {
            let request = http::Request::builder().header("host", sent).uri("/x").body(()).unwrap();
            let head = Head::new(request.into_parts().0, Peer::new(([127, 0, 0, 1], 1).into()), &[]);
            assert_eq!(head.host(), expected, "{sent}");
        }
        // HTTP/2's authority.
        let request = http::Request::get("https://Shop.Example.:8443/x").body(()).unwrap();
        let head = Head::new(request.into_parts().0, Peer::new(([127, 0, 0, 1], 1).into()), &[]);
        assert_eq!(head.host(), "shop.example");
    }
}
