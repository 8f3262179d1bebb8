//! Suspension: a version that faults again and again is not asked for a while. Atomics only, and no clock of its own.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// This many faults...
pub(super) const FAULTS: usize = 5;
/// ...within this time suspend a version...
const WINDOW_MS: u64 = 10_000;
/// ...for this long at first, doubled each time...
const FIRST_MS: u64 = 10_000;
/// ...up to this, ...
const LONGEST_MS: u64 = 600_000;
/// ...until it was not suspended for this long: then the next one is a first one again.
const QUIET_MS: u64 = 600_000;

/// The faults of one version, and whether it is suspended for them. Times are ms since the process started.
#[derive(Debug, Default)]
pub(super) struct Suspension {
    /// Times of the last faults but the newest, each plus one (0: none yet).
    faults: [AtomicU64; FAULTS - 1],
    next: AtomicU32,
    /// 0: never suspended.
    until_ms: AtomicU64,
    /// Suspensions since the last quiet time.
    in_a_row: AtomicU32,
    /// Suspensions ever.
    total: AtomicU64,
}

impl Suspension {
    /// Counts a fault. True: it was one too many, and the version is suspended from now on.
    pub(super) fn fault(&self, now_ms: u64) -> bool {
        let slot = self.next.fetch_add(1, Relaxed) as usize % self.faults.len();
        // What stood here is the fault that came four before this one.
        let first = self.faults[slot].swap(now_ms + 1, Relaxed);
        if first == 0 || (now_ms + 1).saturating_sub(first) > WINDOW_MS {
            return false;
        }
        let until = self.until_ms.load(Relaxed);
        if now_ms < until {
            // Calls that had begun before the suspension.
            return false;
        }
        if now_ms.saturating_sub(until) > QUIET_MS {
            self.in_a_row.store(0, Relaxed);
        }
        let doubled = self.in_a_row.load(Relaxed).min(16);
        let back_off = (FIRST_MS << doubled).min(LONGEST_MS);
        if self.until_ms.compare_exchange(until, now_ms + back_off, Relaxed, Relaxed).is_err() {
            // Another worker was quicker.
            return false;
        }
        self.in_a_row.fetch_add(1, Relaxed);
        self.total.fetch_add(1, Relaxed);
        for fault in &self.faults {
            fault.store(0, Relaxed);
        }
        true
    }

    /// May anything be suspended at all? Cheaper than asking the clock.
    pub(super) fn ever(&self) -> bool {
        self.until_ms.load(Relaxed) != 0
    }

    /// What is left of a suspension.
    pub(super) fn left(&self, now_ms: u64) -> Option<Duration> {
        let left = self.until_ms.load(Relaxed).saturating_sub(now_ms);
        (left > 0).then(|| Duration::from_millis(left))
    }

    /// Suspensions so far.
    pub(super) fn total(&self) -> u64 {
        self.total.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(suspension: &Suspension, times: &[u64]) -> Vec<bool> {
        times.iter().map(|ms| suspension.fault(*ms)).collect()
    }

    #[test]
    fn the_fifth_fault_in_ten_seconds_suspends_for_ten() {
        let suspension = Suspension::default();
        assert_eq!(faults(&suspension, &[0, 1, 2, 3, 10_000]), [false, false, false, false, true]);
        assert_eq!(suspension.left(10_000), Some(Duration::from_secs(10)));
        assert_eq!(suspension.left(19_999), Some(Duration::from_millis(1)));
        assert_eq!(suspension.left(20_000), None);
        assert_eq!(suspension.total(), 1);
    }

    #[test]
    fn faults_further_apart_do_not_suspend() {
        let suspension = Suspension::default();
        let times: Vec<u64> = (0..100).map(|i| i * 2_501).collect();
        assert!(faults(&suspension, &times).iter().all(|suspended| !suspended));
        assert!(!suspension.ever());
    }

    #[test]
    fn the_back_off_doubles_up_to_ten_minutes_and_starts_anew_after_a_quiet_time() {
        let suspension = Suspension::default();
        let mut now = 0;
        let mut lengths = Vec::new();
        for _ in 0..8 {
            assert_eq!(faults(&suspension, &[now; FAULTS]), [false, false, false, false, true]);
            let left = suspension.left(now).unwrap();
            lengths.push(left.as_secs());
            now += left.as_millis() as u64;
        }
        assert_eq!(lengths, [10, 20, 40, 80, 160, 320, 600, 600]);
        now += QUIET_MS + 1;
        faults(&suspension, &[now; FAULTS]);
        assert_eq!(suspension.left(now), Some(Duration::from_secs(10)));
    }

    #[test]
    fn faults_of_calls_under_way_do_not_prolong_a_suspension() {
        let suspension = Suspension::default();
        faults(&suspension, &[0; FAULTS]);
        assert!(faults(&suspension, &[1; 20]).iter().all(|suspended| !suspended));
        assert_eq!(suspension.left(0), Some(Duration::from_secs(10)));
        assert_eq!(suspension.total(), 1);
    }
}
