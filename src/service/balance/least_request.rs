//! least-request: the one with fewer in flight, by weight, of two drawn at random.

use super::Candidates;
use crate::base::chance::Chance;
use crate::service::Endpoint;

pub(super) fn pick(candidates: Candidates<'_>, chance: &mut Chance) -> u32 {
    let (a, b) = candidates.two(chance);
    let (first, second) = (candidates.at(a), candidates.at(b));
    // (in flight + 1) / weight, without the division.
    let load = |of: &Endpoint, other: &Endpoint| (u64::from(of.in_flight()) + 1) * u64::from(other.weight);
    if load(second, first) < load(first, second) { b } else { a }
}
