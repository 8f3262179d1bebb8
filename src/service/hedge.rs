//! Hedging: where an answer takes longer than it mostly does, another endpoint is asked beside, and the first good answer
//! counts (Dean and Barroso, "The Tail at Scale", 2013).

use serde::Deserialize;
use serde::de::{self, Deserializer};
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// `hedge = { after, max }`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hedge {
    /// How long one attempt is waited for before another one is made beside it.
    pub after: After,
    /// Attempts beside the first one, at most.
    pub max: u32,
}

impl Default for Hedge {
    fn default() -> Self {
        Hedge { after: After::Percentile(95.0), max: 1 }
    }
}

/// When an attempt takes long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum After {
    /// Longer than so many percent of the service's last good answers: `"p95"`. 90 or more: at the median, half of all
    /// requests would be made twice, and their load makes the rest slower.
    Percentile(f64),
    /// Longer than this: `"50ms"`.
    Time(Duration),
}

/// Percentiles that may be asked for.
const PERCENTILES: std::ops::RangeInclusive<f64> = 90.0..=99.9;
/// Times that may be.
const TIMES: std::ops::RangeInclusive<Duration> = LEAST..=Duration::from_secs(60);
/// No sooner than this is another endpoint asked: what is that fast is not worth it.
const LEAST: Duration = Duration::from_millis(1);
/// The most attempts beside the first.
const MOST: u32 = 3;

impl Hedge {
    /// Is it within its bounds?
    ///
    /// # Errors
    /// The key that is not, and what was expected.
    pub fn check(&self) -> Result<(), String> {
        match (1..=MOST).contains(&self.max) {
            true => Ok(()),
            false => Err(format!(".max: {} is not between 1 and {MOST}", self.max)),
        }
    }

    /// How long an attempt is waited for. None: nobody knows yet.
    pub fn wait(&self, latencies: Option<&Latencies>) -> Option<Duration> {
        match self.after {
            After::Time(time) => Some(time),
            After::Percentile(_) => latencies?.long().map(|long| long.max(LEAST)),
        }
    }

    /// A good answer took so long, or one that was no longer waited for would have taken longer.
    pub fn took(&self, latencies: &Latencies, took: Duration) {
        if let After::Percentile(percentile) = self.after {
            latencies.add(took, percentile);
        }
    }
}

impl<'de> Deserialize<'de> for After {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl std::str::FromStr for After {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            let (least, most) = (PERCENTILES.start(), PERCENTILES.end());
            format!(
                "`{text}` is neither a percentile from \"p{least}\" to \"p{most}\" nor a time from \"1ms\" to \"60s\""
            )
        };
        match text.strip_prefix('p').map(str::parse) {
            Some(Ok(percentile)) if PERCENTILES.contains(&percentile) => Ok(After::Percentile(percentile)),
            Some(_) => Err(wrong()),
            None => match humantime::parse_duration(text) {
                Ok(time) if TIMES.contains(&time) => Ok(After::Time(time)),
                _ => Err(wrong()),
            },
        }
    }
}

impl fmt::Display for After {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            After::Percentile(percentile) => write!(f, "p{percentile}"),
            After::Time(time) => write!(f, "{}", humantime::format_duration(*time)),
        }
    }
}

/// So many answers are remembered.
const REMEMBERED: usize = 1000;
/// Before there were so many, nobody knows what takes long.
const ENOUGH: u64 = 200;
/// After so many more, the percentile is looked up again.
const EACH: u64 = 100;

/// How long a service's last answers took. Any number of workers may add at the same time; what one of them overwrites is
/// one answer of a thousand.
#[derive(Debug)]
pub struct Latencies {
    /// In µs.
    last: Box<[AtomicU32]>,
    added: AtomicU64,
    /// The percentile as it was looked up last, in µs; 0: not yet.
    long_us: AtomicU32,
}

impl Default for Latencies {
    fn default() -> Self {
        let last = std::iter::repeat_with(AtomicU32::default).take(REMEMBERED).collect();
        Latencies { last, added: AtomicU64::new(0), long_us: AtomicU32::new(0) }
    }
}

impl Latencies {
    /// What takes longer takes long. None: too little is known.
    pub fn long(&self) -> Option<Duration> {
        let us = self.long_us.load(Relaxed);
        (us > 0).then(|| Duration::from_micros(us.into()))
    }

    fn add(&self, took: Duration, percentile: f64) {
        let added = self.added.fetch_add(1, Relaxed) + 1;
        let place = usize::try_from(added % REMEMBERED as u64).unwrap_or(0);
        if let Some(slot) = self.last.get(place) {
            slot.store(u32::try_from(took.as_micros()).unwrap_or(u32::MAX).max(1), Relaxed);
        }
        if added >= ENOUGH && added.is_multiple_of(EACH) {
            self.look_up(percentile);
        }
    }

    fn look_up(&self, percentile: f64) {
        let mut all: Vec<u32> = self.last.iter().map(|us| us.load(Relaxed)).filter(|us| *us > 0).collect();
        // Of 200 or more, so that the place is within.
        let place = (all.len() as f64 * percentile / 100.0) as usize;
        if place < all.len() {
            let (_, long, _) = all.select_nth_unstable(place);
            self.long_us.store(*long, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::chance::Chance;

    fn hedge(text: &str) -> Result<Hedge, String> {
        toml::from_str(text).map_err(|problem| problem.to_string())
    }

    #[test]
    fn percentiles_and_times_are_read_within_their_bounds() {
        assert_eq!(hedge("").unwrap(), Hedge { after: After::Percentile(95.0), max: 1 });
        assert_eq!(hedge("after = '50ms'").unwrap().after, After::Time(Duration::from_millis(50)));
        assert_eq!(hedge("after = 'p99.5'").unwrap().after.to_string(), "p99.5");
        for bad in ["p50", "p100", "pp", "p", "", "0ms", "2min", "pNaN"] {
            let problem = hedge(&format!("after = '{bad}'")).unwrap_err();
            assert!(problem.contains("is neither a percentile from \"p90\" to \"p99.9\" nor a time"), "{problem}");
        }
        assert_eq!(hedge("max = 4").unwrap().check(), Err(".max: 4 is not between 1 and 3".to_owned()));
    }

    #[test]
    fn nobody_knows_what_is_long_before_200_answers_and_then_the_last_thousand_tell() {
        let (hedge, latencies) = (Hedge::default(), Latencies::default());
        for ms in 1..=199 {
            hedge.took(&latencies, Duration::from_millis(ms));
            assert_eq!(hedge.wait(Some(&latencies)), None);
        }
        hedge.took(&latencies, Duration::from_millis(200));
        assert_eq!(hedge.wait(Some(&latencies)), Some(Duration::from_millis(191)));
        for _ in 0..REMEMBERED {
            hedge.took(&latencies, Duration::from_micros(10));
        }
        assert_eq!(hedge.wait(Some(&latencies)), Some(LEAST));
    }

    /// Those that were no longer waited for count with the time that they were given, else the rest would look faster and
    /// faster, and more and more would be made twice.
    #[test]
    fn about_five_of_a_hundred_are_made_twice_and_it_stays_so() {
        let (hedge, latencies, mut chance) = (Hedge::default(), Latencies::default(), Chance(7));
        let mut twice = [0; 10];
        for (round, twice) in twice.iter_mut().enumerate() {
            for _ in 0..10_000 {
                // Log-normal by way of a sum, 10 ms in the middle.
                let normal = (0..12).map(|_| chance.below(1000) as f64 / 1000.0).sum::<f64>() - 6.0;
                let took = Duration::from_secs_f64(0.01 * (0.8 * normal).exp());
                match hedge.wait(Some(&latencies)) {
                    Some(wait) if took > wait => {
                        *twice += 1;
                        // The other one answers a little later.
                        hedge.took(&latencies, wait + Duration::from_millis(5).min(took - wait));
                    }
                    _ => hedge.took(&latencies, took),
                }
            }
            assert!(round == 0 || (300..700).contains(twice), "{round}: {twice}");
        }
        assert!(twice[9] < twice[1] * 3 / 2, "{twice:?}");
    }
}
