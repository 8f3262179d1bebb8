//! random: any, in proportion to weight.

use super::Candidates;
use crate::base::chance::Chance;

pub(super) fn pick(candidates: Candidates<'_>, chance: &mut Chance) -> usize {
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
