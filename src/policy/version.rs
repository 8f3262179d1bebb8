//! One loaded version: asked, counted, and suspended if it goes wrong too often.

use super::bindings::PolicyPre;
use super::conduct::{Conduct, Suspended};
use super::context::Context;
use super::hall::Hall;
use super::limits::Limits;
use super::live::PolicyLive;
use super::question::Question;
use super::refusal::Error;
use super::rooms::Place;
use super::seats::Seats;
use crate::service::decision::{Called, Fault, FaultKind, Outcome};
use crate::service::record::taped::About;
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
    /// The two, and all else that makes it what it is, for whoever records.
    pub about: Arc<About>,
    /// What belongs to that name and outlives the version.
    pub live: Arc<PolicyLive>,
    seats: Arc<Seats>,
    /// Of its component, which other versions may have had as well.
    conduct: Arc<Conduct>,
    /// The component's calls before this version.
    calls_before: u64,
    faults: [AtomicU64; FaultKind::ALL.len()],
}

/// Who a version is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The policy's name.
    pub name: Arc<str>,
    /// The version's id, 12 hex digits.
    pub version: Arc<str>,
    /// The component's digest.
    pub component: String,
}

/// What a version has counted since it was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// Times that it was asked, whatever came of it.
    pub calls: u64,
    /// By kind; kinds that never came are left out.
    pub faults: Vec<(FaultKind, u64)>,
    /// Times that its component was suspended, since the gateway started.
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
        room: (Arc<Place>, PolicyPre<Context>),
        identity: Identity,
        config: String,
        limits: Limits,
        live: Arc<PolicyLive>,
    ) -> Result<Arc<Self>, Error> {
        let Identity { name, version: id, component } = identity;
        let conduct = live.conducts.of(&component, hall.settings.workers);
        let about = Arc::new(About {
            policy: Arc::clone(&name),
            version: Arc::clone(&id),
            component,
            config: config.clone(),
            limits: serde_json::to_string(&limits).unwrap_or_default(),
        });
        let names = (Arc::clone(&id), Arc::clone(&name));
        let seats = Seats::fill(hall, room, names, config, limits, Arc::clone(&live))?;
        let calls_before = conduct.calls();
        Ok(Arc::new(Version { id, name, about, live, seats, conduct, calls_before, faults: Default::default() }))
    }

    /// Asks the policy, on a worker's thread: runs to its end without waiting, and never panics.
    pub fn decide(&self, worker: usize, question: Question) -> Called {
        if let Some(left) = self.conduct.suspended() {
            let message = format!("suspended for another {} s after too many faults", left.as_secs() + 1);
            return self.unasked(FaultKind::Suspended, message);
        }
        let Some(instance) = self.seats.take(worker) else {
            return self.unasked(FaultKind::Starved, "no instance is ready".into());
        };
        self.conduct.called(worker);
        let (called, spent) = self.seats.ask(worker, instance, question);
        if let Outcome::Fault(fault) = &called.outcome {
            self.faulted(fault, spent);
        }
        called
    }

    /// Asks it as [`Version::decide`] does, but whatever it has done before, and counts nothing: for a replay.
    pub fn again(&self, worker: usize, question: Question) -> Called {
        match self.seats.take(worker) {
            Some(instance) => self.seats.ask(worker, instance, question).0,
            None => self.unasked(FaultKind::Starved, "no instance is ready".into()),
        }
    }

    /// The same with an instance that has never been asked before, and is not asked again.
    ///
    /// # Errors
    /// There is no room for one.
    pub fn afresh(&self, question: Question) -> Result<Called, Error> {
        self.seats.ask_afresh(question)
    }

    #[cold]
    fn faulted(&self, fault: &Fault, spent: Duration) {
        self.count(fault.kind);
        if let Some(Suspended { reason, left }) = self.conduct.faulted(fault, spent) {
            self.seats.hall.suspended.notify_one();
            tracing::error!(policy = %self.name, version = %self.id, seconds = left.as_secs(), reason, "policy suspended");
        }
    }

    /// Whoever keeps the versions shall look at once: something went wrong.
    pub(super) fn alarm(&self) {
        self.seats.hall.suspended.notify_one();
    }

    /// Nobody asks it any more: its instances are given up, whoever may still hold the version.
    pub(super) fn release(&self) {
        self.seats.release();
    }

    /// The suspension that is in force.
    pub fn suspended(&self) -> Option<Suspended> {
        self.conduct.in_force()
    }

    /// What it has counted so far.
    pub fn stats(&self) -> Stats {
        let faults = FaultKind::ALL.into_iter().zip(&self.faults).map(|(kind, count)| (kind, count.load(Relaxed)));
        Stats {
            calls: self.conduct.calls().saturating_sub(self.calls_before),
            faults: faults.filter(|(_, count)| *count > 0).collect(),
            suspensions: self.conduct.suspensions(),
            replaced: self.seats.replaced.load(Relaxed),
            failed_builds: self.seats.failed_builds.load(Relaxed),
            ready: self.seats.ready(),
        }
    }

    /// How many workers ask it.
    pub(super) fn workers(&self) -> usize {
        self.seats.hall.settings.workers
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
        let outcome = Outcome::Fault(Fault { kind, message });
        Called { outcome, reason: String::new(), logs: Vec::new(), tape: None }
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
