//! The hall: what all versions of a gateway share. Threads, timers, linkers, and how much room there is.

use super::bindings::{Policy, PolicyPre};
use super::component::uses_wasi;
use super::context::{Context, TICK};
use super::instance::Instance;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use tokio::sync::Notify;
use wasmtime::component::{Component, HasSelf, Linker};

/// Jobs that wait at most.
const WAITING: usize = 1024;

/// How much an engine makes room for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineSettings {
    /// Threads that ask policies.
    pub workers: usize,
    /// Instances of each version that are kept ready for each worker. A fault uses one up, and the thread that builds new
    /// ones must keep up with the faults that suspend nobody: for a Rust policy that is 40,000 a second, for one in Python
    /// 1,900. These bridge the time until that thread is run; then workers build for themselves, if that is quick.
    pub ready_per_worker: usize,
    /// Versions that there is room for at a time, the live ones and those that are being readied. Room is address
    /// space, not memory: about 4 GiB for each instance.
    pub versions: usize,
}

impl EngineSettings {
    /// The defaults: eight ready instances among the workers, or two for each, and room for 32 versions.
    pub fn for_workers(workers: usize) -> Self {
        let workers = workers.max(1);
        EngineSettings { workers, ready_per_worker: 8_usize.div_ceil(workers).max(2), versions: 32 }
    }

    /// Nothing works with none.
    pub(super) fn at_least_one(self) -> Self {
        let EngineSettings { workers, ready_per_worker, versions } = self;
        EngineSettings { workers: workers.max(1), ready_per_worker: ready_per_worker.max(1), versions: versions.max(1) }
    }
}

/// What versions need of their engine.
pub(super) struct Hall {
    pub(super) settings: EngineSettings,
    pub(super) jobs: Jobs,
    /// WASI's timers panic where there is no runtime. Nobody drives this one: a guest that waits is never woken.
    pub(super) timers: Timers,
    /// Somebody was suspended.
    pub(super) suspended: Notify,
    pub(super) engine: wasmtime::Engine,
    pub(super) linkers: Linkers,
    /// Dropped after `jobs`, whose end ends the first thread.
    _threads: Threads,
}

impl Hall {
    /// Starts the threads.
    ///
    /// # Errors
    /// The system has none, or the linkers cannot be made.
    pub(super) fn open(settings: EngineSettings, engine: wasmtime::Engine) -> anyhow::Result<Self> {
        let linkers = Linkers::new(&engine).map_err(|error| anyhow::anyhow!("{error:#}"))?;
        let stop = Arc::new(AtomicBool::new(false));
        let ticker = ticker(&engine, Arc::clone(&stop))?;
        let (jobs, refill) = refill()?;
        let timers = Timers::new()?;
        let threads = Threads { stop, threads: vec![ticker, refill] };
        Ok(Hall { settings, jobs, timers, suspended: Notify::new(), engine, linkers, _threads: threads })
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

/// What components are linked with. Those that import no WASI get none: without its functions, which may wait, a call
/// needs no stack of its own.
pub(super) struct Linkers {
    plain: Linker<Context>,
    wasi: Linker<Context>,
}

impl Linkers {
    pub(super) fn new(engine: &wasmtime::Engine) -> wasmtime::Result<Self> {
        let mut plain = Linker::new(engine);
        Policy::add_to_linker::<_, HasSelf<_>>(&mut plain, |context: &mut Context| context)?;
        let mut wasi = plain.clone();
        // Never the synchronous one: it blocks the worker, or panics in its runtime.
        wasmtime_wasi::p2::add_to_linker_async(&mut wasi)?;
        Ok(Linkers { plain, wasi })
    }

    pub(super) fn link(&self, component: &Component) -> Result<PolicyPre<Context>, String> {
        let linker = if uses_wasi(component) { &self.wasi } else { &self.plain };
        let pre = linker.instantiate_pre(component).map_err(|error| format!("cannot be linked: {error:#}"))?;
        PolicyPre::new(pre).map_err(|error| format!("does not export what a policy must: {error:#}"))
    }
}

/// Advances the epoch, on a thread of its own that starves less than a worker's.
fn ticker(engine: &wasmtime::Engine, stop: Arc<AtomicBool>) -> std::io::Result<JoinHandle<()>> {
    // Weak: an engine that only its ticker holds would never end.
    let engine = engine.weak();
    thread::Builder::new().name("policy-ticker".into()).spawn(move || {
        // Needs a privilege; without it, deadlines are looked at a little later on a busy machine.
        let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), -10);
        while !stop.load(Relaxed) {
            thread::sleep(TICK);
            match engine.upgrade() {
                Some(engine) => engine.increment_epoch(),
                None => return,
            }
        }
    })
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
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        for handle in self.threads.drain(..) {
            // The refill thread itself drops the last version if it was just readying it.
            if handle.thread().id() != thread::current().id() && handle.join().is_err() {
                tracing::error!("a thread of the policy engine panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_instances_are_ready_whatever_the_number_of_workers() {
        for workers in 0..100 {
            let EngineSettings { workers, ready_per_worker, .. } = EngineSettings::for_workers(workers);
            assert!(workers * ready_per_worker >= 8 && ready_per_worker >= 2);
        }
    }
}
