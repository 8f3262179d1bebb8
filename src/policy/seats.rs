//! A version's instances: who gets which, and how those that are missing come back.

use super::bindings::PolicyPre;
use super::component::uses_wasi;
use super::context::Context;
use super::hall::{Hall, Job, Refill};
use super::instance::Instance;
use super::limits::Limits;
use super::live::PolicyLive;
use super::question::Question;
use super::refusal::Error;
use super::rooms::Place;
use crate::base::time::process_ms;
use crate::service::decision::{Called, LogLine, Outcome};
use crossbeam_queue::ArrayQueue;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// After an instance could not be built, it is not tried again for this long.
const PAUSE_MS: u64 = 1000;
/// A worker builds an instance itself if that takes no longer.
const QUICK_NS: u64 = 500_000;

/// The instances of one version.
pub(super) struct Seats {
    /// For the log: the policy's name and the version's id.
    name: Arc<str>,
    id: Arc<str>,
    live: Arc<PolicyLive>,
    pub(super) limits: Arc<Limits>,
    config: String,
    pre: PolicyPre<Context>,
    /// It imports WASI, so it can try to wait.
    waits: bool,
    /// One for each worker.
    seats: Vec<Seat>,
    pub(super) replaced: AtomicU64,
    pub(super) failed_builds: AtomicU64,
    /// Instances that can be asked, those that are being asked included; `total()` if none is missing.
    fit: AtomicUsize,
    /// A refill is under way or asked for.
    refilling: AtomicBool,
    /// Nobody asks any more.
    released: AtomicBool,
    /// No new instance is built before this, in ms since the process started.
    build_from_ms: AtomicU64,
    /// How long it took to build one, the quickest.
    build_ns: AtomicU64,
    /// Where they live; none: given back.
    place: Mutex<Option<Arc<Place>>>,
    me: Weak<Seats>,
    pub(super) hall: Arc<Hall>,
}

/// A worker's own instances. On cache lines of its own, since every call writes here.
#[repr(align(128))]
struct Seat {
    /// The one that was asked last, which is asked again: its memory is in the worker's caches.
    last: ArrayQueue<Box<Instance>>,
    ready: ArrayQueue<Box<Instance>>,
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

impl Seats {
    /// Builds all of them. `id` is the version's, `name` the policy's.
    ///
    /// # Errors
    /// What the guest said or how it went wrong.
    pub(super) fn fill(
        hall: Arc<Hall>,
        (place, pre): (Arc<Place>, PolicyPre<Context>),
        (id, name): (Arc<str>, Arc<str>),
        config: String,
        limits: Limits,
        live: Arc<PolicyLive>,
    ) -> Result<Arc<Self>, Error> {
        let (workers, ready) = (hall.settings.workers, hall.settings.ready_per_worker);
        let seat = |_| Seat { last: ArrayQueue::new(1), ready: ArrayQueue::new(ready.saturating_sub(1).max(1)) };
        let waits = uses_wasi(pre.instance_pre().component());
        let seats = Arc::new_cyclic(|me| Seats {
            name,
            id,
            live,
            limits: Arc::new(limits),
            config,
            pre,
            waits,
            seats: (0..workers).map(seat).collect(),
            replaced: AtomicU64::new(0),
            failed_builds: AtomicU64::new(0),
            fit: AtomicUsize::new(workers * ready),
            refilling: AtomicBool::new(false),
            released: AtomicBool::new(false),
            build_from_ms: AtomicU64::new(0),
            build_ns: AtomicU64::new(u64::MAX),
            place: Mutex::new(Some(place)),
            me: me.clone(),
            hall,
        });
        for index in 0..workers * ready {
            // Their ages are spread, so that they are not replaced all at once.
            let age = (index / workers) as u64 * u64::from(seats.limits.calls) / ready as u64;
            let began = Instant::now();
            let (instance, logs) = seats.build(u32::try_from(age).unwrap_or(0))?;
            let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
            seats.build_ns.fetch_min(took, Relaxed);
            if index == 0 {
                seats.tell(&logs);
            }
            seats.seat(index, instance);
        }
        Ok(seats)
    }

    /// An instance for a call on this worker. None: none is ready, nor quickly made.
    pub(super) fn take(&self, worker: usize) -> Option<Box<Instance>> {
        // Twice: with luck, one that another worker took and put back passes by the first look.
        let ready = (0..2).find_map(|_| self.seats_from(worker).find_map(Seat::pop));
        ready.or_else(|| {
            self.refill();
            self.make()
        })
    }

    /// Where that is quick, the worker makes itself an instance: requests that do no harm shall not pay for those that do.
    #[cold]
    fn make(&self) -> Option<Box<Instance>> {
        if self.build_ns.load(Relaxed) > QUICK_NS {
            return None;
        }
        let missing = |fit| (fit < self.total()).then_some(fit + 1);
        self.fit.fetch_update(Relaxed, Relaxed, missing).ok()?;
        match self.build(0) {
            Ok((instance, _)) => Some(instance),
            Err(_) => {
                // Told by the thread that tries the same.
                self.fit.fetch_sub(1, Relaxed);
                None
            }
        }
    }

    /// Asks it, and puts it back or has it replaced. Gives the CPU time that it took, if it went wrong.
    pub(super) fn ask(&self, worker: usize, mut instance: Box<Instance>, question: Question) -> (Called, Duration) {
        let timers = self.waits.then(|| self.hall.timers.enter());
        let running = self.hall.pulse.call(worker);
        let (called, fit) = instance.decide(question);
        drop((running, timers));
        let wrong = matches!(called.outcome, Outcome::Fault(_));
        let spent = if wrong { instance.spent() } else { Duration::ZERO };
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
        (called, spent)
    }

    /// Asks one that is made for this question alone.
    ///
    /// # Errors
    /// It could not be made.
    pub(super) fn ask_afresh(&self, question: Question) -> Result<Called, Error> {
        let (mut instance, _) = self.build(0)?;
        let _timers = self.waits.then(|| self.hall.timers.enter());
        let _running = self.hall.pulse.call(0);
        Ok(instance.decide(question).0)
    }

    /// Gives up all instances, and builds no more.
    pub(super) fn release(&self) {
        self.released.store(true, Relaxed);
        self.place().take();
        self.empty();
    }

    /// Has all that wait taken apart.
    fn empty(&self) {
        for seat in &self.seats {
            while let Some(instance) = seat.pop() {
                self.hall.jobs.discard(instance);
            }
        }
    }

    /// Instances that wait for a request.
    pub(super) fn ready(&self) -> usize {
        self.seats.iter().map(Seat::len).sum()
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
        if self.released.load(Relaxed) {
            return 0;
        }
        self.hall.settings.workers * self.hall.settings.ready_per_worker
    }

    fn seat(&self, worker: usize, mut instance: Box<Instance>) {
        if self.released.load(Relaxed) {
            return self.hall.jobs.discard(instance);
        }
        for seat in self.seats_from(worker) {
            match seat.push(instance) {
                Ok(()) => return,
                // One from another worker's seat, while this one is full.
                Err(back) => instance = back,
            }
        }
        // There are never more instances than places; should it ever be so, one less is right.
        self.fit.fetch_sub(1, Relaxed);
        self.hall.jobs.discard(instance);
    }

    /// One at a time, and only while none is missing: age must not leave a request without an instance.
    fn may_retire(&self) -> bool {
        let total = self.total();
        total > 1 && self.fit.compare_exchange(total, total - 1, Relaxed, Relaxed).is_ok()
    }

    fn replace(&self, used: Box<Instance>) {
        self.replaced.fetch_add(1, Relaxed);
        if self.ready() == 0 && self.build_ns.load(Relaxed) <= QUICK_NS {
            // The thread that would do it is behind: whoever builds for itself also clears up, or there would be no bound.
            drop(used);
        } else {
            self.hall.jobs.discard(used);
        }
        self.refill();
    }

    fn refill(&self) {
        let missing = self.fit.load(Relaxed) < self.total();
        if !missing || process_ms() < self.build_from_ms.load(Relaxed) {
            return;
        }
        if !self.refilling.swap(true, Relaxed) && !self.hall.jobs.send(Job::Refill(self.me.clone())) {
            // No room for the job: the next call that misses an instance asks again.
            self.refilling.store(false, Relaxed);
        }
    }

    fn build(&self, calls: u32) -> Result<(Box<Instance>, Vec<LogLine>), Error> {
        let Some(place) = self.place().clone() else { return Err(Error::System("it was replaced".into())) };
        let _timers = self.waits.then(|| self.hall.timers.enter());
        // Its `init` has a deadline too.
        let _running = self.hall.pulse.call(0);
        Instance::build(place, &self.pre, &self.config, &self.limits, &self.live, self.waits, calls)
    }

    fn place(&self) -> MutexGuard<'_, Option<Arc<Place>>> {
        // Nothing that panics runs under this lock.
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
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

impl Refill for Seats {
    fn refill_one(&self) -> bool {
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
}

impl Drop for Seats {
    fn drop(&mut self) {
        // The last snapshot that held it may go on a worker, which shall not pay for unmapping.
        self.empty();
    }
}
