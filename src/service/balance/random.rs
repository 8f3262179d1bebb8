//! random: any, in proportion to weight.

use super::Candidates;
use crate::base::chance::Chance;

/// Draws that may hit somebody who was tried, before all candidates are walked over.
const DRAWS: usize = 16;

pub(super) fn pick(candidates: Candidates<'_>, chance: &mut Chance) -> u32 {
    let mut draw = || chance.below(usize::try_from(candidates.line()).unwrap_or(usize::MAX)) as u64;
    for _ in 0..DRAWS {
        if let Some(place) = candidates.on_line(draw()) {
            return place;
        }
    }
    candidates.on_own_line(chance.next_u64())
}
