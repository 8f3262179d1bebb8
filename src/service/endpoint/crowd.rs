//! What is in flight to all endpoints of a service from this gateway: summed up once in a millisecond at most, by a pick
//! that needs it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The sum, and below it the millisecond that it is of.
#[derive(Debug, Default)]
pub struct Crowd(AtomicU64);

/// Bits of the time.
const TIME: u32 = 40;

impl Crowd {
    /// As it was in this millisecond; `sum` looks.
    pub fn total(&self, now_ms: u64, sum: impl FnOnce() -> u64) -> u64 {
        let (word, now) = (self.0.load(Relaxed), now_ms & ((1 << TIME) - 1));
        if word != 0 && word & ((1 << TIME) - 1) == now {
            return word >> TIME;
        }
        let sum = sum().min(u64::MAX >> TIME);
        self.0.store(sum << TIME | now, Relaxed);
        sum
    }
}
