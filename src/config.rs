//! The configuration: what `wayside.toml` says, checked as a whole, in types that cannot be wrong.

mod raw;

use crate::discovery::{Lookup, SourceSettings};
use crate::headers::Via;
use crate::route::Match;
use crate::service::Settings;
use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A whole configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file that it came from.
    pub file: PathBuf,
    /// Of its text, and of the files of TLS with endpoints that it names: 12 hex digits.
    pub digest: String,
    /// `[gateway]`.
    pub gateway: Gateway,
    /// `[policies]`; none: no policies.
    pub policies: Option<Policies>,
    /// `[telemetry]`.
    pub telemetry: Telemetry,
    /// `[sources.NAME]`.
    pub sources: BTreeMap<Arc<str>, SourceSettings>,
    /// `[services.NAME]`.
    pub services: BTreeMap<Arc<str>, Declared>,
    /// `[[routes]]`, in file order.
    pub routes: Vec<DeclaredRoute>,
}

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
    /// The gateway's name in `Via`; none: no such header.
    pub via: Option<Via>,
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

/// One listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Where clients connect.
    pub address: SocketAddr,
    /// Connections begin with a header of the PROXY protocol.
    pub proxy_protocol: bool,
    /// None: without TLS.
    pub tls: Option<crate::tls::server::Settings>,
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

/// A declared service.
#[derive(Debug, Clone, PartialEq)]
pub struct Declared {
    /// How it is balanced, timed and retried.
    pub settings: Arc<Settings>,
    /// What its source looks for.
    pub lookup: Lookup,
}

/// A declared route.
#[derive(Debug, Clone)]
pub struct DeclaredRoute {
    /// Its `name`, else what it matches.
    pub name: Arc<str>,
    /// Which requests it takes.
    pub matcher: Match,
    /// Name of the service that it leads to.
    pub service: Arc<str>,
}

/// A configuration that cannot be used: the file, and all that is wrong with it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{}: {problem}", file.display())]
pub struct Error {
    /// The configuration file.
    pub file: PathBuf,
    /// What is wrong, with its key or line, and what to do.
    pub problem: String,
}

/// Settings of a service that only a file source names.
pub fn default_settings(source: &Arc<str>) -> Settings {
    raw::default_settings(source)
}

impl Default for Gateway {
    fn default() -> Self {
        raw::default_gateway()
    }
}

impl Config {
    /// Reads and checks a configuration file. Relative paths in it are relative to its folder.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn read(file: &Path) -> Result<Self, Error> {
        let error = |problem: String| Error { file: file.to_owned(), problem };
        let text = std::fs::read_to_string(file).map_err(|e| error(format!("cannot be read: {e}")))?;
        Self::parse(file, &text)
    }

    /// Checks the text of a configuration file.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn parse(file: &Path, text: &str) -> Result<Self, Error> {
        raw::parse(file, text).map_err(|problem| Error { file: file.to_owned(), problem })
    }

    /// What only a restart can change stays as it is in `running`. Gives the keys of what differed.
    pub fn keep_until_restart(&mut self, running: &Config) -> Vec<&'static str> {
        let mut kept = Vec::new();
        keep(&mut self.gateway.listen, &running.gateway.listen, "gateway.listen", &mut kept);
        keep(&mut self.gateway.admin, &running.gateway.admin, "gateway.admin", &mut kept);
        keep(&mut self.gateway.workers, &running.gateway.workers, "gateway.workers", &mut kept);
        keep(&mut self.telemetry.otlp, &running.telemetry.otlp, "telemetry.otlp", &mut kept);
        kept
    }

    /// What a source shall look up.
    pub fn lookups(&self, source: &str) -> Vec<Lookup> {
        let of_source = self.services.values().filter(|declared| *declared.settings.source == *source);
        of_source.map(|declared| declared.lookup.clone()).collect()
    }

    /// What the gateway waits for before it is ready: each declared service, and each source that names its own.
    pub fn awaited(&self) -> HashSet<(Arc<str>, Option<Arc<str>>)> {
        let declared = self.services.iter().map(|(name, d)| (Arc::clone(&d.settings.source), Some(Arc::clone(name))));
        let naming = self.sources.iter().filter(|(_, settings)| settings.names_services());
        declared.chain(naming.map(|(name, _)| (Arc::clone(name), None))).collect()
    }
}

fn keep<T: Clone + PartialEq>(new: &mut T, running: &T, key: &'static str, kept: &mut Vec<&'static str>) {
    if new != running {
        new.clone_from(running);
        kept.push(key);
    }
}
