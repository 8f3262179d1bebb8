//! A budget for retries, one for each service: they can add a share to the traffic, not multiply it. A token bucket that each
//! request fills a little, as Finagle's `RetryBudget` and tower's `TpsBudget` do.
//!
//! In any time T in which N requests came, at most (1 + percent) N + `min_per_second` T + `burst` attempts are made: tokens
//! come from nowhere else, and there are never fewer than none.

use serde::Deserialize;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// `retry_budget = { percent, min_per_second, burst }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetryBudget {
    /// Retries for a hundred requests.
    pub percent: u32,
    /// Retries in a second that are allowed however few requests come, of this gateway.
    pub min_per_second: u32,
    /// Retries at once after a quiet time: as many as are in flight at an endpoint that dies.
    pub burst: u32,
}

impl Default for RetryBudget {
    fn default() -> Self {
        RetryBudget { percent: 20, min_per_second: 1, burst: 100 }
    }
}

/// The most of each, which is no budget any more.
const MOST: u32 = 1_000_000;

impl RetryBudget {
    /// Is every number within its bounds?
    ///
    /// # Errors
    /// The key that is not, and what was expected.
    pub fn check(&self) -> Result<(), String> {
        if self.percent > 1000 {
            return Err(format!(".percent: {} is not between 0 and 1000", self.percent));
        }
        for (key, number) in [("min_per_second", self.min_per_second), ("burst", self.burst)] {
            if number > MOST {
                return Err(format!(".{key}: {number} is not between 0 and {MOST}"));
            }
        }
        Ok(())
    }
}

/// A token, in the thousandths that are counted.
const TOKEN: u64 = 1000;

/// What a service has left. It begins full, and belongs to the service's name.
#[derive(Debug, Default)]
pub struct Budget {
    /// Thousandths of tokens that are missing until it is full.
    missing: AtomicU64,
    /// Until when the tokens that time brings were given, ms since the process started.
    given_ms: AtomicU64,
    /// Retries that were not made.
    refused: AtomicU64,
}

impl Budget {
    /// A request has come, not a retry of one.
    pub fn request(&self, settings: RetryBudget) {
        // Mostly it is full, and nobody writes.
        if self.missing.load(Relaxed) > 0 {
            self.give(u64::from(settings.percent) * TOKEN / 100);
        }
    }

    /// May one more attempt be made? Then it counts as made.
    pub fn retry(&self, settings: RetryBudget, now_ms: u64) -> bool {
        self.pass(settings, now_ms);
        let most = u64::from(settings.burst) * TOKEN;
        let taken = |missing: u64| Some(missing + TOKEN).filter(|missing| *missing <= most);
        let may = self.missing.fetch_update(Relaxed, Relaxed, taken).is_ok();
        if !may {
            self.refused.fetch_add(1, Relaxed);
        }
        may
    }

    /// Gives what time has brought. Each moment is given once, by whoever moves the stamp over it.
    fn pass(&self, settings: RetryBudget, now_ms: u64) {
        let before = self.given_ms.load(Relaxed);
        if now_ms > before && self.given_ms.compare_exchange(before, now_ms, Relaxed, Relaxed).is_ok() {
            // Thousandths in a ms are tokens in a second.
            self.give((now_ms - before).saturating_mul(settings.min_per_second.into()));
        }
    }

    fn give(&self, thousandths: u64) {
        let given = |missing: u64| (missing > 0).then(|| missing.saturating_sub(thousandths));
        // Nothing is missing: nothing is given.
        let _ = self.missing.fetch_update(Relaxed, Relaxed, given);
    }

    /// Whole tokens that are left.
    pub fn left(&self, settings: RetryBudget, now_ms: u64) -> u32 {
        self.pass(settings, now_ms);
        let missing = self.missing.load(Relaxed).div_ceil(TOKEN);
        settings.burst.saturating_sub(u32::try_from(missing).unwrap_or(u32::MAX))
    }

    /// Retries that were not made since there was no token.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::atomic::AtomicU32;

    proptest! {
        /// Whatever comes when: in every interval the bound holds.
        #[test]
        fn it_is_never_overdrawn(
            percent in 0u32..150,
            min_per_second in 0u32..20,
            burst in 0u32..30,
            steps in prop::collection::vec((any::<bool>(), 0u64..400), 1..300),
        ) {
            let settings = RetryBudget { percent, min_per_second, burst };
            let (budget, mut now_ms, mut seen) = (Budget::default(), 0, Vec::new());
            for (request, after_ms) in steps {
                now_ms += after_ms;
                let (requests, retries) = match request {
                    true => { budget.request(settings); (1u64, 0u64) }
                    false => (0, budget.retry(settings, now_ms).into()),
                };
                seen.push((now_ms, requests, retries));
            }
            for from in 0..seen.len() {
                let (mut requests, mut retries) = (0, 0);
                for (at_ms, request, retry) in &seen[from..] {
                    requests += request;
                    retries += retry;
                    let ms = at_ms - if from == 0 { 0 } else { seen[from - 1].0 };
                    let most = f64::from(percent) / 100.0 * requests as f64
                        + f64::from(min_per_second) * ms as f64 / 1000.0 + f64::from(burst);
                    prop_assert!(retries as f64 <= most + 1e-6, "{retries} of at most {most}");
                }
            }
        }
    }

    #[test]
    fn eight_threads_do_not_overdraw_it_either() {
        let settings = RetryBudget { percent: 20, min_per_second: 0, burst: 50 };
        let (budget, made) = (Budget::default(), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        budget.request(settings);
                        for _ in 0..3 {
                            made.fetch_add(budget.retry(settings, 0).into(), Relaxed);
                        }
                    }
                });
            }
        });
        let made = made.load(Relaxed);
        assert!((16_000 - 50..=16_050).contains(&made), "{made}");
        assert_eq!(u64::from(made) + budget.refused(), 240_000);
    }

    #[test]
    fn time_brings_some_and_never_more_than_it_holds() {
        let settings = RetryBudget { percent: 0, min_per_second: 2, burst: 3 };
        let budget = Budget::default();
        let retries = |now_ms| (0..10).filter(|_| budget.retry(settings, now_ms)).count();
        assert_eq!([retries(0), retries(499), retries(500), retries(1500), retries(99_000)], [3, 0, 1, 2, 3]);
        assert_eq!(budget.left(settings, 99_500), 1);
    }
}
