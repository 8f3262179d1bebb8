//! One address of a service: what was declared about it, and how it is doing.

use crate::base::seldom::Seldom;
use crate::discovery::Metadata;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::Release};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// An endpoint as one snapshot sees it.
#[derive(Debug)]
pub struct Endpoint {
    /// One number per service and address while the process runs, never used for another one.
    pub id: u32,
    /// The service that it belongs to.
    pub service: Arc<str>,
    /// Where it listens.
    pub address: SocketAddr,
    /// Share of traffic, default 1; 0: none unless named by a policy.
    pub weight: u32,
    /// From the `zone` of its metadata or what its source says.
    pub zone: Option<Arc<str>>,
    /// In the gateway's own zone; true where either has none.
    pub local: bool,
    /// It takes traffic only while no usable endpoint of a lower one can. 0 without `failover`.
    pub tier: u32,
    /// What its source says about it, sorted by key.
    pub metadata: Metadata,
    /// Its source calls it healthy.
    pub source_healthy: bool,
    /// How it is doing; belongs to service and address, survives snapshots.
    pub live: Arc<Live>,
}

/// The live state of an endpoint. Written by workers and by control, read by all; every field is on its own.
#[derive(Debug)]
pub struct Live {
    /// Requests sent to it whose response has not ended.
    pub in_flight: AtomicU32,
    /// Peak-sensitive moving average of the time to the response head, in µs. 0: not measured yet.
    pub latency_us: AtomicU32,
    /// By active checks and by failing connects.
    healthy: AtomicBool,
    /// Counts the changes of health of all endpoints of its service, so that those which are ready to be picked are looked
    /// for again after each. None: it is in no list yet.
    changes: OnceLock<Arc<AtomicU64>>,
    /// Connects that failed in a row.
    pub failed_connects: AtomicU32,
    /// Without an active check, an endpoint made unhealthy by failed connects is tried again from then on, in ms
    /// since the process started.
    pub retry_at_ms: AtomicU64,
    /// That it was put aside is told so often.
    pub put_aside: Seldom,
    /// When it (re)appeared.
    pub born: Instant,
}

impl Default for Live {
    fn default() -> Self {
        Live {
            in_flight: AtomicU32::new(0),
            latency_us: AtomicU32::new(0),
            healthy: AtomicBool::new(true),
            changes: OnceLock::new(),
            failed_connects: AtomicU32::new(0),
            retry_at_ms: AtomicU64::new(0),
            put_aside: Seldom::each(Duration::from_secs(60)),
            born: Instant::now(),
        }
    }
}

impl Live {
    /// Of one that is not healthy before a check says so.
    pub fn unchecked() -> Self {
        Live { healthy: AtomicBool::new(false), ..Live::default() }
    }
}

/// Failed connects in a row that count as an unhealthy check.
const FAILED_CONNECTS: u32 = 3;

impl Endpoint {
    /// One of which nothing else is known: weight 1, in the gateway's own zone, healthy, without metadata.
    pub fn of(service: &str, id: u32, address: SocketAddr) -> Self {
        Endpoint {
            id,
            service: service.into(),
            address,
            weight: 1,
            zone: None,
            local: true,
            tier: 0,
            metadata: Metadata::default(),
            source_healthy: true,
            live: Arc::default(),
        }
    }

    /// The strategies would consider it: healthy by its source and by our own checks.
    pub fn usable(&self) -> bool {
        self.source_healthy && self.healthy()
    }

    /// It takes traffic without being named: with weight 0, only a policy can choose it.
    pub fn is_candidate(&self) -> bool {
        self.usable() && self.weight > 0
    }

    /// Healthy by active checks and by connects. True where nothing checks.
    pub fn healthy(&self) -> bool {
        self.live.is_healthy()
    }

    /// Requests in flight to it from this gateway.
    pub fn in_flight(&self) -> u32 {
        self.live.in_flight.load(Relaxed)
    }
}

impl Live {
    /// Healthy by active checks and by connects.
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Relaxed)
    }

    /// Sets its health, and tells its service. True: it was healthy before.
    fn set_healthy(&self, healthy: bool) -> bool {
        let was = self.healthy.swap(healthy, Relaxed);
        if was != healthy
            && let Some(changes) = self.changes.get()
        {
            // Whoever sees the number sees the health.
            changes.fetch_add(1, Release);
        }
        was
    }

    /// What counts the changes of health of its service.
    pub(super) fn changes(&self) -> Option<&Arc<AtomicU64>> {
        self.changes.get()
    }

    /// From now on its changes of health are counted there. Once only: it belongs to one service as long as it lives.
    pub(super) fn count_changes(&self, changes: &Arc<AtomicU64>) {
        let counted = self.changes.get_or_init(|| Arc::clone(changes));
        debug_assert!(Arc::ptr_eq(counted, changes), "an endpoint belongs to one service");
    }

    /// A connect succeeded.
    pub fn connected(&self) {
        if self.failed_connects.load(Relaxed) != 0 {
            self.failed_connects.store(0, Relaxed);
        }
    }

    /// A connect failed. True: that was the third in a row, and the endpoint is unhealthy now.
    pub fn connect_failed(&self, try_again_after: Duration) -> bool {
        let failed = self.failed_connects.fetch_add(1, Relaxed) + 1;
        if failed < FAILED_CONNECTS {
            return false;
        }
        let at = crate::base::time::process_ms() + u64::try_from(try_again_after.as_millis()).unwrap_or(u64::MAX / 2);
        self.retry_at_ms.store(at, Relaxed);
        self.set_healthy(false)
    }

    /// An active check has found out how it is; connects are counted anew.
    pub fn checked(&self, healthy: bool) {
        self.failed_connects.store(0, Relaxed);
        self.set_healthy(healthy);
    }

    /// Put aside by failing connects, it gets another chance: one more failure puts it aside again.
    pub fn on_probation(&self) {
        self.failed_connects.store(FAILED_CONNECTS - 1, Relaxed);
        self.set_healthy(true);
    }

    /// Takes the time to a response head into the moving average: a slower one at once in full, a faster one by an
    /// eighth (the shape of Finagle's peak EWMA, without its decay by time).
    pub fn measured(&self, took: Duration) {
        let us = u32::try_from(took.as_micros()).unwrap_or(u32::MAX).max(1);
        let old = self.latency_us.load(Relaxed);
        let new = if us >= old { us } else { old - (old - us).div_ceil(8) };
        self.latency_us.store(new, Relaxed);
    }
}

/// Counts one request in flight to an endpoint for as long as it lives.
#[derive(Debug)]
pub struct InFlight(Arc<Live>);

impl InFlight {
    /// One more, until dropped.
    pub fn enter(live: &Arc<Live>) -> Self {
        live.in_flight.fetch_add(1, Relaxed);
        InFlight(Arc::clone(live))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}
