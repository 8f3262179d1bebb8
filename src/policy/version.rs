//! One loaded version: asked, counted, and suspended if it goes wrong too often.

use super::bindings::PolicyPre;
use super::context::Context;
use super::hall::Hall;
use super::limits::Limits;
use super::live::PolicyLive;
use super::question::Question;
use super::seats::Seats;
use super::suspension::Suspension;
use crate::base::time::process_ms;
use crate::service::decision::{Called, Fault, FaultKind, Outcome};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// One loaded version with its ready instances.
pub struct Version {
    /// 12 hex digits.
    pub id: Arc<str>,
    /// The policy's name.
    pub name: Arc<str>,
    /// What belongs to that name and outlives the version.
    pub live: Arc<PolicyLive>,
    seats: Arc<Seats>,
    /// One for each worker.
    calls: Box<[Calls]>,
    suspension: Suspension,
    faults: [AtomicU64; FaultKind::ALL.len()],
}

/// On cache lines of its own, since every call writes here.
#[derive(Default)]
#[repr(align(128))]
struct Calls(AtomicU64);

/// What a version has counted since it was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// Questions, whatever came of them.
    pub calls: u64,
    /// By kind; kinds that never came are left out.
    pub faults: Vec<(FaultKind, u64)>,
    /// Times that the version was suspended.
    pub suspensions: u64,
    /// Instances replaced, after faults or because they were of age.
    pub replaced: u64,
    /// Instances that could not be built when one was to be replaced; the log says why.
    pub failed_builds: u64,
    /// Instances ready now.
    pub ready: usize,
}

impl Version {
    pub(super) fn new(
        hall: Arc<Hall>,
        pre: PolicyPre<Context>,
        (id, name): (Arc<str>, Arc<str>),
        config: String,
        limits: Limits,
        live: Arc<PolicyLive>,
    ) -> Result<Arc<Self>, String> {
        let workers = hall.settings.workers;
        let names = (Arc::clone(&id), Arc::clone(&name));
        let seats = Seats::fill(hall, pre, names, config, limits, Arc::clone(&live))?;
        Ok(Arc::new(Version {
            id,
            name,
            live,
            seats,
            calls: (0..workers).map(|_| Calls::default()).collect(),
            suspension: Suspension::default(),
            faults: Default::default(),
        }))
    }

    /// Asks the policy, on a worker's thread: runs to its end without waiting, and never panics.
    pub fn decide(&self, worker: usize, question: Question) -> Called {
        self.calls[worker % self.calls.len()].0.fetch_add(1, Relaxed);
        if let Some(left) = self.suspended() {
            let message = format!("suspended for another {} s after too many faults", left.as_secs() + 1);
            return self.unasked(FaultKind::Suspended, message);
        }
        let Some(called) = self.seats.ask(worker, question) else {
            return self.unasked(FaultKind::Starved, "no instance is ready".into());
        };
        if let Outcome::Fault(fault) = &called.outcome {
            self.count(fault.kind);
            if self.suspension.fault(process_ms()) {
                tracing::error!(policy = %self.name, version = %self.id, kind = fault.kind.name(),
                    message = fault.message, "policy suspended after too many faults");
            }
        }
        called
    }

    /// What is left of a suspension.
    pub fn suspended(&self) -> Option<Duration> {
        if !self.suspension.ever() {
            return None;
        }
        self.suspension.left(process_ms())
    }

    /// What it has counted so far.
    pub fn stats(&self) -> Stats {
        let faults = FaultKind::ALL.into_iter().zip(&self.faults).map(|(kind, count)| (kind, count.load(Relaxed)));
        Stats {
            calls: self.calls.iter().map(|calls| calls.0.load(Relaxed)).sum(),
            faults: faults.filter(|(_, count)| *count > 0).collect(),
            suspensions: self.suspension.total(),
            replaced: self.seats.replaced.load(Relaxed),
            failed_builds: self.seats.failed_builds.load(Relaxed),
            ready: self.seats.ready(),
        }
    }

    /// What it may use.
    pub fn limits(&self) -> &Limits {
        &self.seats.limits
    }

    /// As if many faults had come at once.
    #[cfg(test)]
    pub(super) fn take_all(&self) {
        self.seats.take_all();
    }

    fn unasked(&self, kind: FaultKind, message: String) -> Called {
        self.count(kind);
        Called { outcome: Outcome::Fault(Fault { kind, message }), reason: String::new(), logs: Vec::new() }
    }

    fn count(&self, kind: FaultKind) {
        self.faults[kind as usize].fetch_add(1, Relaxed);
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Version").field("name", &self.name).field("id", &self.id).finish_non_exhaustive()
    }
}
