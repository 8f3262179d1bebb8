//! Weighted rendezvous hashing of slots instead of keys, without a score for each pair of them. Each endpoint sends runners,
//! at times that chance drew for it and the more often the more it weighs, to slots that chance drew for them; a slot is that
//! of whose runner comes first. Among exponential times, the first one is anybody's in proportion to weight (as in
//! Schindelhauer & Schomaker 2005), so this is the same choice; but the work is some runners for each slot, however many
//! endpoints there are. Whoever comes takes slots from all others alike, and whoever goes leaves each to the next one.
//!
//! The race ends when five times as many runners are there as slots. A slot in 150 is nobody's then; its keys look for
//! another. That the end comes sooner with more weight moves 3 % more keys than the best.

use super::{NOBODY, in_order, number};
use crate::base::chance::Chance;
use crate::service::Endpoint;
use std::sync::Arc;

/// Runners to each slot, in the mean.
const RUNNERS: f64 = 5.0;

pub(super) fn lay(size: u32, endpoints: &[Arc<Endpoint>]) -> Vec<u32> {
    let members = in_order(endpoints);
    let total: f64 = members.iter().map(|(_, endpoint)| f64::from(endpoint.weight)).sum();
    let mut slots = vec![NOBODY; size as usize];
    let mut first = vec![f64::INFINITY; size as usize];
    for (place, endpoint) in members {
        let mut chance = Chance(number(endpoint.address, 3));
        // Time runs so that all of them together send one runner to each slot in each unit of time.
        let between = total / (f64::from(endpoint.weight) * f64::from(size));
        let mut time = 0.0;
        loop {
            // 53 bits, moved off 0 and 1 so that the logarithm is finite and not 0.
            let unit = ((chance.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
            time -= unit.ln() * between;
            if time > RUNNERS {
                break;
            }
            let slot = chance.below(slots.len());
            if let (Some(first), Some(slot)) = (first.get_mut(slot), slots.get_mut(slot))
                && time < *first
            {
                (*first, *slot) = (time, place);
            }
        }
    }
    slots
}
