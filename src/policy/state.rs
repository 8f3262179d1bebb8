//! State: the small facts of one policy name, behind the WIT interface `state`. They outlive requests, instances and
//! versions, and all workers share them.

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
