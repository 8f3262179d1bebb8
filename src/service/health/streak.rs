//! Results of checks in a row, and what follows from them.

use super::settings::HealthCheck;
use crate::base::chance::Chance;
use std::time::Duration;

/// Results in a row.
#[derive(Debug, Default)]
pub(super) struct Streak {
    /// Something was counted already.
    begun: bool,
    good: u32,
    bad: u32,
}

impl Streak {
    /// Takes in one result. Some: the endpoint changes. The first result decides alone, since what nobody has checked
    /// is what `initial` says only until then.
    pub(super) fn count(&mut self, good: bool, healthy: bool, settings: &HealthCheck) -> Option<bool> {
        let first = !std::mem::replace(&mut self.begun, true);
        if good {
            self.bad = 0;
            // Only results since it became unhealthy count, whoever said so: a check or failing connects.
            self.good = if healthy { 0 } else { self.good + 1 };
            return (!healthy && (first || self.good >= settings.healthy_after)).then_some(true);
        }
        self.good = 0;
        self.bad = self.bad.saturating_add(1);
        (healthy && (first || self.bad >= settings.unhealthy_after)).then_some(false)
    }

    /// How long until the next check. `healthy`: what the endpoint is by its checks now.
    pub(super) fn pause(&self, healthy: bool, settings: &HealthCheck, chance: &mut Chance) -> Duration {
        let after_failure = settings.interval_after_failure.filter(|_| !healthy || self.bad > 0);
        jittered(after_failure.unwrap_or(settings.interval), chance)
    }
}

/// Within ± 10 %, so that many gateways and endpoints don't march in step.
fn jittered(interval: Duration, chance: &mut Chance) -> Duration {
    let permille = u32::try_from(chance.next_u64() % 201).unwrap_or(100);
    interval * (900 + permille) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn settings(unhealthy_after: u32, healthy_after: u32) -> HealthCheck {
        HealthCheck { unhealthy_after, healthy_after, ..HealthCheck::default() }
    }

    /// What becomes of an endpoint that begins like this: its health after each result.
    fn after(results: &[bool], mut healthy: bool, settings: &HealthCheck) -> Vec<bool> {
        let mut streak = Streak::default();
        let mut step = |good: &bool| {
            healthy = streak.count(*good, healthy, settings).unwrap_or(healthy);
            healthy
        };
        results.iter().map(&mut step).collect()
    }

    #[test]
    fn the_first_result_decides_and_then_streaks_do() {
        let (good, bad) = (true, false);
        let settings = settings(3, 2);
        assert_eq!(after(&[bad, good, good], true, &settings), [false, false, true]);
        assert_eq!(after(&[good, bad, bad, bad], true, &settings), [true, true, true, false]);
        assert_eq!(after(&[good, bad, bad, good, bad, bad, bad], true, &settings)[3..], [true, true, true, false]);
        assert_eq!(after(&[bad, good, bad, good, good], true, &settings)[1..], [false, false, false, true]);
        assert_eq!(after(&[good, bad], false, &settings), [true, true]);
        assert_eq!(after(&[bad, good, good], false, &settings), [false, false, true]);
    }

    #[test]
    fn failing_connects_are_forgiven_by_good_checks_that_follow_them() {
        let settings = settings(3, 2);
        let mut streak = Streak::default();
        for _ in 0..5 {
            assert_eq!(streak.count(true, true, &settings), None);
        }
        assert_eq!(streak.count(true, false, &settings), None);
        assert_eq!(streak.count(true, false, &settings), Some(true));
    }

    #[test]
    fn after_a_failure_it_is_asked_sooner_until_it_is_healthy_again() {
        let sooner = Some(Duration::from_millis(100));
        let settings = HealthCheck { interval_after_failure: sooner, ..settings(2, 2) };
        let (mut streak, mut healthy, mut chance) = (Streak::default(), true, Chance(7));
        let mut step = |good: bool| {
            healthy = streak.count(good, healthy, &settings).unwrap_or(healthy);
            streak.pause(healthy, &settings, &mut chance) < Duration::from_secs(1)
        };
        let (good, bad) = (true, false);
        let pauses = [good, bad, good, bad, bad, good, good, good].map(&mut step);
        assert_eq!(pauses, [false, true, false, true, true, true, false, false]);
    }

    proptest! {
        #[test]
        fn health_changes_only_with_a_whole_streak(
            results in proptest::collection::vec(any::<bool>(), 1..200),
            initial in any::<bool>(),
            unhealthy_after in 1u32..5,
            healthy_after in 1u32..5,
        ) {
            let health = after(&results, initial, &settings(unhealthy_after, healthy_after));
            prop_assert_eq!(health[0], results[0]);
            for at in 1..results.len() {
                if health[at] == health[at - 1] {
                    continue;
                }
                let needed = if health[at] { healthy_after } else { unhealthy_after } as usize;
                prop_assert!(at + 1 >= needed);
                prop_assert!(results[at + 1 - needed..=at].iter().all(|good| *good == health[at]));
            }
        }

        #[test]
        fn intervals_stay_within_a_tenth(ms in 10u64..100_000, seed in any::<u64>()) {
            let interval = Duration::from_millis(ms);
            let jittered = jittered(interval, &mut Chance(seed));
            prop_assert!(jittered >= interval * 9 / 10 && jittered <= interval * 11 / 10);
        }
    }
}
