//! random: any, in proportion to weight.

use super::Chance;
use crate::service::Endpoint;
use std::sync::Arc;

pub(super) fn pick(candidates: &[Arc<Endpoint>], chance: &mut Chance) -> usize {
    let total: usize = candidates.iter().map(|e| e.weight as usize).sum();
    let mut left = chance.below(total);
    for (index, endpoint) in candidates.iter().enumerate() {
        let weight = endpoint.weight as usize;
        if left < weight {
            return index;
        }
        left -= weight;
    }
    0
}
