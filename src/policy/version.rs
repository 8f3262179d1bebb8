//! One loaded version: its ready instances, who gets which, and what it counts.

use super::PolicyLive;
use super::bindings::PolicyPre;
use super::context::Context;
use super::engine::Shared;
use super::instance::Instance;
use super::limits::Limits;
use super::question::Question;
use super::refill::Job;
use super::suspension::Suspension;
use crate::base::time::process_ms;
use crate::service::decision::{Called, Fault, FaultKind, LogLine, Outcome};
use crossbeam_queue::ArrayQueue;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// After an instance could not be built, it is not tried again for this long.
const PAUSE_MS: u64 = 1000;

/// One loaded version with its ready instances.
pub struct Version {
    /// 12 hex digits.
    pub id: Arc<str>,
    /// The policy's name.
    pub name: Arc<str>,
    /// What belongs to that name and outlives the version.
    pub live: Arc<PolicyLive>,
    limits: Arc<Limits>,
    config: String,
    pre: PolicyPre<Context>,
    /// It imports WASI, so it can try to wait.
    waits: bool,
    /// One for each worker.
    seats: Vec<Seat>,
    suspension: Suspension,
    faults: [AtomicU64; FaultKind::ALL.len()],
    replaced: AtomicU64,
    failed_builds: AtomicU64,
    /// Instances that can be asked, those that are being asked included; `total()` if none is missing.
    fit: AtomicUsize,
    /// A refill is under way or asked for.
    refilling: AtomicBool,
    /// No new instance is built before this, in ms since the process started.
    build_from_ms: AtomicU64,
    me: Weak<Version>,
    shared: Arc<Shared>,
}

/// A worker's own instances. On cache lines of its own, since every call writes here.
#[repr(align(128))]
struct Seat {
    /// The one that was asked last, which is asked again: its memory is in the worker's caches.
    last: ArrayQueue<Box<Instance>>,
    ready: ArrayQueue<Box<Instance>>,
    calls: AtomicU64,
}

impl Seat {
    fn pop(&self) -> Option<Box<Instance>> {
        self.last.pop().or_else(|| self.ready.pop())
    }

    /// Gives it back where there is no room.
    fn push(&self, instance: Box<Instance>) -> Result<(), Box<Instance>> {
        self.last.push(instance).or_else(|instance| self.ready.push(instance))
    }

    fn len(&self) -> usize {
        self.last.len() + self.ready.len()
    }
}

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
        shared: Arc<Shared>,
        pre: PolicyPre<Context>,
        (id, name): (Arc<str>, Arc<str>),
        config: String,
        limits: Limits,
        live: Arc<PolicyLive>,
    ) -> Result<Arc<Self>, String> {
        let (workers, ready) = (shared.settings.workers, shared.settings.ready_per_worker);
        let seat = |_| Seat {
            last: ArrayQueue::new(1),
            ready: ArrayQueue::new(ready.saturating_sub(1).max(1)),
            calls: AtomicU64::new(0),
        };
        let waits = super::engine::uses_wasi(pre.instance_pre().component());
        let version = Arc::new_cyclic(|me| Version {
            id,
            name,
            live,
            limits: Arc::new(limits),
            config,
            pre,
            waits,
            seats: (0..workers).map(seat).collect(),
            suspension: Suspension::default(),
            faults: Default::default(),
            replaced: AtomicU64::new(0),
            failed_builds: AtomicU64::new(0),
            fit: AtomicUsize::new(workers * ready),
            refilling: AtomicBool::new(false),
            build_from_ms: AtomicU64::new(0),
            me: me.clone(),
            shared,
        });
        for index in 0..workers * ready {
            // Their ages are spread, so that they are not replaced all at once.
            let age = (index / workers) as u64 * u64::from(version.limits.calls) / ready as u64;
            let (instance, logs) = version.build(u32::try_from(age).unwrap_or(0))?;
            if index == 0 {
                version.tell(&logs);
            }
            version.seat(index, instance);
        }
        Ok(version)
    }

    /// Asks the policy, on a worker's thread: runs to its end without waiting, and never panics.
    pub fn decide(&self, worker: usize, question: Question) -> Called {
        let seat = &self.seats[worker % self.seats.len()];
        seat.calls.fetch_add(1, Relaxed);
        if let Some(left) = self.suspended() {
            let message = format!("suspended for another {} s after too many faults", left.as_secs() + 1);
            return self.unasked(FaultKind::Suspended, message);
        }
        let Some(mut instance) = self.take(worker) else {
            self.refill();
            return self.unasked(FaultKind::Starved, "no instance is ready".into());
        };
        let timers = self.waits.then(|| self.shared.timers.enter());
        let (called, fit) = instance.decide(question);
        drop(timers);
        if let Outcome::Fault(fault) = &called.outcome {
            self.count(fault.kind);
            if self.suspension.fault(process_ms()) {
                tracing::error!(policy = %self.name, version = %self.id, kind = fault.kind.name(),
                    message = fault.message, "policy suspended after too many faults");
            }
        }
        if !fit {
            self.fit.fetch_sub(1, Relaxed);
            self.replace(instance);
        } else if !instance.of_age() {
            self.seat(worker, instance);
        } else if self.may_retire() {
            self.replace(instance);
        } else {
            self.seat(worker, instance);
            // One is missing: on its way, or it could not be built, and it is time to try again.
            self.refill();
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
            calls: self.seats.iter().map(|seat| seat.calls.load(Relaxed)).sum(),
            faults: faults.filter(|(_, count)| *count > 0).collect(),
            suspensions: self.suspension.total(),
            replaced: self.replaced.load(Relaxed),
            failed_builds: self.failed_builds.load(Relaxed),
            ready: self.seats.iter().map(Seat::len).sum(),
        }
    }

    /// What it may use.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// As if many faults had come at once.
    #[cfg(test)]
    pub(super) fn take_all(&self) {
        for seat in &self.seats {
            while seat.pop().is_some() {
                self.fit.fetch_sub(1, Relaxed);
            }
        }
    }

    /// This worker's seat, then those of the others.
    fn seats_from(&self, worker: usize) -> impl Iterator<Item = &Seat> {
        let first = worker % self.seats.len();
        self.seats[first..].iter().chain(&self.seats[..first])
    }

    fn total(&self) -> usize {
        self.shared.settings.workers * self.shared.settings.ready_per_worker
    }

    fn take(&self, worker: usize) -> Option<Box<Instance>> {
        // Twice: with luck, one that another worker took and put back passes by the first look.
        (0..2).find_map(|_| self.seats_from(worker).find_map(Seat::pop))
    }

    fn seat(&self, worker: usize, mut instance: Box<Instance>) {
        for seat in self.seats_from(worker) {
            match seat.push(instance) {
                Ok(()) => return,
                // One from another worker's seat, while this one is full.
                Err(back) => instance = back,
            }
        }
        // There are never more instances than places; should it ever be so, one less is right.
        self.fit.fetch_sub(1, Relaxed);
        self.shared.jobs.discard(instance);
    }

    /// One at a time, and only while none is missing: age must not leave a request without an instance.
    fn may_retire(&self) -> bool {
        let total = self.total();
        total > 1 && self.fit.compare_exchange(total, total - 1, Relaxed, Relaxed).is_ok()
    }

    fn unasked(&self, kind: FaultKind, message: String) -> Called {
        self.count(kind);
        Called { outcome: Outcome::Fault(Fault { kind, message }), reason: String::new(), logs: Vec::new() }
    }

    fn count(&self, kind: FaultKind) {
        self.faults[kind as usize].fetch_add(1, Relaxed);
    }

    fn replace(&self, used: Box<Instance>) {
        self.replaced.fetch_add(1, Relaxed);
        self.shared.jobs.discard(used);
        self.refill();
    }

    fn refill(&self) {
        let missing = self.fit.load(Relaxed) < self.total();
        if !missing || process_ms() < self.build_from_ms.load(Relaxed) {
            return;
        }
        if !self.refilling.swap(true, Relaxed) && !self.shared.jobs.send(Job::Refill(self.me.clone())) {
            // No room for the job: the next call that misses an instance asks again.
            self.refilling.store(false, Relaxed);
        }
    }

    /// Builds one missing instance, on the refill thread. True: there may be more to do.
    pub(super) fn refill_one(&self) -> bool {
        // Before looking: whoever takes an instance from now on asks again.
        self.refilling.store(false, Relaxed);
        let missing = || self.fit.load(Relaxed) < self.total();
        if !missing() {
            return false;
        }
        match self.build(0) {
            Ok((instance, _)) => {
                self.fit.fetch_add(1, Relaxed);
                let emptiest = (0..self.seats.len()).min_by_key(|seat| self.seats[*seat].len());
                self.seat(emptiest.unwrap_or(0), instance);
                missing() && !self.refilling.swap(true, Relaxed)
            }
            Err(error) => {
                self.failed_builds.fetch_add(1, Relaxed);
                self.build_from_ms.store(process_ms() + PAUSE_MS, Relaxed);
                tracing::warn!(policy = %self.name, version = %self.id, %error, "no new instance of a policy");
                false
            }
        }
    }

    fn build(&self, calls: u32) -> Result<(Box<Instance>, Vec<LogLine>), String> {
        let _timers = self.waits.then(|| self.shared.timers.enter());
        Instance::build(&self.pre, &self.config, &self.limits, &self.live, self.waits, calls)
    }

    /// What `init` logged.
    fn tell(&self, logs: &[LogLine]) {
        for LogLine { level, message } in logs {
            let (policy, version) = (&self.name, &self.id);
            match *level {
                tracing::Level::ERROR => tracing::error!(%policy, %version, "{message}"),
                tracing::Level::WARN => tracing::warn!(%policy, %version, "{message}"),
                tracing::Level::INFO => tracing::info!(%policy, %version, "{message}"),
                _ => tracing::debug!(%policy, %version, "{message}"),
            }
        }
    }
}

impl Drop for Version {
    fn drop(&mut self) {
        // The last snapshot that held it may go on a worker, which shall not pay for unmapping.
        for seat in &self.seats {
            while let Some(instance) = seat.pop() {
                self.shared.jobs.discard(instance);
            }
        }
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Version").field("name", &self.name).field("id", &self.id).finish_non_exhaustive()
    }
}
