//! Numbers: each worker counts in its own, without locks, and a scrape adds them up.

mod admission;
mod numbers;
mod page;
mod text;

pub(super) use page::page;

use super::counter::Counters;
use crate::base::time::process_ms;
use crate::http::malformed::Malformed;
use crate::policy::Scope;
use crate::service::affinity::Standing;
use crate::service::decision::{Decision, FaultKind, Role};
use crate::service::record::{AttemptError, Record};
use crate::snapshot::Snapshot;
use numbers::{Count, Histogram};
use rustc_hash::{FxHashMap, FxHashSet};
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};
use tokio::runtime::RuntimeMetrics;

/// Pairs of route and service, and versions of policies, that one worker counts apart; more are [`OTHER`].
const MOST: usize = 1000;
const OTHER: &str = "other";
/// Where there is no route, service or version.
const NONE: &str = "none";
/// Numbers of what no snapshot names any more are kept this long, so that somebody may still fetch them.
const KEPT_MS: u64 = 300_000;

/// Upper bounds of buckets for requests and attempts, in ns.
const REQUEST_BOUNDS: [u64; 15] = {
    const MS: u64 = 1_000_000;
    [
        MS / 2,
        MS,
        MS * 5 / 2,
        5 * MS,
        10 * MS,
        25 * MS,
        50 * MS,
        100 * MS,
        250 * MS,
        500 * MS,
        1000 * MS,
        2500 * MS,
        5000 * MS,
        10_000 * MS,
        60_000 * MS,
    ]
};
/// Upper bounds of buckets for policy calls, in ns.
const POLICY_BOUNDS: [u64; 15] = {
    const US: u64 = 1000;
    [
        US,
        US * 5 / 2,
        5 * US,
        10 * US,
        25 * US,
        50 * US,
        100 * US,
        250 * US,
        500 * US,
        1000 * US,
        2500 * US,
        5000 * US,
        10_000 * US,
        25_000 * US,
        100_000 * US,
    ]
};

/// Labels of [`Pair::requests`], in order.
const CODES: [&str; 6] = [NONE, "1xx", "2xx", "3xx", "4xx", "5xx"];

/// All workers' numbers.
#[derive(Debug)]
pub(super) struct Registry {
    started: SystemTime,
    /// By kind. All workers', since it is no common thing.
    refused: [AtomicU64; Malformed::ALL.len()],
    pub(super) counters: Arc<Counters>,
    lists: Mutex<Lists>,
}

/// A number is a worker's as long as it lives. Locked when a series is new, and for a moment by a scrape.
#[derive(Debug, Default)]
struct Lists {
    workers: Vec<Weak<Load>>,
    pairs: Vec<Weak<Pair>>,
    policies: Vec<Weak<Policy>>,
}

impl Default for Registry {
    fn default() -> Self {
        Registry {
            started: SystemTime::now(),
            refused: Default::default(),
            counters: Arc::default(),
            lists: Mutex::default(),
        }
    }
}

impl Registry {
    fn lists(&self) -> std::sync::MutexGuard<'_, Lists> {
        // Nothing that panics runs under this lock.
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How much a worker has to do.
#[derive(Debug, Default)]
struct Load {
    begun: Count,
    ended: Count,
    /// Of its thread.
    runtime: Option<RuntimeMetrics>,
}

/// What a worker counts of one route and service.
#[derive(Debug)]
struct Pair {
    route: Arc<str>,
    service: Arc<str>,
    /// By class of the code.
    requests: [Histogram; CODES.len()],
    /// By class of the code.
    answered: [Count; CODES.len()],
    /// By error.
    failed: [Count; AttemptError::ALL.len()],
    attempts: Histogram,
    /// By how they stood with the endpoint that their client belongs to.
    affinity: [Count; Standing::ALL.len()],
}

/// What a worker counts of one version of a policy.
#[derive(Debug)]
struct Policy {
    name: Arc<str>,
    version: Arc<str>,
    role: Role,
    decisions: [Count; Decision::ALL.len()],
    faults: [Count; FaultKind::ALL.len()],
    took: Histogram,
}

type ByName<T> = FxHashMap<Arc<str>, T>;

/// By two names, looked up without taking a share in either.
#[derive(Debug)]
struct Rows<T> {
    rows: RefCell<ByName<ByName<Row<T>>>>,
    len: Cell<usize>,
}

#[derive(Debug)]
struct Row<T> {
    numbers: Arc<T>,
    /// When a snapshot last named it.
    named_ms: Cell<u64>,
}

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Rows { rows: RefCell::default(), len: Cell::new(0) }
    }
}

impl<T> Rows<T> {
    /// Calls `count` with the numbers of this pair of names, which `make` makes and lists where they are new.
    fn with(&self, names: (&str, &str), make: impl FnOnce(Arc<str>, Arc<str>) -> Arc<T>, count: impl FnOnce(&T)) {
        let mut rows = self.rows.borrow_mut();
        if let Some(row) = rows.get(names.0).and_then(|rows| rows.get(names.1)) {
            return count(&row.numbers);
        }
        let names = if self.len.get() >= MOST { (OTHER, OTHER) } else { names };
        let (first, second): (Arc<str>, Arc<str>) = (names.0.into(), names.1.into());
        let row = rows.entry(Arc::clone(&first)).or_default().entry(Arc::clone(&second)).or_insert_with(|| {
            self.len.set(self.len.get() + 1);
            Row { numbers: make(first, second), named_ms: Cell::new(process_ms()) }
        });
        count(&row.numbers);
    }

    /// Drops rows that were not `named` for a while.
    fn tidy(&self, now_ms: u64, named: impl Fn(&str, &str) -> bool) {
        let mut rows = self.rows.borrow_mut();
        for (first, rows) in rows.iter_mut() {
            rows.retain(|second, row| {
                if named(first, second) {
                    row.named_ms.set(now_ms);
                }
                now_ms.saturating_sub(row.named_ms.get()) <= KEPT_MS
            });
        }
        rows.retain(|_, rows| !rows.is_empty());
        self.len.set(rows.values().map(FxHashMap::len).sum());
    }
}

/// A worker's numbers.
#[derive(Debug)]
pub(super) struct Tally {
    registry: Arc<Registry>,
    load: Arc<Load>,
    pairs: Rows<Pair>,
    /// By what a version is to requests.
    policies: [Rows<Policy>; Role::ALL.len()],
}

impl Tally {
    pub(super) fn new(registry: &Arc<Registry>) -> Self {
        let runtime = tokio::runtime::Handle::try_current().ok().map(|handle| handle.metrics());
        let load = Arc::new(Load { runtime, ..Load::default() });
        registry.lists().workers.push(Arc::downgrade(&load));
        Tally { registry: Arc::clone(registry), load, pairs: Rows::default(), policies: Default::default() }
    }

    pub(super) fn begin(&self) {
        self.load.begun.add(1);
    }

    pub(super) fn refused(&self, bad: Malformed) {
        self.registry.refused[bad as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn finish(&self, record: &Record, took: Duration) {
        let is_own = record.own.is_some();
        if !is_own {
            self.load.ended.add(1);
        }
        let route = record.route.as_deref().unwrap_or(NONE);
        let service = record.service.as_ref().map_or(NONE, |service| &service.name);
        self.pairs.with(
            (route, service),
            |route, service| self.new_pair(route, service),
            |pair| {
                if !is_own {
                    pair.requests[class(record.status)].observe(took);
                }
                if let Some(standing) = record.affinity {
                    pair.affinity[standing as usize].add(1);
                }
                for attempt in &record.attempts {
                    match attempt.outcome {
                        Ok(status) => pair.answered[class(status)].add(1),
                        Err(error) => pair.failed[error as usize].add(1),
                    }
                    if attempt.outcome != Err(AttemptError::Unfinished) {
                        pair.attempts.observe(attempt.took);
                    }
                }
            },
        );
        for call in &record.calls {
            let version = call.version.as_deref().unwrap_or(NONE);
            let make = |name, version| self.new_policy(name, version, call.role);
            self.policies[call.role as usize].with((&*call.policy, version), make, |policy| {
                policy.decisions[call.decision as usize].add(1);
                if let Some(fault) = &call.fault {
                    policy.faults[fault.kind as usize].add(1);
                }
                policy.took.observe(call.took);
            });
        }
    }

    pub(super) fn tidy(&self, snapshot: &Snapshot) {
        let policies: FxHashSet<&str> = snapshot.policies.iter().map(|policy| &*policy.name).collect();
        let decides =
            |name: &str| name == NONE || name == OTHER || policies.contains(name) || snapshot.routes.is_named(name);
        let is_service = |name: &str| name == NONE || name == OTHER || snapshot.service(name).is_some();
        let is_version = |role: Role, name: &str, version: &str| {
            let scope = snapshot.policies.iter().find(|scope| *scope.name == *name);
            let has = |scope: &Arc<Scope>| match role {
                Role::Live => scope.standing.live().map_or(NONE, |live| &live.id) == version,
                Role::Canary => scope.canary.as_ref().is_some_and(|canary| *canary.version.id == *version),
            };
            scope.is_some_and(has) || name == OTHER
        };
        self.pairs.tidy(process_ms(), |route, service| decides(route) && is_service(service));
        for (role, policies) in Role::ALL.into_iter().zip(&self.policies) {
            policies.tidy(process_ms(), |name, version| is_version(role, name, version));
        }
    }

    fn new_pair(&self, route: Arc<str>, service: Arc<str>) -> Arc<Pair> {
        let pair = Arc::new(Pair {
            route,
            service,
            requests: std::array::from_fn(|_| Histogram::new(&REQUEST_BOUNDS)),
            answered: Default::default(),
            failed: Default::default(),
            attempts: Histogram::new(&REQUEST_BOUNDS),
            affinity: Default::default(),
        });
        self.registry.lists().pairs.push(Arc::downgrade(&pair));
        pair
    }

    fn new_policy(&self, name: Arc<str>, version: Arc<str>, role: Role) -> Arc<Policy> {
        let policy = Arc::new(Policy {
            name,
            version,
            role,
            decisions: Default::default(),
            faults: Default::default(),
            took: Histogram::new(&POLICY_BOUNDS),
        });
        self.registry.lists().policies.push(Arc::downgrade(&policy));
        policy
    }
}

/// Place of a status in [`CODES`].
fn class(status: u16) -> usize {
    match status / 100 {
        class @ 1..=5 => usize::from(class),
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
