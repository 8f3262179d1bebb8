//! weighted-round-robin, smooth. Of a few, nginx's algorithm (commit 52327e0627f4, 2012): each turn every endpoint gains its
//! weight, the richest is picked and pays the total; so a 5:1:1 mix goes a a b a c a a, never a a a a a b c. Of many, for
//! which that takes too long, strides over a line.

mod stride;

use super::Candidates;
use crate::base::chance::Chance;
use rustc_hash::FxHashMap;
use std::sync::Arc;
use stride::Strides;

/// Up to so many are few.
const FEW: usize = 32;
/// Strides that may end at somebody who was tried, before all candidates are walked over.
const STRIDES: usize = 64;
/// Lines of a service that one has strode over; where there are more, all begin anew.
const LINES: usize = 256;

/// How far each service is. Per worker: a shared schedule would need a lock.
#[derive(Debug, Default)]
pub(super) struct Schedules {
    services: FxHashMap<Arc<str>, Schedule>,
}

#[derive(Debug, Default)]
struct Schedule {
    /// What each endpoint has gained.
    gained: FxHashMap<u32, i64>,
    /// On each line.
    strides: FxHashMap<u64, Strides>,
}

impl Schedules {
    pub(super) fn pick(&mut self, service: &Arc<str>, candidates: Candidates<'_>, chance: &mut Chance) -> u32 {
        let schedule = match self.services.get_mut(service) {
            Some(schedule) => schedule,
            None => self.services.entry(Arc::clone(service)).or_default(),
        };
        match candidates.len() {
            ..=FEW => schedule.richest(candidates, chance),
            _ => schedule.next_on_line(candidates, chance),
        }
    }

    pub(super) fn retain(&mut self, known: impl Fn(&str) -> bool) {
        self.services.retain(|service, _| known(service));
    }
}

impl Schedule {
    fn richest(&mut self, candidates: Candidates<'_>, chance: &mut Chance) -> u32 {
        let gained = &mut self.gained;
        // Endpoints come and go; what is left of those that went must not grow without end.
        if gained.len() > 2 * candidates.len() + 16 {
            gained.retain(|id, _| candidates.find(*id).is_some());
        }
        let mut total = 0;
        let mut best = (i64::MIN, 0);
        for (place, endpoint) in candidates.iter() {
            let weight = i64::from(endpoint.weight);
            total += weight;
            // A head start by chance, so that workers don't all begin with the same endpoint.
            let start = || i64::try_from(chance.below(endpoint.weight as usize)).unwrap_or(0);
            let now = gained.entry(endpoint.id).or_insert_with(start);
            *now += weight;
            if *now > best.0 {
                best = (*now, place);
            }
        }
        if let Some(paid) = gained.get_mut(&candidates.at(best.1).id) {
            *paid -= total;
        }
        best.1
    }

    fn next_on_line(&mut self, candidates: Candidates<'_>, chance: &mut Chance) -> u32 {
        if self.strides.len() >= LINES && !self.strides.contains_key(&candidates.key) {
            self.strides.clear();
        }
        let strides = self.strides.entry(candidates.key).or_default();
        strides.over(candidates.line(), chance);
        for _ in 0..STRIDES {
            if let Some(place) = candidates.on_line(strides.stride()) {
                return place;
            }
        }
        candidates.on_own_line(strides.stride())
    }
}
