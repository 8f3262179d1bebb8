//! least-request: the one with fewer in flight, by weight, of two drawn at random.

use super::Candidates;
use crate::base::chance::Chance;
use crate::service::Endpoint;

pub(super) fn pick(candidates: Candidates<'_>, chance: &mut Chance) -> usize {
    let (a, b) = chance.two(candidates.len());
    let (first, second) = (candidates.get(a), candidates.get(b));
    // (in flight + 1) / weight, without the division.
    let load = |of: &Endpoint, other: &Endpoint| (u64::from(of.in_flight()) + 1) * u64::from(other.weight);
    if load(second, first) < load(first, second) { b } else { a }
}
