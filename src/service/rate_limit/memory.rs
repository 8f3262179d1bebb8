//! The buckets of all limits, by limit and key. A bounded cache that all workers share: the key longest unused goes, and
//! begins with a full bucket when it comes again.

use super::gcra::{Meter, Taken, Terms};
use super::key::Of;
use lru::LruCache;
use rustc_hash::FxBuildHasher;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Several, so that workers seldom meet at one lock; it is held for one lookup, never across an await.
const SHARDS: usize = 16;
/// Keys in each shard: about 100,000 in all.
const KEYS: usize = 6_250;

#[derive(Debug)]
pub(super) struct Memory {
    /// By the hash of a key; that one is secret, so a fast hash places it.
    shards: Vec<Mutex<LruCache<u64, Bucket, FxBuildHasher>>>,
    /// Clients choose keys: nobody may find two that share a bucket.
    secret: RandomState,
}

#[derive(Debug)]
struct Bucket {
    meter: Meter,
    /// Taken here, of which the store has not told yet.
    owed: u32,
}

impl Default for Memory {
    fn default() -> Self {
        let shard = || Mutex::new(LruCache::unbounded_with_hasher(FxBuildHasher));
        Memory { shards: (0..SHARDS).map(|_| shard()).collect(), secret: RandomState::new() }
    }
}

impl Memory {
    /// Where the bucket of this key of this limit is.
    pub(super) fn slot(&self, limit: u64, key: &Of<'_>) -> u64 {
        let mut hasher = self.secret.build_hasher();
        // Each limit and kind of key apart, in as few pieces as will do: a piece costs more than its bytes.
        let kind = match key {
            Of::All => 0,
            Of::Client(_) => 1,
            Of::Said(_) => 2,
        };
        hasher.write_u64((limit << 2) | kind);
        match key {
            Of::All => {}
            Of::Client(IpAddr::V4(ip)) => hasher.write_u32(ip.to_bits()),
            Of::Client(IpAddr::V6(ip)) => hasher.write_u128(ip.to_bits()),
            Of::Said(said) => hasher.write(said),
        }
        hasher.finish()
    }

    fn shard(&self, slot: u64) -> MutexGuard<'_, LruCache<u64, Bucket, FxBuildHasher>> {
        // Nothing that panics runs under this lock; should it ever, what it holds is still a cache.
        self.shards[slot as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one. `shared`: the store will be told of it.
    pub(super) fn take(&self, slot: u64, terms: Terms, now_ns: u64, shared: bool) -> Taken {
        let mut shard = self.shard(slot);
        let bucket = shard.get_or_insert_mut(slot, || Bucket { meter: Meter::full(terms), owed: 0 });
        let taken = bucket.meter.take(terms, now_ns);
        if shared && taken.granted {
            bucket.owed = bucket.owed.saturating_add(1);
        }
        if shard.len() > KEYS {
            shard.pop_lru();
        }
        taken
    }

    /// The one that was taken last was not used.
    pub(super) fn give_back(&self, slot: u64, shared: bool) {
        if let Some(bucket) = self.shard(slot).peek_mut(&slot) {
            bucket.meter.give_back();
            bucket.owed = bucket.owed.saturating_sub(shared.into());
        }
    }

    /// The store has told of one that was taken here: how many are left. None: it has not.
    pub(super) fn settle(&self, slot: u64, left: Option<f64>, terms: Terms, now_ns: u64) {
        if let Some(bucket) = self.shard(slot).peek_mut(&slot) {
            bucket.owed = bucket.owed.saturating_sub(1);
            if let Some(left) = left {
                bucket.meter = Meter::holding(left - f64::from(bucket.owed), terms, now_ns);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        (0..SHARDS).map(|index| self.shard(index as u64).len()).sum()
    }
}
