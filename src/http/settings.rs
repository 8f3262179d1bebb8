//! Settings of the gateway as a whole: what `[gateway]`, `[policies]` and `[telemetry]` of the configuration say. Each key
//! is a field here, with its default and its bounds, and nowhere else.

use crate::base::duration;
use crate::http::h1::reply::Most;
use crate::http::headers::Via;
use crate::http::headers::untrusted::Untrusted;
use crate::http::tls::{Pair, server};
use ipnet::IpNet;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, de::value::MapAccessDeserializer};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The process as a whole. Bounds on downstream connections hold for those that are opened after a reload.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gateway {
    /// Where clients connect. Needs a restart.
    pub listen: Vec<Listen>,
    /// Where operators connect. Needs a restart.
    pub admin: SocketAddr,
    /// Names that the admin may be asked by, beside IP addresses and `localhost`. Needs a restart.
    pub admin_hosts: Vec<String>,
    /// Threads that carry traffic; default: one per core, [`MOST_WORKERS`] at most. Needs a restart.
    pub workers: usize,
    /// Its own zone, for zone-aware decisions.
    pub zone: Option<Arc<str>>,
    /// After SIGTERM, the listeners go on accepting for so long, while readiness is 503 and each response is its
    /// connection's last: whoever sends traffic has so long to notice.
    #[serde(with = "duration")]
    pub drain_delay: Duration,
    /// How long a drain waits for what is in flight.
    #[serde(with = "duration")]
    pub drain_timeout: Duration,
    /// A worker that gets to everything later than this refuses a part of what comes, until it is in time. Zero: it never
    /// does. Not by default: to find out, each worker wakes 100 times a second, and a machine that stands still for a moment
    /// would be taken for one with too much to do.
    #[serde(with = "duration")]
    pub shed_when_late: Duration,
    /// The largest `timeout` that a policy can ask for.
    #[serde(with = "duration")]
    pub max_timeout: Duration,
    /// The most attempts that a service or policy can ask for.
    pub max_attempts: u32,
    /// Proxies before the gateway, whose word about the client is taken.
    #[serde(deserialize_with = "networks")]
    pub trusted_proxies: Vec<IpNet>,
    /// Also say who the client is in `Forwarded` (RFC 7239).
    pub forwarded: bool,
    /// Headers that only a trusted proxy may send.
    pub remove_from_untrusted: Untrusted,
    /// The gateway's name in `Via`; none, written as "": no such header.
    #[serde(deserialize_with = "via")]
    pub via: Option<Via>,
    /// What becomes of a path that another server could resolve differently.
    pub paths: Paths,
    /// Downstream connections open at once, all workers together; one more is closed at once.
    pub max_connections: usize,
    /// The same of one client, or one /64 of IPv6. Trusted proxies have as many as they like.
    pub max_connections_per_client: usize,
    /// Requests of one connection, after which it closes.
    pub max_requests_per_connection: u64,
    /// From a connection's beginning until it closes after its next request.
    #[serde(with = "duration")]
    pub connection_lifetime: Duration,
    /// From the first byte of a head (or the connect) to its last.
    #[serde(with = "duration")]
    pub head_timeout: Duration,
    /// Of a connection without a request.
    #[serde(with = "duration")]
    pub idle_timeout: Duration,
    /// A client that takes no byte of what we have for it, or sends none of the body that it began; in calls of gRPC
    /// it may be silent.
    #[serde(with = "duration")]
    pub stall_timeout: Duration,
    /// Bytes of a request head.
    pub max_head_bytes: usize,
    /// Headers of a request.
    pub max_headers: usize,
    /// Bytes of a response's head, and of its trailers.
    pub max_response_head_bytes: usize,
    /// Headers of a response, and lines of its trailers.
    pub max_response_headers: usize,
    /// Streams at once on one HTTP/2 connection.
    pub max_streams: u32,
    /// Upstream connections kept idle, all workers together.
    pub idle_upstream_connections: usize,
    /// How long an upstream connection is kept idle.
    #[serde(with = "duration")]
    pub upstream_idle_timeout: Duration,
    /// How long an upstream connection is used at most.
    #[serde(with = "duration")]
    pub upstream_lifetime: Duration,
    /// HTTP/2: how long an endpoint may be silent while requests wait, and then may take to answer a PING; zero: for ever.
    #[serde(with = "duration")]
    pub upstream_keepalive: Duration,
    /// Where what registries said last is kept for the next start, and the token of who may change things through the admin;
    /// must belong to us alone. Default: `.wayside` beside the configuration.
    pub state_directory: PathBuf,
    /// Of a connection that speaks another protocol, such as WebSocket, without a byte either way.
    #[serde(with = "duration")]
    pub upgrade_idle_timeout: Duration,
    /// How long such a connection goes on once the drain began.
    #[serde(with = "duration")]
    pub upgrade_drain_timeout: Duration,
}

impl Default for Gateway {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Gateway {
            listen: vec![Listen::at(SocketAddr::from(([127, 0, 0, 1], 8080)))],
            admin: SocketAddr::from(([127, 0, 0, 1], 9901)),
            admin_hosts: Vec::new(),
            workers: cores.min(MOST_WORKERS),
            zone: None,
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(30),
            shed_when_late: Duration::ZERO,
            max_timeout: Duration::from_secs(3600),
            max_attempts: 5,
            trusted_proxies: Vec::new(),
            forwarded: false,
            remove_from_untrusted: Untrusted::default(),
            via: Via::new("wayside"),
            paths: Paths::default(),
            max_connections: 10_000,
            max_connections_per_client: 1000,
            max_requests_per_connection: 100_000,
            connection_lifetime: Duration::from_secs(3600),
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(30),
            max_head_bytes: 64 << 10,
            max_headers: 100,
            max_response_head_bytes: 256 << 10,
            max_response_headers: 256,
            max_streams: 256,
            idle_upstream_connections: 1024,
            // Less than the 60 to 75 s after which most servers close theirs.
            upstream_idle_timeout: Duration::from_secs(45),
            upstream_lifetime: Duration::from_secs(3600),
            // Some servers end connections that are pinged more often.
            upstream_keepalive: Duration::from_secs(5),
            // WebSocket's libraries ping at least every minute or two.
            state_directory: PathBuf::from(".wayside"),
            upgrade_idle_timeout: Duration::from_secs(300),
            upgrade_drain_timeout: Duration::from_secs(5),
        }
    }
}

/// More threads than this carry no more traffic.
pub const MOST_WORKERS: usize = 256;

impl Gateway {
    /// What the head of a response may be.
    pub fn most_of_response(&self) -> Most {
        Most { bytes: self.max_response_head_bytes, headers: self.max_response_headers }
    }

    /// Is every number within its bounds?
    ///
    /// # Errors
    /// The key that is not, and what was expected.
    pub fn check(&self) -> Result<(), String> {
        if self.listen.is_empty() {
            return Err("listen: name at least one address, like [\"127.0.0.1:8080\"]".into());
        }
        let positive = [
            ("head_timeout", self.head_timeout),
            ("idle_timeout", self.idle_timeout),
            ("stall_timeout", self.stall_timeout),
            ("max_timeout", self.max_timeout),
            ("connection_lifetime", self.connection_lifetime),
            ("upstream_lifetime", self.upstream_lifetime),
            ("upgrade_idle_timeout", self.upgrade_idle_timeout),
        ];
        if let Some((key, _)) = positive.into_iter().find(|(_, duration)| duration.is_zero()) {
            return Err(format!("{key}: must be more than 0"));
        }
        let late = self.shed_when_late;
        if !late.is_zero() && !(Duration::from_millis(5)..=Duration::from_secs(10)).contains(&late) {
            return Err("shed_when_late: must be 0s (never), or between 5ms and 10s".into());
        }
        let bounds = [
            ("workers", self.workers as u64, 1, MOST_WORKERS as u64),
            ("max_attempts", self.max_attempts.into(), 1, 100),
            ("max_connections", self.max_connections as u64, 1, 10_000_000),
            ("max_connections_per_client", self.max_connections_per_client as u64, 1, 10_000_000),
            ("max_requests_per_connection", self.max_requests_per_connection, 1, u64::MAX),
            // hyper's smallest buffer is 8 KiB.
            ("max_head_bytes", self.max_head_bytes as u64, 8 << 10, 1 << 20),
            ("max_headers", self.max_headers as u64, 1, 10_000),
            ("max_response_head_bytes", self.max_response_head_bytes as u64, 8 << 10, 1 << 20),
            ("max_response_headers", self.max_response_headers as u64, 1, 10_000),
            ("max_streams", self.max_streams.into(), 1, u64::from(u32::MAX)),
        ];
        match bounds.into_iter().find(|(_, value, low, high)| !(low..=high).contains(&value)) {
            Some((key, value, low, high)) => Err(format!("{key}: {value} is not between {low} and {high}")),
            None => Ok(()),
        }
    }

    /// The same with the files that it names, which are relative to `folder`.
    pub fn at(mut self, folder: &Path) -> Self {
        self.state_directory = folder.join(&self.state_directory);
        for tls in self.listen.iter_mut().filter_map(|listen| listen.tls.as_mut()) {
            tls.certificates = tls.certificates.drain(..).map(|pair| pair.at(folder)).collect();
            tls.client_ca = tls.client_ca.take().map(|file| folder.join(file));
        }
        self
    }
}

/// What becomes of a path that another server could resolve differently: `gateway.paths`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
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

/// One listener: an address, or a table with one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Where clients connect.
    pub address: SocketAddr,
    /// Connections begin with a header of the PROXY protocol.
    pub proxy_protocol: bool,
    /// None: without TLS.
    pub tls: Option<server::Settings>,
}

/// A listener that is more than an address.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListenTable {
    #[serde(deserialize_with = "address")]
    address: SocketAddr,
    #[serde(default)]
    proxy_protocol: bool,
    #[serde(default)]
    certificates: Vec<Pair>,
    client_ca: Option<PathBuf>,
    client_certificates: Option<ClientCertificates>,
}

#[derive(Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "lowercase")]
enum ClientCertificates {
    Required,
    Optional,
}

impl Listen {
    /// A plain one.
    pub fn at(address: SocketAddr) -> Self {
        Listen { address, proxy_protocol: false, tls: None }
    }
}

impl TryFrom<ListenTable> for Listen {
    type Error = &'static str;

    fn try_from(table: ListenTable) -> Result<Self, Self::Error> {
        if table.certificates.is_empty() && (table.client_ca.is_some() || table.client_certificates.is_some()) {
            return Err("`client_ca` and `client_certificates` need `certificates`");
        }
        if table.client_ca.is_none() && table.client_certificates.is_some() {
            return Err("`client_certificates` needs `client_ca`: who says that a client's certificate is good?");
        }
        let tls = (!table.certificates.is_empty()).then_some(server::Settings {
            certificates: table.certificates,
            client_ca: table.client_ca,
            client_required: table.client_certificates != Some(ClientCertificates::Optional),
        });
        Ok(Listen { address: table.address, proxy_protocol: table.proxy_protocol, tls })
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Listen;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address, or a table with one")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Listen, E> {
                read_address(text).map(Listen::at)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Listen, A::Error> {
                let table = ListenTable::deserialize(MapAccessDeserializer::new(map))?;
                Listen::try_from(table).map_err(de::Error::custom)
            }
        }
        from.deserialize_any(Either)
    }
}

fn read_address<E: de::Error>(text: &str) -> Result<SocketAddr, E> {
    text.parse().map_err(|_| E::custom(format!("`{text}` is no address with a port, like `127.0.0.1:8080`")))
}

fn address<'de, D: Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    read_address(&String::deserialize(from)?)
}

fn networks<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
    let read = |text: &String| text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let wrong = |text: &String| de::Error::custom(format!("`{text}` is no network, like `10.0.0.0/8`, and no address"));
    Vec::<String>::deserialize(from)?.iter().map(|text| read(text).map_err(|_| wrong(text))).collect()
}

fn via<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Via>, D::Error> {
    let name = String::deserialize(from)?;
    if name.is_empty() {
        return Ok(None);
    }
    let wrong = || de::Error::custom(format!("`{name}` must be a name of letters, digits, `-`, `.`, `_` and `:`"));
    Via::new(&name).map(Some).ok_or_else(wrong)
}

/// Where policies come from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policies {
    /// The watched directory. Default where `from` is given: one in `gateway.state_directory`.
    #[serde(default)]
    pub directory: PathBuf,
    /// Copy what was pushed there into the directory, like `consul://127.0.0.1:8500/policies`.
    pub from: Option<String>,
    /// Who asks there.
    pub username: Option<String>,
    /// Holds what proves it.
    pub password_file: Option<PathBuf>,
    /// Holds a token (Consul).
    pub token_file: Option<PathBuf>,
    /// Speak TLS there, and trust the authorities in here.
    pub ca: Option<PathBuf>,
    /// Where compiled code and good versions are kept; must belong to us alone. Default: one in `gateway.state_directory`.
    #[serde(default)]
    pub cache: PathBuf,
    /// Policies that may answer at a time.
    #[serde(default = "a_thousand")]
    pub max_versions: NonZeroUsize,
}

impl Policies {
    /// The same with its paths, which are relative to `folder`. `state`: where the gateway keeps what is its own.
    ///
    /// # Errors
    /// Neither a directory nor where to copy one from.
    pub fn at(self, folder: &Path, state: &Path) -> Result<Self, String> {
        let directory = match &self.from {
            _ if !self.directory.as_os_str().is_empty() => folder.join(&self.directory),
            Some(from) => state.join(format!("policies-{}", crate::base::digest::short(from.as_bytes()))),
            None => return Err("`directory` is missing (or `from`, where policies are copied from)".to_owned()),
        };
        let none = self.cache.as_os_str().is_empty();
        // Not in the directory, which may go.
        let cache = if none { state.join("policy-cache") } else { folder.join(&self.cache) };
        let file = |file: Option<PathBuf>| file.map(|file| folder.join(file));
        let (password_file, token_file, ca) = (file(self.password_file), file(self.token_file), file(self.ca));
        Ok(Policies { directory, cache, password_file, token_file, ca, ..self })
    }
}

fn a_thousand() -> NonZeroUsize {
    const { NonZeroUsize::new(1000).unwrap() }
}

/// What is told, and to whom.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
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

impl Telemetry {
    /// Can it be told so?
    ///
    /// # Errors
    /// The key that is wrong, and what was expected.
    pub fn check(&self) -> Result<(), String> {
        if let Some(sample) = self.sample.filter(|sample| !(0.0..=1.0).contains(sample)) {
            return Err(format!("sample: {sample} is not between 0 and 1"));
        }
        self.otlp.as_deref().map_or(Ok(()), check_otlp).map_err(|problem| format!("otlp: {problem}"))
    }
}

/// Form of the access log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
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

/// Is this where spans can go over OTLP?
///
/// # Errors
/// What is wrong, and what to write instead.
pub fn check_otlp(url: &str) -> Result<(), String> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url.trim_start_matches('/')));
    // What may hold a password is not shown.
    let shown = |text: String| if url.contains('@') { None } else { Some(text) };
    let like = "write it like `http://127.0.0.1:4317`".to_owned();
    match scheme {
        "http" | "https" => match url.parse::<http::Uri>() {
            Ok(uri) if uri.host().is_some_and(|host| !host.is_empty()) => Ok(()),
            _ => Err(format!("{} is no URL; {like}", shown(format!("`{url}`")).unwrap_or_else(|| "this".into()))),
        },
        "" => {
            let instead = shown(format!("write `http://{rest}`")).unwrap_or(like);
            Err(format!("{} has no scheme; {instead}", shown(format!("`{url}`")).unwrap_or_else(|| "this".into())))
        }
        _ => {
            let instead = shown(format!("write `http://{rest}` or `https://{rest}`")).unwrap_or(like);
            Err(format!("`{scheme}` is no scheme that spans are sent by; {instead}"))
        }
    }
}

#[cfg(test)]
mod tests;
