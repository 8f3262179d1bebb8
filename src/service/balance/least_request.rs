//! least-request: the one with fewest in flight, by weight; failures of the last seconds count as in flight. Of a few, all
//! are looked at; of many, two drawn by chance (Mitzenmacher 2001).

use super::{Candidates, Cost};
use crate::base::chance::Chance;

/// Up to so many are few: looking at them takes about 50 ns.
const FEW: usize = 32;

pub(super) fn pick(candidates: Candidates<'_>, cost: Cost<'_>, chance: &mut Chance) -> u32 {
    match candidates.len() {
        ..=FEW => least(candidates, cost, chance),
        _ => cost.better_of_two(candidates, chance, false, |endpoint| cost.requests(endpoint)),
    }
}

/// Of equals, any by chance: were it the first one, many gateways would all send their next request to the same endpoint.
fn least(candidates: Candidates<'_>, cost: Cost<'_>, chance: &mut Chance) -> u32 {
    let (mut least, mut best, mut equals) = (f32::INFINITY, 0, 0);
    for (place, endpoint) in candidates.iter() {
        let requests = cost.requests(endpoint);
        if requests < least {
            (least, best, equals) = (requests, place, 1);
        } else if requests == least {
            equals += 1;
            if chance.below(equals) == 0 {
                best = place;
            }
        }
    }
    best
}
