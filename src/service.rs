//! A service: a named group of endpoints, and how traffic to it is balanced, timed and retried.

pub mod admission;
pub mod affinity;
pub mod balance;
pub mod breaker;
pub mod budget;
pub mod catalog;
pub mod decision;
mod endpoint;
pub mod endpoints;
pub mod health;
pub mod hedge;
pub mod middleware;
pub mod plan;
pub mod pool;
pub mod rate_limit;
pub mod record;
pub mod retry;
pub mod route;
pub mod settings;
pub mod subset;
pub mod tape;

pub use endpoint::{Crowd, Endpoint, Group, InFlight, Left, Live, Load, Pace};
pub use endpoints::Endpoints;
pub use health::Checks;
pub use settings::Settings;

use crate::base::time::{process_ms, process_ms_at};
use crate::discovery::Metadata;
use crate::discovery::Observed;
use crate::http::tls::client::Connector;
use affinity::Affinity;
use health::outlier::Ejections;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// A service as one snapshot sees it. Who is in it is fixed; how they are doing lives behind `Arc`s.
#[derive(Debug)]
pub struct Service {
    /// The name that routes and policies use.
    pub name: Arc<str>,
    /// How it is balanced, timed and retried.
    pub settings: Arc<Settings>,
    /// In the source's order.
    pub endpoints: Endpoints,
    /// What its source said last.
    pub reported: Arc<Observed>,
    /// Of its endpoints and what is said of them; gateways that know the same have the same.
    pub digest: u64,
    /// Speaks TLS with its endpoints; none: they are spoken to without.
    pub tls: Option<Arc<Connector>>,
    /// Clients come back to whoever has answered them; none: they do not.
    pub affinity: Option<Arc<Affinity>>,
    /// What outlives the snapshot.
    pub live: Arc<ServiceLive>,
}

/// What belongs to a service's name and survives every snapshot.
#[derive(Debug, Default)]
pub struct ServiceLive {
    /// The round-robin counter, shared by all workers.
    pub turn: AtomicU64,
    /// How fast its endpoints answer, on the average.
    pub pace: Pace,
    /// What is in flight to all of them, as it was counted last, for whoever bounds a share of it.
    pub crowd: Crowd,
    /// The source is failing, or silent for longer than it should be.
    pub stale: AtomicBool,
    /// One of its sources is failing, or has not answered yet; the others' part is known.
    pub partial: AtomicBool,
    /// When the source last confirmed the list, in ms since the process started (see `time::process_ms`);
    /// before it, where the last process knew it.
    confirmed_ms: AtomicI64,
    /// Retries that it may still cost.
    pub budget: budget::Budget,
    /// How long its answers take, where that is asked for.
    pub latencies: std::sync::OnceLock<hedge::Latencies>,
    /// Attempts that were made beside others.
    pub hedges: AtomicU64,
    /// Whether requests to it are worth while.
    pub breaker: breaker::Breaker,
    /// Who is in, and who waits.
    pub admission: admission::Admission,
    /// What its endpoints share.
    pub group: Arc<Group>,
    /// Endpoints that left it a while ago.
    pub left: Left,
    /// How often endpoints were put aside for their answers.
    pub ejections: Ejections,
}

impl ServiceLive {
    /// The source confirmed the list so long ago, perhaps to the process before this one.
    pub fn confirmed(&self, ago: Duration) {
        let ago = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
        let now_ms = i64::try_from(process_ms()).unwrap_or(i64::MAX);
        self.confirmed_ms.store(now_ms.saturating_sub(ago), Relaxed);
    }

    /// Time since then.
    pub fn age(&self) -> Duration {
        self.age_at(Instant::now())
    }

    /// The same at a time that is known already; none if it was confirmed since.
    pub fn age_at(&self, now: Instant) -> Duration {
        let now_ms = i64::try_from(process_ms_at(now)).unwrap_or(i64::MAX);
        let age = now_ms.saturating_sub(self.confirmed_ms.load(Relaxed));
        Duration::from_millis(u64::try_from(age).unwrap_or(0))
    }
}

impl Service {
    /// How many endpoints are healthy by their source and by our own checks.
    pub fn usable(&self) -> usize {
        self.endpoints.ready().usable
    }

    /// Those of them that take traffic without being named.
    pub fn candidates(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.endpoints.iter().filter(|endpoint| endpoint.is_candidate())
    }

    /// Time since the source last confirmed the list.
    pub fn age(&self) -> Duration {
        self.live.age()
    }

    /// Does this endpoint have what a plan's subset wants, and what is declared where that is a must?
    pub fn fits(&self, subset: &[(String, String)], endpoint: &Endpoint) -> bool {
        let declared = self.settings.subset.as_ref().filter(|declared| declared.is_must());
        has_all(&endpoint.metadata, subset)
            && declared.is_none_or(|declared| has_all(&endpoint.metadata, &declared.metadata))
    }
}

/// Does `metadata` hold all these pairs?
pub fn has_all(metadata: &Metadata, pairs: &[(String, String)]) -> bool {
    pairs.iter().all(|(key, value)| metadata.get(key) == Some(value))
}
