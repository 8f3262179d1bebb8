//! The record of decisions: what policies were asked, what they read and what they said, in files that a replay reads.
//!
//! A worker makes an entry and hands it to a bounded queue; a thread of its own makes blocks and files of them. What does
//! not fit is dropped and counted. Where nothing is recorded, a request pays for one look at a number.

pub mod asked;
mod bytes;
pub mod entry;
mod folder;
pub mod frame;
pub mod reader;
mod sheet;
#[cfg(test)]
mod tests;
mod told;
pub mod world;
mod writer;

pub use folder::EXTENSION;

use super::counter::{Counter, Counters};
use crate::base::chance::Chance;
use crate::policy::Engine;
use crate::service::catalog::Catalog;
use crate::service::record::Record;
use crate::service::record::taped::{About, Taped};
use crate::service::tape::redaction::Redaction;
use crate::service::tape::settings::Settings;
use arc_swap::ArcSwap;
use asked::Asked;
use crossbeam_queue::ArrayQueue;
use smallvec::SmallVec;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::thread::Thread;
use std::time::Duration;
use world::Opening;

/// Entries that wait for the writer, at most...
const WAITING: usize = 4096;
/// ...and their bytes.
const WAITING_BYTES: usize = 8 << 20;

/// All workers' way into the record.
#[derive(Debug)]
pub struct Recording {
    /// What the workers' seeds follow from.
    seed: u64,
    /// Exchanges whose coin is not above this are recorded; 0: none is.
    most: AtomicU64,
    redaction: ArcSwap<Redaction>,
    /// Made when it is needed first.
    queue: OnceLock<ArrayQueue<Item>>,
    waiting_bytes: AtomicUsize,
    counters: Arc<Counters>,
    /// Entries that found no room since the writer told of it last.
    no_room: AtomicU64,
    stopping: AtomicBool,
    wanted: Mutex<Wanted>,
}

/// What the writer is told.
#[derive(Debug, Default)]
struct Wanted {
    settings: Arc<Settings>,
    /// A record that somebody has asked for.
    asked: Option<Arc<Asked>>,
    writer: Option<(Thread, mpsc::Receiver<()>)>,
}

/// One exchange on its way to the writer.
#[derive(Debug)]
struct Item {
    bytes: Vec<u8>,
    at_ms: u64,
    catalog: Arc<Catalog>,
    versions: SmallVec<[Arc<About>; 1]>,
    /// A policy that has read what was taken out.
    hidden: Option<Arc<str>>,
    /// What decides into which files it goes.
    coin: u64,
}

impl Recording {
    pub(super) fn new(counters: Arc<Counters>) -> Self {
        Recording {
            seed: Chance::seeded().next_u64(),
            most: AtomicU64::new(0),
            redaction: ArcSwap::default(),
            queue: OnceLock::new(),
            waiting_bytes: AtomicUsize::new(0),
            counters,
            no_room: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            wanted: Mutex::default(),
        }
    }

    /// What the seeds of this worker's exchanges follow from.
    pub fn seed(&self, worker: usize) -> u64 {
        worker_seed(self.seed, worker as u64)
    }

    /// The exchange with this seed is recorded.
    #[inline]
    pub(super) fn takes(&self, seed: u64) -> bool {
        let most = self.most.load(Relaxed);
        most > 0 && coin(seed) <= most
    }

    /// Takes in an exchange that is over.
    pub(super) fn put(&self, record: &Record, taped: &Taped, (worker, took): (u32, Duration)) {
        if taped.calls.is_empty() {
            return;
        }
        match told::entry(record, taped, (worker, took), &self.redaction.load()) {
            Some((bytes, hidden)) => self.push(Item {
                bytes,
                hidden,
                coin: coin(record.seed),
                at_ms: record.unix_ms(),
                catalog: Arc::clone(&taped.catalog),
                versions: taped.calls.iter().map(|call| Arc::clone(&call.version)).collect(),
            }),
            None => self.counters.count(Counter::NotRecorded),
        }
    }

    fn push(&self, item: Item) {
        let bytes = item.bytes.len();
        let room = self.waiting_bytes.fetch_add(bytes, Relaxed).saturating_add(bytes) <= WAITING_BYTES;
        let taken = room && self.queue.get().is_some_and(|queue| queue.push(item).is_ok());
        if !taken {
            self.waiting_bytes.fetch_sub(bytes, Relaxed);
            self.no_room.fetch_add(1, Relaxed);
            self.counters.count(Counter::NotRecorded);
        }
    }

    fn pop(&self) -> Option<Item> {
        let item = self.queue.get()?.pop()?;
        self.waiting_bytes.fetch_sub(item.bytes.len(), Relaxed);
        Some(item)
    }

    /// Records as these settings say from now on. Asked each second by each worker.
    pub(super) fn configure(self: &Arc<Self>, settings: &Arc<Settings>) {
        let mut wanted = self.wanted();
        if Arc::ptr_eq(&wanted.settings, settings) {
            return;
        }
        let same = wanted.settings == *settings;
        wanted.settings = Arc::clone(settings);
        if same {
            return;
        }
        // They were checked.
        self.redaction.store(Arc::new(settings.redaction().unwrap_or_default()));
        if let Err(error) = self.follow(&mut wanted) {
            tracing::error!(%error, "nothing is recorded, since no thread can be started");
        }
    }

    /// Records, beside what the settings say, this share of the requests for this time, into one file.
    ///
    /// # Errors
    /// Another such record is being made, or it cannot begin.
    pub fn ask(self: &Arc<Self>, share: f64, time: Duration, now_ms: u64) -> Result<Arc<Asked>, String> {
        if !(share > 0.0 && share <= 1.0) || time.is_zero() || time > asked::LONGEST {
            return Err("the share must be more than 0 and at most 1, the time more than 0 and at most an hour".into());
        }
        let mut wanted = self.wanted();
        if wanted.asked.as_ref().is_some_and(|asked| asked.ended().is_none()) {
            return Err("one is being recorded already; wait for its end".into());
        }
        let Settings { directory, max_size, .. } = &*wanted.settings;
        let asked = Arc::new(Asked::new(directory, threshold(share), now_ms, time, *max_size));
        wanted.asked = Some(Arc::clone(&asked));
        match self.follow(&mut wanted) {
            Ok(()) => Ok(asked),
            Err(error) => {
                wanted.asked = None;
                Err(format!("no thread can be started: {error}"))
            }
        }
    }

    /// The record that was asked for under this name.
    pub fn asked(&self, id: u64) -> Option<Arc<Asked>> {
        self.wanted().asked.clone().filter(|asked| asked.id == id)
    }

    /// It is over: what it alone was for is not recorded any more.
    fn over(self: &Arc<Self>, asked: &Arc<Asked>) {
        let mut wanted = self.wanted();
        if wanted.asked.as_ref().is_some_and(|now| Arc::ptr_eq(now, asked)) {
            wanted.asked = None;
        }
        drop(wanted);
        self.less();
    }

    /// One that was asked for takes nothing any more.
    fn less(self: &Arc<Self>) {
        let mut wanted = self.wanted();
        // The thread that asks is there.
        let _ = self.follow(&mut wanted);
    }

    /// Takes as many as are wanted, and has a thread that writes them.
    fn follow(self: &Arc<Self>, wanted: &mut Wanted) -> std::io::Result<()> {
        let asked = wanted.asked.as_ref().filter(|asked| asked.ended().is_none()).map_or(0, |asked| asked.most);
        let most = threshold(wanted.settings.sample).max(asked);
        if self.stopping.load(Relaxed) {
            return Ok(());
        }
        if most > 0 {
            self.queue.get_or_init(|| ArrayQueue::new(WAITING));
            if wanted.writer.is_none() {
                wanted.writer = Some(writer::start(self)?);
            }
        }
        self.most.store(most, Relaxed);
        if let Some((writer, _)) = &wanted.writer {
            writer.unpark();
        }
        Ok(())
    }

    /// Writes what waits, within this time. Nothing is recorded any more.
    pub(super) fn stop(&self, within: Duration) {
        self.stopping.store(true, Relaxed);
        self.most.store(0, Relaxed);
        let writer = self.wanted().writer.take();
        if let Some((thread, ended)) = writer {
            thread.unpark();
            if ended.recv_timeout(within) == Err(mpsc::RecvTimeoutError::Timeout) {
                tracing::warn!("the last second of the record may be missing: the disk is slow");
            }
        }
    }

    fn opening(&self, settings: &Settings) -> Opening {
        Opening {
            format: 1,
            gateway: env!("CARGO_PKG_VERSION").to_owned(),
            engine: Engine::fingerprint().unwrap_or_default(),
            seed: self.seed,
            redact: settings.redact.clone(),
        }
    }

    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        // Nothing that panics runs under this lock.
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The seed of the exchange with this number, of that worker, where the record file says `seed`.
pub fn exchange_seed(seed: u64, worker: u32, number: u64) -> u64 {
    Chance::at(worker_seed(seed, worker.into()), number)
}

fn worker_seed(seed: u64, worker: u64) -> u64 {
    Chance::at(seed, worker.wrapping_add(1))
}

/// Not a number that a policy draws.
fn coin(seed: u64) -> u64 {
    Chance(!seed).next_u64()
}

/// Of all coins, this share is not above it.
fn threshold(share: f64) -> u64 {
    // 2^64 as a number of this kind ends at the largest one.
    (share * 18_446_744_073_709_551_616.0) as u64
}
