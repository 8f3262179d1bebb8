//! weighted-round-robin, smooth: nginx's algorithm (commit 52327e0627f4, 2012). Each turn every endpoint gains its weight,
//! the richest is picked and pays the total; so a 5:1:1 mix goes a a b a c a a, never a a a a a b c.

use super::Candidates;
use crate::base::chance::Chance;
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// What each endpoint has gained, by service. Per worker: a shared schedule would need a lock.
#[derive(Debug, Default)]
pub(super) struct Schedules {
    services: FxHashMap<Arc<str>, FxHashMap<u32, i64>>,
}

impl Schedules {
    pub(super) fn pick(&mut self, service: &Arc<str>, candidates: Candidates<'_>, chance: &mut Chance) -> usize {
        let gained = match self.services.get_mut(service) {
            Some(gained) => gained,
            None => self.services.entry(Arc::clone(service)).or_default(),
        };
        // Endpoints come and go; what is left of those that went must not grow without end.
        if gained.len() > 2 * candidates.len() + 16 {
            gained.retain(|id, _| candidates.iter().any(|e| e.id == *id));
        }
        let mut total = 0;
        let mut best = (i64::MIN, 0);
        for (index, endpoint) in candidates.iter().enumerate() {
            let weight = i64::from(endpoint.weight);
            total += weight;
            // A head start by chance, so that workers don't all begin with the same endpoint.
            let start = || i64::try_from(chance.below(endpoint.weight as usize)).unwrap_or(0);
            let now = gained.entry(endpoint.id).or_insert_with(start);
            *now += weight;
            if *now > best.0 {
                best = (*now, index);
            }
        }
        if let Some(paid) = gained.get_mut(&candidates.get(best.1).id) {
            *paid -= total;
        }
        best.1
    }

    pub(super) fn retain(&mut self, known: impl Fn(&str) -> bool) {
        self.services.retain(|service, _| known(service));
    }
}
