//! Rate limits: how many requests of one key come through, whatever they are for. They are counted before anybody is asked
//! where a request goes. Each limit decides at once, by what this gateway knows; one that is shared tells its store what it
//! granted, and what the store says corrects the copy.

mod gcra;
pub(in crate::service) mod key;
mod memory;
mod rate;
pub mod settings;

use crate::base::bucket;
use crate::base::time::{process_ns, process_ns_at};
use crate::discovery::store::{Op, Said, Stores};
use crate::http::fields::Fields;
use crate::http::request::Head;
use crate::service::route::Index;
use gcra::Taken;
use memory::Memory;
pub use settings::Declared;
use smallvec::SmallVec;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

const SECOND_NS: u64 = 1_000_000_000;

/// The limits of a snapshot, in the configuration's order. Clones share what they count.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    limits: Arc<[Limit]>,
    /// Of their rules.
    index: Arc<Index>,
    memory: Arc<Memory>,
    /// Numbers given to limits so far.
    given: u64,
}

/// One limit.
#[derive(Debug, Clone)]
struct Limit {
    declared: Arc<Declared>,
    live: Arc<Live>,
}

/// What belongs to a limit's name and survives every snapshot.
#[derive(Debug)]
struct Live {
    /// Tells its keys from those of others.
    number: u64,
    refused: AtomicU64,
}

/// How a request stands with the limits that are about it: with the one that refused it, else with the one of which the
/// fewest are left.
#[derive(Debug, Clone)]
pub struct Standing {
    /// That limit.
    pub limit: Arc<Declared>,
    /// What taking from it came to.
    taken: Taken,
}

/// One limit that is about a request, and what taking from it came to.
struct Asked<'a> {
    limit: &'a Limit,
    slot: u64,
    taken: Taken,
}

/// Of so few limits, asking each whether it is about a request costs less than to look for those that may be.
const FEW: usize = 4;

impl Limits {
    /// These from now on. What was counted under a name goes on, whatever its rate is now.
    #[must_use]
    pub fn declare(&self, declared: &[Arc<Declared>]) -> Self {
        let mut given = self.given;
        let limit = |declared: &Arc<Declared>| {
            let before = self.limits.iter().find(|limit| limit.declared.name == declared.name);
            let live = before.map(|limit| Arc::clone(&limit.live)).unwrap_or_else(|| {
                given += 1;
                Arc::new(Live { number: given, refused: AtomicU64::new(0) })
            });
            Limit { declared: Arc::clone(declared), live }
        };
        let limits = declared.iter().map(limit).collect();
        let index = Arc::new(Index::of(declared.iter().map(|declared| &declared.matcher)));
        Limits { limits, index, memory: Arc::clone(&self.memory), given }
    }

    /// Takes from each limit that is about this request, which came at `now`; none: there is none. If one of them refuses,
    /// the others are given back what was taken, and have told no store of it.
    pub fn take(&self, head: &Head, stores: &Stores, now: Instant) -> Option<Standing> {
        if self.limits.is_empty() {
            return None;
        }
        let now_ns = process_ns_at(now);
        let mut asked: SmallVec<[Asked<'_>; 2]> = SmallVec::new();
        if self.limits.len() <= FEW {
            for limit in self.limits.iter().filter(|limit| limit.declared.matcher.fits(head)) {
                asked.push(self.ask(limit, head, stores, now_ns));
            }
        } else {
            let about = self.index.candidates(head).filter_map(|number| self.limits.get(number));
            for limit in about.filter(|limit| limit.declared.matcher.fits(head)) {
                asked.push(self.ask(limit, head, stores, now_ns));
            }
        }
        let refused = asked.iter().filter(|asked| !asked.taken.granted).max_by_key(|asked| asked.taken.wait_ns);
        if let Some(by) = refused {
            by.limit.live.refused.fetch_add(1, Relaxed);
            for other in asked.iter().filter(|asked| asked.taken.granted) {
                self.memory.give_back(other.slot, other.limit.declared.store.is_some());
            }
            return Some(by.standing());
        }
        asked.iter().for_each(|asked| self.tell(asked, head, stores));
        asked.iter().min_by_key(|asked| asked.taken.left).map(Asked::standing)
    }

    fn ask<'a>(&self, limit: &'a Limit, head: &'a Head, stores: &Stores, now_ns: u64) -> Asked<'a> {
        let Declared { key, terms, store, closed, .. } = &*limit.declared;
        let slot = self.memory.slot(limit.live.number, &key.of(head));
        let fails = |store: &Arc<str>| stores.get(store).is_none_or(|store| store.failing());
        let taken = match store.as_ref().filter(|_| *closed) {
            // When it will be back, nobody knows.
            Some(store) if fails(store) => Taken { granted: false, left: 0, wait_ns: SECOND_NS },
            _ => self.memory.take(slot, *terms, now_ns, store.is_some()),
        };
        Asked { limit, slot, taken }
    }

    /// Tells the store what was granted, if there is one; what that says of it corrects the copy.
    fn tell(&self, asked: &Asked<'_>, head: &Head, stores: &Stores) {
        let Declared { name, key, rate, terms, store, .. } = &*asked.limit.declared;
        let Some(store) = store else { return };
        let (memory, slot, terms) = (Arc::clone(&self.memory), asked.slot, *terms);
        let done = move |said: Option<Said>| {
            let left = match said {
                Some(Said::Tokens(left)) => Some(left),
                _ => None,
            };
            memory.settle(slot, left, terms, process_ns());
        };
        let rate = bucket::Rate { per_second: rate.per_second(), burst: terms.burst };
        match stores.get(store) {
            // No policy's name has a slash in it.
            Some(store) => {
                store.tell(format!("rate_limits/{name}:{}", key.of(head).digest()), Op::Take(1, rate), Box::new(done));
            }
            None => done(None),
        }
    }

    /// Each with how many requests it has refused.
    pub fn refused(&self) -> impl Iterator<Item = (&Arc<Declared>, u64)> {
        self.limits.iter().map(|limit| (&limit.declared, limit.live.refused.load(Relaxed)))
    }
}

impl Asked<'_> {
    fn standing(&self) -> Standing {
        Standing { limit: Arc::clone(&self.limit.declared), taken: self.taken }
    }
}

impl Standing {
    /// The request was refused.
    pub fn is_refusal(&self) -> bool {
        !self.taken.granted
    }

    /// Adds what a client is told: of a refusal, when to come again (RFC 9110 §10.2.3), and how it stands by
    /// draft-ietf-httpapi-ratelimit-headers-11. `t` is when the next one is there where none is left, else when all are.
    pub fn tell(&self, headers: &mut Fields) {
        let Declared { quoted, rate, terms, headers: told, .. } = &*self.limit;
        let Taken { granted, left, wait_ns } = self.taken;
        // Rounded up, so that waiting so long is enough.
        let seconds = |ns: u64| ns.div_ceil(SECOND_NS).max(1);
        if !granted {
            headers.append("retry-after", seconds(wait_ns).to_string().as_bytes());
        }
        if !told {
            return;
        }
        if !granted {
            let policy = format!("{quoted};q={};w={}", rate.count, rate.seconds);
            headers.append("ratelimit-policy", policy.as_bytes());
        }
        let until = match granted && left == 0 {
            true => wait_ns.saturating_sub(terms.whole_ns() - terms.interval_ns),
            false => wait_ns,
        };
        // Goes with every answer: written without the machinery of formats.
        let (mut rest, mut all) = (itoa::Buffer::new(), itoa::Buffer::new());
        let (rest, all) = (rest.format(left).as_bytes(), all.format(seconds(until)).as_bytes());
        headers.append_parts("ratelimit", &[quoted.as_bytes(), b";r=", rest, b";t=", all]);
    }
}

#[cfg(test)]
mod tests;
