//! The index of a blocking query, and how soon the next query may follow.

use std::time::Duration;

/// Two queries never start closer together than this.
const LEAST: Duration = Duration::from_millis(50);
/// The longest pause after answers that came at once and said nothing new: a change is still seen within a second.
const MOST: Duration = Duration::from_millis(500);

/// Where a watch is in the sequence of Consul's indexes. 0: the next query does not wait for a change.
#[derive(Debug, Default)]
pub struct Index {
    at: u64,
    quick: u32,
}

impl Index {
    /// For the next query.
    pub fn get(&self) -> u64 {
        self.at
    }

    /// Forgets it: the next query answers at once.
    pub fn reset(&mut self) {
        self.at = 0;
    }

    /// Takes the index of an answer. One that went back starts again; one below 1 would not block (both are rules of
    /// Consul's documentation). A missing index is 0.
    pub fn advance(&mut self, answered: u64) {
        self.at = if answered < self.at { 0 } else { answered.max(1) };
    }

    /// How long to wait before the next query, after one that took `took`. A server that answers at once and says
    /// nothing new, whatever the reason, is asked less and less often, at least twice a second.
    pub fn pause(&mut self, took: Duration, changed: bool) -> Duration {
        self.quick = if changed || took >= MOST { 0 } else { self.quick.saturating_add(1) };
        let interval = LEAST.saturating_mul(1 << self.quick.saturating_sub(1).min(8)).min(MOST);
        interval.saturating_sub(took)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_rules_of_the_documentation() {
        for (before, answered, after) in
            [(0, 7, 7), (7, 8, 8), (7, 7, 7), (7, 3, 0), (7, 0, 0), (0, 0, 1), (1, 1, 1), (5, u64::MAX, u64::MAX)]
        {
            let mut index = Index { at: before, quick: 0 };
            index.advance(answered);
            assert_eq!(index.get(), after, "{answered} after {before}");
        }
    }

    #[test]
    fn never_spins_and_never_sleeps_for_long() {
        let mut index = Index::default();
        let mut waited = Duration::ZERO;
        for _ in 0..100 {
            let pause = index.pause(Duration::ZERO, false);
            assert!((LEAST..=MOST).contains(&pause));
            waited += pause;
        }
        assert!(waited > Duration::from_secs(40), "{waited:?}");
        assert_eq!(index.pause(Duration::ZERO, true), LEAST);
        assert_eq!(index.pause(Duration::from_secs(9), false), Duration::ZERO);
    }
}
