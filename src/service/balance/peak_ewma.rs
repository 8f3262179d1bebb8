//! peak-ewma: the one with less latency × in flight of two drawn by chance. After Finagle's `PeakEwma` and tower's load
//! measure of the same name, without what they suffer from: a failure counts as in flight and not as a fast answer, a peak
//! is not kept for long, and whoever was not asked for a while becomes average instead of staying bad or becoming best.

use super::{Candidates, Cost};
use crate::base::chance::Chance;

/// One pick in so many goes by requests in flight alone: a slow endpoint that only traffic makes fast, like a cold cache,
/// would not get any.
const EXPLORE: usize = 20;

pub(super) fn pick(candidates: Candidates<'_>, cost: Cost<'_>, chance: &mut Chance) -> u32 {
    let explores = chance.below(EXPLORE) == 0;
    cost.better_of_two(candidates, chance, true, |endpoint| match explores {
        true => cost.requests(endpoint),
        false => cost.wait(endpoint),
    })
}
