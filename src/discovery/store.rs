//! Stores: where policies of several gateways share counters, buckets and values. Nobody waits for one: what is to be done is
//! queued, and what came of it is told later; a store that is away costs nothing but that.

mod redis;

use crate::base::bucket::Rate;
use arc_swap::ArcSwap;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// What waits to be done at most; what comes on top is dropped.
const QUEUE: usize = 10_000;

/// Something to be done with one key.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// Add to a counter, which is born as 0 and then ends after so many ms; 0: never.
    Add(i64, u32),
    /// Take tokens from a bucket, which is born full. They were given away already, so it may come to owe some.
    Take(u32, Rate),
    /// Read a value.
    Get,
    /// Write a value, which ends after so many ms; 0: never.
    Set(String, u32),
    /// The same where there is none.
    GetOrSet(String, u32),
    /// Forget a value.
    Remove,
}

/// What came of it. Times to live are in ms; none: it does not end.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// A counter.
    Counter(i64, Option<u32>),
    /// Tokens in a bucket; less than none where more were given away than there were.
    Tokens(f64),
    /// A value, if there is one.
    Value(Option<(String, Option<u32>)>),
}

/// Told what came of it; none: the store did not answer in time.
pub type Done = Box<dyn FnOnce(Option<Said>) + Send>;

/// What waits in a store's queue.
struct Job {
    key: String,
    op: Op,
    done: Done,
}

/// What a store has done so far.
#[derive(Debug, Default)]
pub struct Numbers {
    /// Answered in time.
    pub answered: AtomicU64,
    /// Not answered, or not in time.
    pub failed: AtomicU64,
    /// Dropped, since too much waited.
    pub dropped: AtomicU64,
    /// Time to the answers, µs.
    pub waited_us: AtomicU64,
}

/// A store that works.
pub struct Store {
    settings: Settings,
    queue: mpsc::Sender<Job>,
    /// What it did.
    pub numbers: Arc<Numbers>,
    failing: Arc<AtomicBool>,
    task: AbortHandle,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("numbers", &self.numbers).finish_non_exhaustive()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Store {
    /// Queues it. Where there is no room, `done` is told so at once.
    pub fn tell(&self, key: String, op: Op, done: Done) {
        if let Err(error) = self.queue.try_send(Job { key, op, done }) {
            self.numbers.dropped.fetch_add(1, Relaxed);
            (error.into_inner().done)(None);
        }
    }

    /// It did not answer lately.
    pub fn failing(&self) -> bool {
        self.failing.load(Relaxed)
    }
}

/// `[stores.NAME]`. Equal to another one that says the same.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    redis: crate::discovery::registry::redis::Settings,
    own: Own,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Own {
    /// Before each key.
    #[serde(default = "prefix")]
    prefix: String,
    /// In which an answer is of use.
    #[serde(default = "deadline", with = "crate::base::duration")]
    deadline: Duration,
}

fn prefix() -> String {
    "wayside:".to_owned()
}
fn deadline() -> Duration {
    Duration::from_millis(5)
}

impl Settings {
    /// Reads a table. Relative paths are relative to the folder.
    ///
    /// # Errors
    /// The key that is wrong, and what was expected.
    pub fn parse(mut table: toml::Table, folder: &Path) -> Result<Self, String> {
        match table.remove("kind") {
            Some(toml::Value::String(kind)) if kind == "redis" => {}
            _ => return Err("`kind`: expected `redis`".to_owned()),
        }
        let (redis, own): (crate::discovery::registry::redis::Settings, Own) = crate::base::keys::share(table)?;
        if own.deadline.is_zero() {
            return Err("`deadline`: must be more than 0".to_owned());
        }
        Ok(Settings { redis: redis.at(folder), own })
    }

    fn open(&self) -> Store {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let (numbers, failing) = (Arc::new(Numbers::default()), Arc::new(AtomicBool::new(true)));
        let worker = redis::Worker::new(self, Arc::clone(&numbers), Arc::clone(&failing));
        let task = tokio::spawn(worker.run(jobs)).abort_handle();
        Store { settings: self.clone(), queue, numbers, failing, task }
    }
}

/// The stores that there are, by name. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Stores(Arc<ArcSwap<BTreeMap<Arc<str>, Arc<Store>>>>);

impl Stores {
    /// These from now on; those that stay as they were go on.
    pub fn declare(&self, declared: &BTreeMap<Arc<str>, Settings>) {
        let before = self.0.load();
        let store = |(name, settings): (&Arc<str>, &Settings)| {
            let same = before.get(name).filter(|store| store.settings == *settings).map(Arc::clone);
            (Arc::clone(name), same.unwrap_or_else(|| Arc::new(settings.open())))
        };
        self.0.store(Arc::new(declared.iter().map(store).collect()));
    }

    /// The store of this name.
    pub fn get(&self, name: &str) -> Option<Arc<Store>> {
        self.0.load().get(name).map(Arc::clone)
    }

    /// All of them.
    pub fn all(&self) -> Vec<(Arc<str>, Arc<Store>)> {
        self.0.load().iter().map(|(name, store)| (Arc::clone(name), Arc::clone(store))).collect()
    }
}
