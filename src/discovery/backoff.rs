//! Backoff: how long to wait after one failure after another.

use crate::base::chance::Chance;
use std::time::Duration;

/// The first wait, at most.
const FIRST: Duration = Duration::from_millis(100);
/// Any wait, at least: chance alone would now and then not wait at all.
const LEAST: Duration = Duration::from_millis(10);

/// Waits below a bound that doubles from 100 ms to 10 s, each anywhere from 10 ms to that bound ("full jitter"), so that
/// the watches of many gateways don't return together.
#[derive(Debug)]
pub struct Backoff {
    failures: u32,
    chance: Chance,
    most: Duration,
}

impl Backoff {
    /// Any wait, at most, unless more is asked for.
    pub const MOST: Duration = Duration::from_secs(10);

    /// The same seed gives the same waits.
    pub fn new(seed: u64) -> Self {
        Backoff { failures: 0, chance: Chance(seed), most: Self::MOST }
    }

    /// With a seed of its own.
    pub fn seeded() -> Self {
        Backoff { failures: 0, chance: Chance::seeded(), most: Self::MOST }
    }

    /// The bound doubles up to this instead.
    pub fn up_to(self, most: Duration) -> Self {
        Backoff { most, ..self }
    }

    /// How long to wait after one more failure.
    pub fn wait(&mut self) -> Duration {
        self.wait_within(self.most)
    }

    /// The same, with another bound for this one.
    pub fn wait_within(&mut self, most: Duration) -> Duration {
        let whole = FIRST.saturating_mul(1 << self.failures.min(16)).min(most);
        self.failures = self.failures.saturating_add(1);
        let range = whole.saturating_sub(LEAST);
        let micros = usize::try_from(range.as_micros()).unwrap_or(usize::MAX);
        LEAST + Duration::from_micros(self.chance.below(micros) as u64)
    }

    /// A success: the next wait is the first one again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_within_bounds_and_starts_again() {
        for seed in 0..100 {
            let mut backoff = Backoff::new(seed);
            let mut whole = 100;
            for _ in 0..40 {
                let wait = backoff.wait().as_millis();
                assert!((10..=whole).contains(&wait), "{wait} of {whole}");
                whole = (whole * 2).min(10_000);
            }
            backoff.reset();
            assert!(backoff.wait() <= FIRST);
        }
        assert_ne!(Backoff::seeded().wait(), Backoff::seeded().wait());
    }
}
