//! peak-ewma: the one with less latency × in flight of two drawn at random (Finagle's "aperture" papers; tower's load
//! measure of the same name).

use super::Candidates;
use crate::base::chance::Chance;
use crate::service::Endpoint;
use std::sync::atomic::Ordering::Relaxed;

pub(super) fn pick(candidates: Candidates<'_>, chance: &mut Chance) -> u32 {
    let (a, b) = candidates.two(chance);
    if cost(candidates.at(b)) < cost(candidates.at(a)) { b } else { a }
}

/// An endpoint that was never measured costs nothing but its load, so it is tried soon, and not by all at once.
fn cost(endpoint: &Endpoint) -> u64 {
    let latency = u64::from(endpoint.live.latency_us.load(Relaxed).max(1));
    latency.saturating_mul(u64::from(endpoint.in_flight()) + 1)
}
