//! The hall: what all versions of a gateway share. Threads, timers, linkers, and how much room there is.

use super::instance::Instance;
use super::rooms::{Place, Rooms};
use super::settings::EngineSettings;
use super::ticker::{self, Pulse};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use tokio::sync::Notify;

/// Jobs that wait at most.
const WAITING: usize = 1024;

/// What versions need of their engine.
pub(super) struct Hall {
    pub(super) settings: EngineSettings,
    pub(super) jobs: Jobs,
    /// Ticks for calls that run.
    pub(super) pulse: Arc<Pulse>,
    /// WASI's timers panic where there is no runtime. Nobody drives this one: a guest that waits is never woken.
    pub(super) timers: Timers,
    /// Somebody was suspended.
    pub(super) suspended: Notify,
    rooms: Arc<Rooms>,
    /// Dropped after `jobs`, whose end ends the first thread.
    _threads: Threads,
}

impl Hall {
    /// Makes room, and starts the threads.
    ///
    /// # Errors
    /// The system has no threads, or no room at all.
    pub(super) fn open(settings: EngineSettings) -> anyhow::Result<Self> {
        let rooms = Rooms::open(&settings);
        let rooms = Arc::new(rooms.map_err(|error| anyhow::anyhow!("{error:#}"))?);
        let (pulse, ticker) = ticker::start(&rooms, settings.workers)?;
        let mut threads = Threads { pulse: Arc::clone(&pulse), threads: vec![ticker] };
        let (jobs, refill) = refill()?;
        threads.threads.push(refill);
        let timers = Timers::new()?;
        Ok(Hall { settings, jobs, pulse, timers, suspended: Notify::new(), rooms, _threads: threads })
    }

    /// A place for one more version.
    pub(super) fn place(&self) -> Arc<Place> {
        Arc::new(self.rooms.place(self.settings.instances()))
    }
}

/// Whose instances are missing.
pub(super) trait Refill: Send + Sync {
    /// Builds one missing instance. True: there may be more to do.
    fn refill_one(&self) -> bool;
}

/// What no worker shall have to do.
pub(super) enum Job {
    /// Take it apart.
    Discard(Box<Instance>),
    /// Build what is missing.
    Refill(Weak<dyn Refill>),
}

/// Where jobs go.
pub(super) struct Jobs(SyncSender<Job>);

impl Jobs {
    /// False: there is no room.
    pub(super) fn send(&self, job: Job) -> bool {
        self.0.try_send(job).is_ok()
    }

    /// Has an instance taken apart; here, if there is no room.
    pub(super) fn discard(&self, used: Box<Instance>) {
        self.send(Job::Discard(used));
    }
}

/// Starts the thread that builds new instances and takes used ones apart. It ends when the last [`Jobs`] is gone.
fn refill() -> std::io::Result<(Jobs, JoinHandle<()>)> {
    let (send, receive) = sync_channel(WAITING);
    let thread = thread::Builder::new().name("policy-refill".into()).spawn(move || work(&receive))?;
    Ok((Jobs(send), thread))
}

fn work(jobs: &Receiver<Job>) {
    // Versions that need more. One instance for each in turn, so that a slow one does not hold up the others.
    let mut needy: Vec<Weak<dyn Refill>> = Vec::new();
    loop {
        let next = if needy.is_empty() { jobs.recv().ok() } else { None };
        let mut more = next.or_else(|| jobs.try_recv().ok());
        if more.is_none() && needy.is_empty() {
            return;
        }
        while let Some(job) = more {
            match job {
                Job::Discard(instance) => drop(instance),
                Job::Refill(version) => needy.push(version),
            }
            more = jobs.try_recv().ok();
        }
        needy.retain(|version| version.upgrade().is_some_and(|version| version.refill_one()));
    }
}

/// A runtime that is never run.
pub(super) struct Timers(Option<tokio::runtime::Runtime>);

impl Timers {
    fn new() -> std::io::Result<Self> {
        Ok(Timers(Some(tokio::runtime::Builder::new_current_thread().enable_time().build()?)))
    }

    /// Timers work while this is held.
    pub(super) fn enter(&self) -> Option<tokio::runtime::EnterGuard<'_>> {
        self.0.as_ref().map(tokio::runtime::Runtime::enter)
    }
}

impl Drop for Timers {
    fn drop(&mut self) {
        // The last version may go on a worker, where dropping a runtime the plain way panics.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

struct Threads {
    pulse: Arc<Pulse>,
    threads: Vec<JoinHandle<()>>,
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.pulse.stop();
        for handle in self.threads.drain(..) {
            // The refill thread itself drops the last version if it was just readying it.
            if handle.thread().id() != thread::current().id() && handle.join().is_err() {
                tracing::error!("a thread of the policy engine panicked");
            }
        }
    }
}
