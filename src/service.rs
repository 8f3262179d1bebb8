//! A service: a named group of endpoints, and how traffic to it is balanced, timed and retried.

pub mod balance;
pub mod catalog;
pub mod decision;
mod endpoint;
mod health;
pub mod plan;
pub mod pool;
pub mod record;
pub mod route;

pub use endpoint::{Endpoint, InFlight, Live};
pub use health::Checks;

use crate::discovery::Metadata;
use crate::discovery::Observed;
use crate::service::plan::Strategy;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A service as one snapshot sees it. Who is in it is fixed; how they are doing lives behind `Arc`s.
#[derive(Debug)]
pub struct Service {
    /// The name that routes and policies use.
    pub name: Arc<str>,
    /// How it is balanced, timed and retried.
    pub settings: Arc<Settings>,
    /// In the source's order.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// What its source said last.
    pub reported: Arc<Observed>,
    /// What outlives the snapshot.
    pub live: Arc<ServiceLive>,
}

/// What holds where neither a service nor a policy names a `timeout`.
pub const UNNAMED_TIMEOUT: Duration = Duration::from_secs(300);

/// What the configuration says about a service; every field has a default.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Name of the source that reports its endpoints.
    pub source: Arc<str>,
    /// How an endpoint is chosen where no policy says otherwise.
    pub strategy: Strategy,
    /// Which request property the `hash` and `sticky` strategies use where no policy gives a key.
    pub hash_on: HashOn,
    /// What `Host` says upstream; none: as the client sent it. A policy can say otherwise for each request.
    pub host: Option<http::HeaderValue>,
    /// Speak HTTP/2 by prior knowledge to its endpoints instead of HTTP/1.1.
    pub http2: bool,
    /// Whole exchange, all attempts, until the last byte of the response. Zero: no limit. None: [`UNNAMED_TIMEOUT`] until
    /// the response's head, and from then on for each silence.
    pub timeout: Option<Duration>,
    /// One attempt, until its response head is there; the time in which the client sends its body is not counted. Zero: no
    /// limit.
    pub attempt_timeout: Duration,
    /// Until a connection is established.
    pub connect_timeout: Duration,
    /// Attempts, the first one counted.
    pub max_attempts: u32,
    /// Also retry when an attempt was answered with one of these.
    pub retry_status: Vec<u16>,
    /// Bytes of a request's body; one more is refused with 413. None: as many as come.
    pub max_body_bytes: Option<u64>,
    /// How long `sticky` remembers a key that is not used.
    pub sticky_ttl: Duration,
    /// Speak TLS with its endpoints.
    pub tls: Option<Arc<crate::http::tls::client::Connector>>,
    /// Active health check; none: only what the source and failing connects say.
    pub health: Option<HealthCheck>,
}

/// What `hash` and `sticky` use as the key by default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashOn {
    /// The client's IP address.
    ClientAddress,
    /// The value of this header; the client's address where there is none.
    Header(http::HeaderName),
    /// The value of this cookie; the client's address where there is none.
    Cookie(String),
}

/// An active HTTP health check: `GET path`, 2xx or 3xx is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// Path and query to ask for.
    pub path: String,
    /// From the end of one check to the start of the next, ± 10 %.
    pub interval: Duration,
    /// For the whole check.
    pub timeout: Duration,
    /// This many bad checks in a row make it unhealthy.
    pub unhealthy_after: u32,
    /// This many good checks in a row make it healthy again.
    pub healthy_after: u32,
}

/// What belongs to a service's name and survives every snapshot.
#[derive(Debug, Default)]
pub struct ServiceLive {
    /// The round-robin counter, shared by all workers.
    pub turn: AtomicU64,
    /// The source is failing, or silent for longer than it should be.
    pub stale: AtomicBool,
    /// When the source last confirmed the list, in ms since the process started (see `time::process_ms`).
    pub confirmed_ms: AtomicU64,
}

impl Service {
    /// Endpoints that are healthy by their source and by our own checks.
    pub fn usable(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.endpoints.iter().filter(|endpoint| endpoint.usable())
    }

    /// Those of them that take traffic without being named.
    pub fn candidates(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.endpoints.iter().filter(|endpoint| endpoint.is_candidate())
    }

    /// The endpoint with this id.
    pub fn endpoint(&self, id: u32) -> Option<&Arc<Endpoint>> {
        self.endpoints.iter().find(|endpoint| endpoint.id == id)
    }

    /// Time since the source last confirmed the list.
    pub fn age(&self) -> Duration {
        let now = crate::base::time::process_ms();
        Duration::from_millis(now.saturating_sub(self.live.confirmed_ms.load(Relaxed)))
    }
}

/// Does `metadata` hold all these pairs?
pub fn has_all(metadata: &Metadata, pairs: &[(String, String)]) -> bool {
    pairs.iter().all(|(key, value)| metadata.get(key) == Some(value))
}
