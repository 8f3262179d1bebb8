//! round-robin: one after the other.

use super::Candidates;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub(super) fn pick(candidates: Candidates<'_>, turn: &AtomicU64) -> u32 {
    // The remainder is below a usize.
    candidates.place((turn.fetch_add(1, Relaxed) % candidates.len() as u64) as usize)
}
