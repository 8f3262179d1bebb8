//! sticky: a key keeps the endpoint that it was once given, while that is usable. The gateway remembers it, all workers
//! alike; a key that is not known yet is hashed.

use super::{Candidates, Cost, Wanted, hash};
use crate::service::endpoints::Layout;
use lru::LruCache;
use std::num::NonZero;
use std::sync::{Mutex, PoisonError};
use xxhash_rust::xxh64::xxh64;

/// Which endpoint each key was given, by service. A bounded cache: the key longest unused goes first.
#[derive(Debug)]
pub struct Memory {
    /// Several, so that workers seldom meet at one lock; it is held for one lookup, never across an await.
    shards: Vec<Mutex<LruCache<u64, Stuck>>>,
}

#[derive(Debug, Clone, Copy)]
struct Stuck {
    endpoint: u32,
    until_ms: u64,
}

const SHARDS: usize = 16;
/// Keys in each shard: about 100,000 in all.
const KEYS: NonZero<usize> = NonZero::new(6_250).unwrap();

impl Default for Memory {
    fn default() -> Self {
        Memory { shards: (0..SHARDS).map(|_| Mutex::new(LruCache::new(KEYS))).collect() }
    }
}

pub(super) fn pick(candidates: Candidates<'_>, cost: Cost<'_>, wanted: &Wanted<'_>, memory: &Memory) -> u32 {
    // Two keys that share all 64 bits share an endpoint, which hurts nobody.
    let slot = xxh64(wanted.key.as_bytes(), xxh64(wanted.service.name.as_bytes(), 0));
    let ttl = u64::try_from(wanted.service.settings.sticky_ttl.as_millis()).unwrap_or(u64::MAX);
    let until_ms = wanted.now_ms.saturating_add(ttl);
    // Nothing that panics runs under this lock; should it ever, what it holds is still a cache.
    let mut shard = memory.shards[slot as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(kept) = shard.get_mut(&slot).filter(|kept| kept.until_ms > wanted.now_ms)
        && let Some(place) = candidates.find(kept.endpoint)
    {
        kept.until_ms = until_ms;
        return place;
    }
    let place = hash::pick(candidates, cost, wanted, Layout::Race);
    shard.put(slot, Stuck { endpoint: candidates.at(place).id, until_ms });
    place
}
