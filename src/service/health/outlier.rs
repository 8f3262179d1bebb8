//! What `outlier` of `[services.NAME]` says: which answers put an endpoint aside, and for how long. After Envoy's
//! `outlier_detection.proto`, whose defaults differ where a simulation said so: 10 % of the endpoints at most lost a third
//! of the requests where 6 of 20 failed, 50 % none.

use crate::base::duration;
use crate::service::endpoint::Did;
use serde::Deserialize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Endpoints are put aside for what they answer. A failure is an attempt without an answer that the endpoint is to blame
/// for, a 5xx, and of gRPC's statuses in place of an answer `INTERNAL`, `UNAVAILABLE` and `RESOURCE_EXHAUSTED`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Outlier {
    /// Failures in a row that put one aside; 0: however many.
    pub consecutive: u32,
    /// How long it is put aside for the first time, and how much longer each further time; up to a tenth is added by chance.
    #[serde(with = "duration")]
    pub base: Duration,
    /// The longest time.
    #[serde(with = "duration")]
    pub max: Duration,
    /// Of a hundred endpoints, so many may be put aside at a time; one always may, and never the last one that is usable.
    pub max_ejected: u32,
    /// Also those that succeed less often than the others: below their mean by 1.9 standard deviations, and by 5 points.
    pub success_rate: bool,
    /// Also those of whose attempts so many of a hundred fail.
    pub failure_share: Option<u32>,
    /// Also those whose good answers take three times as long as the others' median, and 50 ms longer.
    pub latency: bool,
    /// The three last ones compare endpoints with as many attempts in ten seconds,
    pub min_requests: u32,
    /// and only where there are so many of these.
    pub min_endpoints: u32,
}

impl Default for Outlier {
    fn default() -> Self {
        Outlier {
            consecutive: 5,
            base: Duration::from_secs(10),
            max: Duration::from_secs(300),
            max_ejected: 50,
            success_rate: false,
            failure_share: None,
            latency: false,
            min_requests: 100,
            min_endpoints: 5,
        }
    }
}

impl Outlier {
    /// Is everything within its bounds?
    ///
    /// # Errors
    /// The key that is not, after a dot, and what was expected.
    pub fn check(&self) -> Result<(), String> {
        let percent = 1..=100;
        if self.consecutive > 1000 {
            return Err(format!(".consecutive: {} is not between 0 and 1000", self.consecutive));
        }
        if self.base < Duration::from_millis(10) {
            return Err(".base: must be at least 10ms".into());
        }
        if self.max < self.base || self.max > Duration::from_secs(86_400) {
            return Err(".max: must be at least `base`, and at most 1 day".into());
        }
        if !percent.contains(&self.max_ejected) {
            return Err(format!(".max_ejected: {} is not between 1 and 100", self.max_ejected));
        }
        if let Some(share) = self.failure_share.filter(|share| !percent.contains(share)) {
            return Err(format!(".failure_share: {share} is not between 1 and 100"));
        }
        if self.min_requests == 0 {
            return Err(".min_requests: must be at least 1".into());
        }
        if self.min_endpoints < 2 {
            return Err(".min_endpoints: must be at least 2: one alone stands out from nobody".into());
        }
        Ok(())
    }

    /// Are endpoints compared with each other?
    pub(super) fn compares(&self) -> bool {
        self.success_rate || self.failure_share.is_some() || self.latency
    }

    /// How many of so many may be put aside at a time.
    pub(super) fn most(&self, endpoints: usize) -> usize {
        (endpoints.saturating_mul(self.max_ejected as usize) / 100).max(1)
    }

    /// Which of these stand out from the others, by their places, the worst of each cause first.
    pub(super) fn stand_out(&self, did: &[Did]) -> Vec<(usize, Cause)> {
        let least = u64::from(self.min_requests);
        let busy = || did.iter().enumerate().filter(|(_, did)| did.good + did.bad >= least);
        if busy().count() < self.min_endpoints as usize {
            return Vec::new();
        }
        let mut found = Vec::new();
        if let Some(share) = self.failure_share {
            let fails = |did: &Did| did.bad * 100 >= u64::from(share) * (did.good + did.bad);
            let failing = busy().filter(|(_, did)| fails(did));
            add(&mut found, failing.map(|(place, did)| (place, rate(did))).collect(), Cause::FailureShare);
        }
        if self.success_rate {
            let rates: Vec<(usize, f64)> = busy().map(|(place, did)| (place, rate(did))).collect();
            let many = rates.len() as f64;
            let mean = rates.iter().map(|(_, rate)| rate).sum::<f64>() / many;
            let variance = rates.iter().map(|(_, rate)| (rate - mean).powi(2)).sum::<f64>() / many;
            // 1.9 deviations of nearly equal rates are next to nothing, hence the points.
            let least = mean - (DEVIATIONS * variance.sqrt()).max(POINTS);
            add(&mut found, rates.into_iter().filter(|(_, rate)| *rate < least).collect(), Cause::SuccessRate);
        }
        if self.latency {
            let mut times: Vec<(usize, f64)> = busy()
                .filter(|(_, did)| did.good >= least)
                .map(|(place, did)| (place, did.took_us as f64 / did.good as f64))
                .collect();
            times.sort_by(|(_, one), (_, two)| one.total_cmp(two));
            let median = times.get(times.len() / 2).map_or(f64::MAX, |(_, time)| *time);
            let most = (SLOWER * median).max(median + SLOWER_US);
            let slow = times.into_iter().filter(|(_, time)| *time > most).map(|(place, time)| (place, -time));
            add(&mut found, slow.collect(), Cause::Latency);
        }
        found
    }
}

/// Below the mean success rate.
const DEVIATIONS: f64 = 1.9;
/// Below it as well.
const POINTS: f64 = 0.05;
/// Times the median latency.
const SLOWER: f64 = 3.0;
/// Beyond it, µs.
const SLOWER_US: f64 = 50_000.0;

/// Of one with at least one attempt.
fn rate(did: &Did) -> f64 {
    did.good as f64 / (did.good + did.bad) as f64
}

/// Adds those that were not found yet, the lowest number first.
fn add(found: &mut Vec<(usize, Cause)>, mut more: Vec<(usize, f64)>, cause: Cause) {
    more.sort_by(|(_, one), (_, two)| one.total_cmp(two));
    for (place, _) in more {
        if found.iter().all(|(known, _)| *known != place) {
            found.push((place, cause));
        }
    }
}

/// Why an endpoint was put aside for its answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Failures in a row.
    Consecutive,
    /// It failed more often than the others.
    SuccessRate,
    /// Too many of its attempts failed.
    FailureShare,
    /// It was slower than the others.
    Latency,
}

impl Cause {
    /// Each once, in the order of their declaration.
    pub const ALL: [Cause; 4] = [Cause::Consecutive, Cause::SuccessRate, Cause::FailureShare, Cause::Latency];

    /// As logs and metrics call it.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Consecutive => "consecutive",
            Cause::SuccessRate => "success_rate",
            Cause::FailureShare => "failure_share",
            Cause::Latency => "latency",
        }
    }
}

/// A service's, all workers together.
#[derive(Debug, Default)]
pub struct Ejections {
    counts: [AtomicU64; Cause::ALL.len()],
    /// Attempts were counted since its endpoints were compared last.
    heard: AtomicBool,
}

impl Ejections {
    /// How often it was for this cause.
    pub fn get(&self, cause: Cause) -> u64 {
        self.counts[cause as usize].load(Relaxed)
    }

    pub(super) fn count(&self, cause: Cause) {
        self.counts[cause as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn hear(&self) {
        // Not written where it is true already: all workers would write to it for each request.
        if !self.heard.load(Relaxed) {
            self.heard.store(true, Relaxed);
        }
    }

    pub(super) fn heard(&self) -> bool {
        self.heard.swap(false, Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn did(good: u64, bad: u64, ms: u64) -> Did {
        Did { good, bad, took_us: good * ms * 1000 }
    }

    fn comparing() -> Outlier {
        Outlier { success_rate: true, failure_share: Some(85), latency: true, ..Outlier::default() }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_key() {
        let check = |text: &str| toml::from_str::<Outlier>(text).map_err(|e| e.message().to_owned())?.check();
        for good in ["", "consecutive = 0\nfailure_share = 85", "base = '1s'\nmax = '1s'\nmax_ejected = 100"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, told) in [
            ("consecutive = 1001", ".consecutive: 1001 is not between 0 and 1000"),
            ("base = '1ms'", ".base: must"),
            ("base = '10m'", ".max: must be at least `base`"),
            ("max = '2days'", ".max: must"),
            ("max_ejected = 0", ".max_ejected: 0"),
            ("max_ejected = 101", ".max_ejected: 101"),
            ("failure_share = 0", ".failure_share: 0"),
            ("min_requests = 0", ".min_requests: must"),
            ("min_endpoints = 1", ".min_endpoints: must"),
            ("interval = '10s'", "unknown field `interval`"),
        ] {
            let problem = check(bad).unwrap_err();
            assert!(problem.contains(told), "{bad}: {problem}");
        }
    }

    #[test]
    fn whoever_stands_out_is_found_and_nobody_else() {
        let (good, slow) = (did(1000, 1, 20), did(1000, 0, 200));
        let failing = did(60, 940, 1);
        let flawed = did(900, 100, 20);
        assert_eq!(comparing().stand_out(&[good; 9]), []);
        let one = [good, good, failing, good, good];
        assert_eq!(comparing().stand_out(&one), [(2, Cause::FailureShare)]);
        assert_eq!(Outlier { failure_share: None, ..comparing() }.stand_out(&one), [(2, Cause::SuccessRate)]);
        assert_eq!(
            comparing().stand_out(&[good, flawed, good, good, good, slow]),
            [(1, Cause::SuccessRate), (5, Cause::Latency)]
        );
        // All alike: nobody.
        assert_eq!(comparing().stand_out(&[flawed; 6]), []);
        // Too few that have been asked often enough.
        assert_eq!(comparing().stand_out(&[good, good, failing, good, did(99, 0, 20)]), []);
        assert_eq!(comparing().stand_out(&[]), []);
        // The worst one first, as there may be room for one only.
        let two = [good, good, good, flawed, good, good, good, good, did(500, 500, 20), good, good, good, good];
        let rates = Outlier { failure_share: Some(10), success_rate: false, latency: false, ..comparing() };
        assert_eq!(rates.stand_out(&two), [(8, Cause::FailureShare), (3, Cause::FailureShare)]);
    }

    proptest! {
        #[test]
        fn no_numbers_make_it_panic(all in proptest::collection::vec((0u64..1 << 26, 0u64..1 << 26, 0u64..1 << 50), 0..40)) {
            let did: Vec<Did> = all.iter().map(|(good, bad, took_us)| Did { good: *good, bad: *bad, took_us: *took_us }).collect();
            let found = comparing().stand_out(&did);
            for (place, _) in &found {
                prop_assert!(did[*place].good + did[*place].bad >= 100);
                prop_assert_eq!(found.iter().filter(|(other, _)| other == place).count(), 1);
            }
        }

        #[test]
        fn at_least_one_may_go_and_no_more_than_the_share(endpoints in 0usize..100_000, max_ejected in 1u32..=100) {
            let most = Outlier { max_ejected, ..Outlier::default() }.most(endpoints);
            prop_assert!(most >= 1);
            prop_assert!(most == 1 || most * 100 <= endpoints * max_ejected as usize);
        }
    }
}
