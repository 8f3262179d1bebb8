//! round-robin: one after the other.

use crate::service::Endpoint;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub(super) fn pick(candidates: &[Arc<Endpoint>], turn: &AtomicU64) -> usize {
    // The remainder is below a usize.
    (turn.fetch_add(1, Relaxed) % candidates.len() as u64) as usize
}
