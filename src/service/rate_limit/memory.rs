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

/// Another number for each number: the end of MurmurHash3 (Appleby's `fmix64`), which can be turned round.
fn spread(number: u64, mask: u64) -> u64 {
    let number = number ^ mask;
    let number = (number ^ number >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let number = (number ^ number >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    number ^ number >> 33
}

#[derive(Debug)]
pub(super) struct Memory {
    /// By the hash of a key; that one is secret, so a fast hash places it.
    shards: Vec<Mutex<LruCache<u64, Bucket, FxBuildHasher>>>,
    /// Clients choose keys: nobody may find two that share a bucket.
    secret: RandomState,
    /// The same for keys that are no longer than a slot's number: each has one of its own, and nobody knows which.
    mask: u64,
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
        let secret = RandomState::new();
        Memory { shards: (0..SHARDS).map(|_| shard()).collect(), mask: secret.hash_one(SHARDS), secret }
    }
}

impl Memory {
    /// Where the bucket of this key of this limit is.
    pub(super) fn slot(&self, limit: u64, key: &Of<'_>) -> u64 {
        // Each limit and kind of key apart; 32 bits are left for the key, and 30 are enough for all limits that ever were.
        let whole = |kind: u64, key: u32| spread(((limit << 2) | kind) << 32 | u64::from(key), self.mask);
        let hashed = |kind: u64, key: &[u8]| {
            let mut hasher = self.secret.build_hasher();
            hasher.write_u64((limit << 2) | kind);
            hasher.write(key);
            hasher.finish()
        };
        match key {
            Of::All => whole(0, 0),
            Of::Client(IpAddr::V4(ip)) => whole(1, ip.to_bits()),
            Of::Client(IpAddr::V6(ip)) => hashed(2, &ip.octets()),
            Of::Said(said) => hashed(3, said),
        }
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
