//! Settings of the gateway as a whole, as everything below the configuration sees them: checked, in types that cannot be
//! wrong.

use crate::http::headers::Via;
use crate::http::headers::untrusted::Untrusted;
use crate::http::tls::server;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The process as a whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Gateway {
    /// Where clients connect. Needs a restart.
    pub listen: Vec<Listen>,
    /// Where operators connect. Needs a restart.
    pub admin: SocketAddr,
    /// Threads that carry traffic. Needs a restart.
    pub workers: usize,
    /// Its own zone, for zone-aware decisions.
    pub zone: Option<Arc<str>>,
    /// How long a drain waits for what is in flight.
    pub drain_timeout: Duration,
    /// The largest `timeout` that a policy can ask for.
    pub max_timeout: Duration,
    /// The most attempts that a service or policy can ask for.
    pub max_attempts: u32,
    /// Proxies before the gateway, whose word about the client is taken.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// Also say who the client is in `Forwarded` (RFC 7239).
    pub forwarded: bool,
    /// Headers that only a trusted proxy may send.
    pub remove_from_untrusted: Untrusted,
    /// The gateway's name in `Via`; none: no such header.
    pub via: Option<Via>,
    /// What becomes of a path that another server could resolve differently.
    pub paths: Paths,
    /// Times of connections that speak another protocol.
    pub tunnels: Tunnels,
    /// Bounds on downstream connections.
    pub limits: ConnectionLimits,
    /// Upstream connections kept idle, all workers together.
    pub idle_upstream_connections: usize,
    /// How long an upstream connection is kept idle.
    pub upstream_idle_timeout: Duration,
    /// How long an upstream connection is used at most.
    pub upstream_lifetime: Duration,
}

/// What becomes of a path that another server could resolve differently: `gateway.paths`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Paths {
    /// It is refused: one with a dot segment whose neighbour, slash or parameters servers see differently.
    #[default]
    Normal,
    /// So is each one with a backslash, or an escaped slash or backslash, wherever that is.
    Strict,
    /// It is forwarded as it was sent, with its plain dot segments resolved and nothing decoded.
    AsSent,
}

/// One listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Where clients connect.
    pub address: SocketAddr,
    /// Connections begin with a header of the PROXY protocol.
    pub proxy_protocol: bool,
    /// None: without TLS.
    pub tls: Option<server::Settings>,
}

/// Times of connections that were upgraded to another protocol, such as WebSocket.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tunnels {
    /// Without a byte either way.
    pub idle_timeout: Duration,
    /// From the beginning of the drain.
    pub drain_timeout: Duration,
}

/// Bounds on downstream connections. They hold for connections opened after a reload.
#[derive(Debug, Clone, PartialEq)]
pub struct ConnectionLimits {
    /// Open at once, all workers together; one more is closed at once.
    pub connections: usize,
    /// The same of one client, or one /64 of IPv6. Trusted proxies have as many as they like.
    pub connections_per_client: usize,
    /// Requests of one connection, after which it closes.
    pub requests: u64,
    /// From its beginning until it closes after its next request.
    pub lifetime: Duration,
    /// From the first byte of a head (or the connect) to its last.
    pub head_timeout: Duration,
    /// Without a request.
    pub idle_timeout: Duration,
    /// A client that takes no byte of what we have for it, or sends none of the body that it began; in calls of gRPC
    /// it may be silent.
    pub stall_timeout: Duration,
    /// Bytes of a request head.
    pub head_bytes: usize,
    /// Headers of a request.
    pub headers: usize,
    /// Streams at once on one HTTP/2 connection.
    pub streams: u32,
}

/// Where policies come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policies {
    /// The watched directory.
    pub directory: PathBuf,
    /// Where compiled code is kept; must belong to us alone.
    pub cache: PathBuf,
}

/// What is told, and to whom. Read as it is: each field is all that it says.
#[derive(Debug, Clone, Default, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// OTLP endpoint; none: no export. Needs a restart.
    pub otlp: Option<String>,
    /// Share of traces started here that are sampled, 0 to 1, where a caller's decision is followed. None: as
    /// `OTEL_TRACES_SAMPLER` says, else 0.01.
    pub sample: Option<f64>,
    /// Access log on standard output.
    pub access_log: AccessLog,
}

/// Form of the access log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessLog {
    /// None.
    #[default]
    Off,
    /// A line for people.
    Text,
    /// A JSON object a line.
    Json,
}
