//! One address of a service: what was declared about it, and how it is doing.

mod crowd;
mod ejection;
mod group;
mod left;
mod load;
pub(super) mod ramp;
mod standing;
mod window;

pub use crowd::Crowd;
pub(super) use ejection::Ejection;
pub use group::Group;
pub use left::Left;
pub use load::{Load, Pace};
pub(super) use standing::By;
pub(super) use window::Did;

use super::admission::Sockets;
use crate::base::seldom::Seldom;
use crate::base::time::process_ms;
use crate::discovery::Metadata;
use standing::Standing;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
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
    /// It takes what the usable endpoints of lower ones can't. 0 without `failover`.
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
    /// Connections to it.
    pub sockets: Arc<Sockets>,
    /// Its failures, latency and silence.
    pub load: Load,
    /// By active checks, by failing connects and by its answers.
    standing: Standing,
    /// What its answers were like, and what came of that.
    pub(super) ejection: Ejection,
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
        Live::new(true, process_ms())
    }
}

impl Live {
    /// Of one that came at `now_ms`, in ms since the process started; not healthy before a check says so, if that is said.
    pub fn new(healthy: bool, now_ms: u64) -> Self {
        let by = (!healthy).then_some(By::Checks);
        Live {
            in_flight: AtomicU32::new(0),
            sockets: Arc::default(),
            load: Load::default(),
            standing: Standing::new(by, now_ms),
            ejection: Ejection::default(),
            failed_connects: AtomicU32::new(0),
            retry_at_ms: AtomicU64::new(0),
            put_aside: Seldom::each(Duration::from_secs(60)),
            born: Instant::now(),
        }
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

    /// Nobody puts it aside: no check, no failing connects, none of its answers.
    pub fn healthy(&self) -> bool {
        self.live.is_healthy()
    }

    /// Requests in flight to it from this gateway.
    pub fn in_flight(&self) -> u32 {
        self.live.in_flight.load(Relaxed)
    }
}

impl Live {
    /// Nobody puts it aside: no check, no failing connects, none of its answers.
    pub fn is_healthy(&self) -> bool {
        self.standing.is_healthy()
    }

    /// What its checks and connects say: what its answers were like is left out.
    pub fn is_reachable(&self) -> bool {
        !self.standing.is_aside(By::Checks) && !self.standing.is_aside(By::Connects)
    }

    /// Its answers have put it aside.
    pub fn is_ejected(&self) -> bool {
        self.standing.is_aside(By::Ejection)
    }

    /// Until when they have, in ms since the process started. None: they have not.
    pub fn ejected_until_ms(&self) -> Option<u64> {
        self.is_ejected().then(|| self.ejection.until_ms())
    }

    /// The share of its weight that it takes, in thousandths: less than 1000 while it starts slowly.
    pub fn ramp_permille(&self, now_ms: u64) -> u32 {
        self.standing.ramp_permille(now_ms)
    }

    /// When it became healthy last, in ms since the process started.
    pub(crate) fn healthy_since_ms(&self) -> u64 {
        self.standing.since_ms()
    }

    /// What it shares with the others of its service. None: it is in no list yet.
    pub fn group(&self) -> Option<&Arc<Group>> {
        self.standing.group()
    }

    /// It belongs to this group from now on. Once only: it belongs to one service as long as it lives.
    pub fn join(&self, group: &Arc<Group>) {
        self.standing.join(group);
    }

    /// Its answers put it aside, if its service had so many changes until now. None: they have done so already; false:
    /// there were other changes.
    pub(crate) fn eject_after(&self, seen: u64) -> Option<bool> {
        self.standing.put_aside_after(seen, By::Ejection)
    }

    /// It has been put aside for its answers for long enough. `consecutive`: failures in a row that put it aside.
    pub(super) fn comes_back(&self, consecutive: u32, now_ms: u64) {
        self.ejection.end(consecutive);
        self.standing.take_back(&[By::Ejection], now_ms);
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
        let at = process_ms() + u64::try_from(try_again_after.as_millis()).unwrap_or(u64::MAX / 2);
        self.retry_at_ms.store(at, Relaxed);
        self.standing.put_aside(By::Connects)
    }

    /// An active check has found out how it is; connects are counted anew. What its answers have put aside stays aside.
    pub fn checked(&self, healthy: bool) {
        self.failed_connects.store(0, Relaxed);
        match healthy {
            true => self.standing.take_back(&[By::Checks, By::Connects], process_ms()),
            false => drop(self.standing.put_aside(By::Checks)),
        }
    }

    /// Put aside by failing connects, or by checks that there are no more, it gets another chance: one more failure puts it
    /// aside again.
    pub fn on_probation(&self) {
        self.failed_connects.store(FAILED_CONNECTS - 1, Relaxed);
        self.standing.take_back(&[By::Checks, By::Connects], process_ms());
    }
}

/// Counts one request in flight to an endpoint for as long as it lives.
#[derive(Debug)]
pub struct InFlight {
    live: Arc<Live>,
    failed_before: u32,
    /// The endpoint's number where there may be only so many: others may wait for this one's end.
    limited: Option<u32>,
}

impl InFlight {
    /// One more, until dropped. `now_ms`: since the process started.
    pub fn enter(live: &Arc<Live>, now_ms: u64) -> Self {
        let before = live.in_flight.fetch_add(1, Relaxed);
        InFlight::counted(live, before, None, now_ms)
    }

    fn counted(live: &Arc<Live>, before: u32, limited: Option<u32>, now_ms: u64) -> Self {
        if before == 0 {
            live.load.begins(now_ms);
        }
        InFlight { live: Arc::clone(live), failed_before: live.ejection.failed(), limited }
    }

    /// The same at this endpoint if there are fewer than `most`.
    pub(in crate::service) fn enter_below(endpoint: &Endpoint, most: u32, now_ms: u64) -> Option<Self> {
        let live = &endpoint.live;
        let more = |in_flight| (in_flight < most).then_some(in_flight + 1);
        let before = live.in_flight.fetch_update(Relaxed, Relaxed, more).ok()?;
        Some(InFlight::counted(live, before, Some(endpoint.id), now_ms))
    }

    /// It is at this endpoint.
    pub fn is_at(&self, endpoint: &Endpoint) -> bool {
        Arc::ptr_eq(&self.live, &endpoint.live)
    }

    /// How many of its answers in a row were bad when this one began.
    pub fn failed_before(&self) -> u32 {
        self.failed_before
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        // In one order with those who wait in the lobby and look for room then.
        self.live.in_flight.fetch_sub(1, SeqCst);
        if let (Some(endpoint), Some(group)) = (self.limited, self.live.group()) {
            group.lobby.has_room(endpoint);
        }
    }
}
