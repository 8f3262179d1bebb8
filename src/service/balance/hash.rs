//! hash and maglev: the same endpoint for the same key. Of a few endpoints by weighted rendezvous hashing (Thaler & Ravishankar
//! 1998; weights after Schindelhauer & Schomaker 2005): each gets a score from key and address, the highest wins. Of many
//! by a table that is laid aside, of who is there and not of how they are: a key whose slot is that of somebody who cannot be
//! picked draws another slot, and another. So whoever falls ill moves its own keys, to all others alike, and has them
//! again when it is back.

use super::bound::Bound;
use super::{Candidates, Cost, Wanted};
use crate::base::chance::Chance;
use crate::service::endpoints::{Layout, number};
use crate::service::plan::Strategy;
use crate::service::{Endpoint, Service};
use xxhash_rust::xxh64::xxh64;

/// Up to so many endpoints are few, where the settings don't say.
const FEW: usize = 16;
/// Slots for more.
const SLOTS: u32 = 131_072;
/// Slots that a key draws. Where few of many can be picked all of them may be in vain; then these are scored.
const DRAWS: usize = 64;

pub(super) fn pick(candidates: Candidates<'_>, cost: Cost<'_>, wanted: &Wanted<'_>, layout: Layout) -> u32 {
    let (service, settings) = (wanted.service, &*wanted.service.settings);
    let bound = |bound: f64| Bound::new(bound, &service.live.crowd, candidates, wanted.now_ms);
    let bound = settings.hash_bound.map(bound);
    let key = xxh64(wanted.key.as_bytes(), 0);
    // One that starts slowly takes some keys, and more and more: each once.
    let part = Chance(!key).below(1000);
    let takes = |endpoint: &Endpoint| {
        cost.ramp(endpoint) * 1000.0 > part as f32 && bound.is_none_or(|bound| bound.leaves_room(endpoint))
    };
    if let Some(size) = slots(service, layout)
        && let Some(table) = &*service.endpoints.table(layout, size)
    {
        let mut draws = Chance(key);
        for _ in 0..DRAWS {
            match table.at(draws.next_u64()) {
                Some(place) if candidates.has(place) && takes(candidates.at(place)) => return place,
                _ => {}
            }
        }
    }
    best(candidates, key, takes).or_else(|| best(candidates, key, |_| true)).unwrap_or_else(|| candidates.place(0))
}

/// Slots of the service's table; none: it goes without. By who is in the list, whoever of them can be picked now: else one
/// who falls ill could move all keys.
fn slots(service: &Service, layout: Layout) -> Option<u32> {
    match (layout, service.settings.hash_table) {
        (Layout::Maglev, _) => Some(service.settings.maglev_table),
        (Layout::Race, None) => Some(SLOTS).filter(|_| service.endpoints.len() > FEW),
        (Layout::Race, slots) => slots.filter(|slots| *slots > 0),
    }
}

/// Lays the table that the service's own strategy goes by, if it does.
pub(super) fn prepare(service: &Service) {
    let layout = match service.settings.strategy {
        Strategy::Maglev => Layout::Maglev,
        Strategy::Hash | Strategy::Sticky => Layout::Race,
        _ => return,
    };
    if let Some(slots) = slots(service, layout) {
        drop(service.endpoints.table(layout, slots));
    }
}

fn best(candidates: Candidates<'_>, key: u64, takes: impl Fn(&Endpoint) -> bool) -> Option<u32> {
    let scores = candidates.iter().filter(|(_, endpoint)| takes(endpoint));
    let scores = scores.map(|(place, endpoint)| (score(key, endpoint), place));
    // Of equals the first one, as many gateways see it.
    scores.reduce(|best, next| if next.0 > best.0 { next } else { best }).map(|(_, place)| place)
}

fn score(key: u64, endpoint: &Endpoint) -> f64 {
    // 53 bits, moved off 0 and 1 so that the logarithm is finite and not 0.
    let unit = ((number(endpoint.address, key) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    -f64::from(endpoint.weight) / unit.ln()
}
