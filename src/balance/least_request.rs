//! least-request: the one with fewer in flight, by weight, of two drawn at random.

use super::Chance;
use crate::service::Endpoint;
use std::sync::Arc;

pub(super) fn pick(candidates: &[Arc<Endpoint>], chance: &mut Chance) -> usize {
    let (a, b) = chance.two(candidates.len());
    let (first, second) = (&candidates[a], &candidates[b]);
    // (in flight + 1) / weight, without the division.
    let load = |of: &Endpoint, other: &Endpoint| (u64::from(of.in_flight()) + 1) * u64::from(other.weight);
    if load(second, first) < load(first, second) { b } else { a }
}
