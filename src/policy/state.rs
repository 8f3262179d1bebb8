//! State: the small facts of one policy name, behind the WIT interface `state`. They outlive requests, instances and
//! versions, and all workers share them; other gateways do where they are shared through a store.

mod shared;

pub(super) use shared::Sharing;

pub use crate::base::bucket::{Rate, Taken};

use crate::base::bucket::Bucket;
use lru::LruCache;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use xxhash_rust::xxh64::xxh64;

/// Several, so that workers seldom meet at one lock; each is held for one operation.
const SHARDS: usize = 16;
/// What a key costs beside its own bytes and those of its value.
const OVERHEAD: usize = 128;

/// Counters, buckets and values by key. Times are ms since 1970, as the exchange sees them.
#[derive(Debug)]
pub struct State {
    shards: Vec<Mutex<Shard>>,
    keys: AtomicUsize,
    bytes: AtomicUsize,
    evicted: AtomicU64,
}

#[derive(Debug)]
struct Shard {
    /// The three spaces side by side: what a key is in each of them.
    facts: LruCache<String, Facts>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Facts {
    counter: Option<(i64, Expiry)>,
    bucket: Option<Bucket>,
    value: Option<(Box<str>, Expiry)>,
    shared: Shared,
}

/// What a copy of shared facts knows of how it stands to the store.
#[derive(Debug, Default)]
struct Shared {
    /// Added here, of which the store has not told yet.
    unsettled: i64,
    /// Tokens given here, the same.
    owed: f64,
    /// Writes of the value here.
    writes: u32,
    /// When the value was asked for last, in ms since 1970.
    read_ms: u64,
}

/// When something ends, in ms since 1970.
#[derive(Debug, Clone, Copy)]
struct Expiry(u64);

impl Expiry {
    fn after(now_ms: u64, ttl_ms: u32) -> Self {
        Expiry(if ttl_ms == 0 { u64::MAX } else { now_ms.saturating_add(ttl_ms.into()) })
    }

    fn over(self, now_ms: u64) -> bool {
        self.0 <= now_ms
    }
}

impl State {
    /// `keys` and `bytes` are the quota.
    pub fn new(keys: usize, bytes: usize) -> Self {
        let shard = || Mutex::new(Shard { facts: LruCache::unbounded(), bytes: 0 });
        State {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            keys: AtomicUsize::new(keys),
            bytes: AtomicUsize::new(bytes),
            evicted: AtomicU64::new(0),
        }
    }

    /// Changes the quota; what is too much goes when something new comes.
    pub fn set_quota(&self, keys: usize, bytes: usize) {
        self.keys.store(keys, Relaxed);
        self.bytes.store(bytes, Relaxed);
    }

    /// Keys that had to go because of the quota.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Relaxed)
    }

    /// Keys held.
    pub fn keys(&self) -> usize {
        (0..SHARDS).map(|index| self.lock(index).facts.len()).sum()
    }

    /// Adds and gives the new value. A counter is born as 0, its time to live runs from birth.
    pub fn add(&self, key: &str, delta: i32, ttl_ms: u32, now_ms: u64) -> i64 {
        let live = |facts: &mut Facts| match &mut facts.counter {
            Some((value, expiry)) if !expiry.over(now_ms) => {
                *value = value.saturating_add(delta.into());
                Some(*value)
            }
            _ => None,
        };
        if let Some(value) = self.lock(shard(key)).facts.get_mut(key).and_then(live) {
            return value;
        }
        if delta == 0 {
            return 0;
        }
        self.with(key, |facts| {
            // Another worker may have been quicker between the two locks.
            live(facts).unwrap_or_else(|| {
                facts.counter = Some((delta.into(), Expiry::after(now_ms, ttl_ms)));
                delta.into()
            })
        })
    }

    /// Takes tokens from a bucket, which is born full.
    pub fn take(&self, key: &str, tokens: u32, rate: Rate, now_ms: u64) -> Taken {
        self.with(key, |facts| {
            facts.bucket.get_or_insert_with(|| Bucket::full(rate, now_ms)).take(tokens, rate, now_ms)
        })
    }

    /// The value.
    pub fn get(&self, key: &str, now_ms: u64) -> Option<String> {
        let mut shard = self.lock(shard(key));
        let (value, expiry) = shard.facts.get_mut(key)?.value.as_ref()?;
        (!expiry.over(now_ms)).then(|| value.as_ref().to_owned())
    }

    /// Stores a value; its time to live runs from now.
    pub fn set(&self, key: &str, value: &str, ttl_ms: u32, now_ms: u64) {
        self.with(key, |facts| facts.value = Some((value.into(), Expiry::after(now_ms, ttl_ms))));
    }

    /// Stores the value unless there is one; gives the one that is there now.
    pub fn get_or_set(&self, key: &str, value: &str, ttl_ms: u32, now_ms: u64) -> String {
        self.with(key, |facts| match &facts.value {
            Some((value, expiry)) if !expiry.over(now_ms) => value.as_ref().to_owned(),
            _ => {
                facts.value = Some((value.into(), Expiry::after(now_ms, ttl_ms)));
                value.to_owned()
            }
        })
    }

    /// Forgets a value.
    pub fn remove(&self, key: &str) {
        let mut guard = self.lock(shard(key));
        let shard = &mut *guard;
        let Some(facts) = shard.facts.get_mut(key) else { return };
        shard.bytes -= facts.value.take().map_or(0, |(value, _)| value.len());
        if facts.counter.is_none() && facts.bucket.is_none() {
            shard.facts.pop(key);
            shard.bytes -= key.len() + OVERHEAD;
        }
    }

    /// Adds to the copy of a counter; the store is yet to tell what it comes to.
    fn add_unsettled(&self, key: &str, delta: i32, ttl_ms: u32, now_ms: u64) -> i64 {
        self.with(key, |facts| {
            let (value, expiry) = match facts.counter {
                Some((value, expiry)) if !expiry.over(now_ms) => (value, expiry),
                _ => (0, Expiry::after(now_ms, ttl_ms)),
            };
            let value = value.saturating_add(delta.into());
            facts.counter = Some((value, expiry));
            facts.shared.unsettled = facts.shared.unsettled.saturating_add(delta.into());
            value
        })
    }

    /// The store tells of an addition: the counter, and how long it lives (0: for ever). None: it does not.
    fn settle_counter(&self, key: &str, delta: i64, said: Option<(i64, u32)>, now_ms: u64) {
        self.with(key, |facts| {
            facts.shared.unsettled = facts.shared.unsettled.saturating_sub(delta);
            if let Some((value, ttl_ms)) = said {
                let value = value.saturating_add(facts.shared.unsettled);
                facts.counter = Some((value, Expiry::after(now_ms, ttl_ms)));
            }
        });
    }

    /// Takes tokens from the copy of a bucket; the store is yet to tell what is left.
    fn take_unsettled(&self, key: &str, tokens: u32, rate: Rate, now_ms: u64) -> Taken {
        self.with(key, |facts| {
            let taken = facts.bucket.get_or_insert_with(|| Bucket::full(rate, now_ms)).take(tokens, rate, now_ms);
            if taken.granted {
                facts.shared.owed += f64::from(tokens);
            }
            taken
        })
    }

    /// The store tells of taking `tokens`: what is left. None: it does not.
    fn settle_bucket(&self, key: &str, tokens: u32, left: Option<f64>, now_ms: u64) {
        self.with(key, |facts| {
            facts.shared.owed = (facts.shared.owed - f64::from(tokens)).max(0.0);
            if let Some(left) = left {
                facts.bucket = Some(Bucket::of(left - facts.shared.owed, now_ms));
            }
        });
    }

    /// Whether the value is to be asked for, since that was not done for so long; and how often it was written here.
    fn asks(&self, key: &str, fresh_ms: u64, now_ms: u64) -> Option<u32> {
        self.with(key, |facts| {
            let due = facts.shared.read_ms.saturating_add(fresh_ms) <= now_ms;
            due.then(|| {
                facts.shared.read_ms = now_ms;
                facts.shared.writes
            })
        })
    }

    /// The value is written here, so that what was asked for before is no news. Gives the count.
    fn writes(&self, key: &str) -> u32 {
        self.with(key, |facts| {
            facts.shared.writes = facts.shared.writes.wrapping_add(1);
            facts.shared.writes
        })
    }

    /// The store tells the value, and how long it lives (0: for ever), as it was after so many writes here.
    fn settle_value(&self, key: &str, value: Option<(String, u32)>, writes: u32, now_ms: u64) {
        self.with(key, |facts| {
            if facts.shared.writes == writes {
                facts.value = value.map(|(value, ttl_ms)| (value.into(), Expiry::after(now_ms, ttl_ms)));
            }
        });
    }

    /// Changes the facts of a key, which is born if need be, and keeps the quota.
    fn with<T>(&self, key: &str, change: impl FnOnce(&mut Facts) -> T) -> T {
        let mut guard = self.lock(shard(key));
        let shard = &mut *guard;
        let facts = shard.facts.get_or_insert_mut_ref(key, || {
            shard.bytes += key.len() + OVERHEAD;
            Facts::default()
        });
        let before = facts.value_bytes();
        let result = change(facts);
        shard.bytes = shard.bytes + facts.value_bytes() - before;
        let keys = self.keys.load(Relaxed).div_ceil(SHARDS);
        let bytes = self.bytes.load(Relaxed).div_ceil(SHARDS);
        // The newest one always stays.
        while shard.facts.len() > 1 && (shard.facts.len() > keys || shard.bytes > bytes) {
            let Some((key, facts)) = shard.facts.pop_lru() else { break };
            shard.bytes -= key.len() + OVERHEAD + facts.value_bytes();
            self.evicted.fetch_add(1, Relaxed);
        }
        result
    }

    fn lock(&self, index: usize) -> MutexGuard<'_, Shard> {
        // Nothing that panics runs under this lock; should it ever, what it holds is still small facts.
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Facts {
    fn value_bytes(&self) -> usize {
        self.value.as_ref().map_or(0, |(value, _)| value.len())
    }
}

fn shard(key: &str) -> usize {
    // The upper bits, since the map inside may use the lower ones.
    (xxh64(key.as_bytes(), 0) >> 60) as usize % SHARDS
}

#[cfg(test)]
mod tests;
