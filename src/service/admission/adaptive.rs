//! A service's limit that finds itself: while its answers take as long as they do unhurried, it grows by its root in each
//! window; when they take longer, it shrinks as much. A gradient like Netflix's `Gradient2Limit`, by windows as Envoy's
//! `adaptive_concurrency` has them, but what is unhurried comes from windows in which the limit held nobody back: it need not
//! be forced down for that. Only where there was none for a while, it is looked for. Pure: it is told what was measured when.

mod probe;

use crate::base::duration;
use probe::{Next, Probe};
use serde::Deserialize;
use std::collections::VecDeque;
use std::time::Duration;

/// `adaptive = { … }`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where it begins.
    pub start: u32,
    /// It is never less.
    pub min: u32,
    /// It is never more.
    pub max: u32,
    /// It changes each so long at most,
    #[serde(with = "duration")]
    pub window: Duration,
    /// and after so many answers at least.
    pub min_requests: u32,
    /// Answers may take so many times as long as unhurried ones before it shrinks.
    pub tolerance: f64,
    /// The part of the way to where it should be that it goes at once.
    pub smoothing: f64,
}

impl Default for Settings {
    fn default() -> Self {
        let window = Duration::from_millis(250);
        Settings { start: 20, min: 4, max: 1000, window, min_requests: 20, tolerance: 1.5, smoothing: 0.5 }
    }
}

impl Settings {
    /// Is every number within its bounds?
    ///
    /// # Errors
    /// The key that is not, and what was expected.
    pub fn check(&self) -> Result<(), String> {
        if !(1..=100_000).contains(&self.max) {
            return Err(format!(".max: {} is not between 1 and 100000", self.max));
        }
        for (key, number) in [("min", self.min), ("start", self.start)] {
            if !(1..=self.max).contains(&number) {
                return Err(format!(".{key}: {number} is not between 1 and max, {}", self.max));
            }
        }
        if self.start < self.min {
            return Err(format!(".start: {} is less than min, {}", self.start, self.min));
        }
        if !(Duration::from_millis(50)..=Duration::from_secs(10)).contains(&self.window) {
            return Err(".window: must be between 50ms and 10s".into());
        }
        if !(1..=KEPT as u32).contains(&self.min_requests) {
            return Err(format!(".min_requests: {} is not between 1 and {KEPT}", self.min_requests));
        }
        for (key, number, low, high) in
            [("tolerance", self.tolerance, 1.1, 10.0), ("smoothing", self.smoothing, 0.05, 1.0)]
        {
            if !(low..=high).contains(&number) {
                return Err(format!(".{key}: {number} is not between {low} and {high}"));
            }
        }
        Ok(())
    }
}

/// Answers of a window that are kept: of more, the last.
const KEPT: usize = 1024;
/// For so long a window tells what is unhurried, ms.
const MEMORY_MS: u64 = 30_000;
/// Windows that are remembered, however short they are.
const WINDOWS: usize = 1024;
/// Full so far, the limit holds somebody back.
const BINDS: f64 = 0.9;
/// Answers that take no longer than so many times those of the window before don't wait for more and more others.
const STEADY: f64 = 1.1;
/// While it does, what is unhurried becomes this much longer with each window: all may have become slower for good.
const CREEP: f64 = 1.002;

/// A limit, and what it goes by.
#[derive(Debug)]
pub(super) struct Gradient {
    pub(super) settings: Settings,
    limit: f64,
    /// When this window began; none: with its first answer.
    since_ms: Option<u64>,
    /// In µs.
    samples: Vec<u32>,
    seen: usize,
    /// Most that was in flight in it.
    most: u32,
    /// Medians of windows in which the limit held nobody back, and when they ended.
    unhurried: VecDeque<(u64, f64)>,
    /// The least of them, as long as there is one.
    base_us: f64,
    /// When something unhurried was measured last, or looked for in vain; none: never.
    known_ms: Option<u64>,
    /// The median of the window before this one, µs, if the limit held somebody back in it.
    held_us: Option<f64>,
    /// It is looked for.
    probe: Option<Probe>,
}

impl Gradient {
    /// None was measured yet.
    pub(super) fn new(settings: Settings) -> Self {
        Gradient {
            settings,
            limit: settings.start.into(),
            since_ms: None,
            samples: Vec::new(),
            seen: 0,
            most: 0,
            unhurried: VecDeque::new(),
            base_us: 0.0,
            known_ms: None,
            held_us: None,
            probe: None,
        }
    }

    /// It, as a whole number.
    pub(super) fn limit(&self) -> u32 {
        // Between its bounds.
        self.limit as u32
    }

    /// A good answer came after `took_us`, while so many were in flight. True: the limit is another one now.
    pub(super) fn answered(&mut self, took_us: u32, in_flight: u32, now_ms: u64) -> bool {
        let limit = self.limit();
        if let Some(probe) = &mut self.probe {
            if let Some(before) = probe.is_over(now_ms) {
                (self.probe, self.known_ms, self.limit) = (None, Some(now_ms), before);
                self.begins(None);
                return self.limit() != limit;
            }
            if !probe.counts(took_us, in_flight, limit, now_ms) {
                return false;
            }
        }
        match self.samples.get_mut(self.seen % KEPT) {
            Some(oldest) => *oldest = took_us,
            None => self.samples.push(took_us),
        }
        self.seen += 1;
        self.most = self.most.max(in_flight);
        let since_ms = *self.since_ms.get_or_insert(now_ms);
        let window_ms = self.probe.as_ref().map_or(0, Probe::window_ms).into();
        let over = u128::from(now_ms.saturating_sub(since_ms)) >= self.settings.window.as_millis().max(window_ms);
        over && self.seen >= self.settings.min_requests as usize && self.ends(now_ms)
    }

    /// The window is over.
    fn ends(&mut self, now_ms: u64) -> bool {
        let middle = self.samples.len() / 2;
        let median = f64::from(*self.samples.select_nth_unstable(middle).1).max(1.0);
        // No part of one more can be in flight.
        let binds = f64::from(self.most) >= BINDS * f64::from(self.limit());
        let (before, min) = (self.limit(), self.settings.min.into());
        if let Some(mut probe) = self.probe.take() {
            self.limit = match probe.step(self.limit, median, binds, self.settings.tolerance, min) {
                Next::Step(limit) => {
                    self.probe = Some(probe);
                    limit
                }
                Next::Ends(limit) => {
                    self.unhurried.clear();
                    self.learns(median, false, now_ms);
                    limit
                }
            };
            self.begins(Some(now_ms).filter(|_| self.probe.is_none()));
            return self.limit() != before;
        }
        self.learns(median, binds, now_ms);
        // While those who wait become more and more, it is not yet known how long answers take with as many.
        let held_us = std::mem::replace(&mut self.held_us, binds.then_some(median));
        let holds = binds && held_us.is_some_and(|held_us| median <= STEADY * held_us);
        if holds && self.limit > min && self.is_forgotten(median, now_ms) {
            self.held_us = None;
            let probe = Probe::new(self.limit, median, now_ms);
            (self.limit, self.probe) = (probe.first(min), Some(probe));
            self.begins(None);
            return self.limit() != before;
        }
        let gradient = (self.settings.tolerance * self.base_us / median).clamp(0.5, 1.0);
        let aim = gradient * self.limit + self.limit.sqrt();
        let next = self.limit + self.settings.smoothing * (aim - self.limit);
        // What nobody asks for tells nothing of what could be.
        if binds || next < self.limit {
            self.limit = next.clamp(min, self.settings.max.into());
        }
        self.begins(Some(now_ms));
        self.limit() != before
    }

    /// Another window begins; none: with its first answer.
    fn begins(&mut self, since_ms: Option<u64>) {
        (self.since_ms, self.seen, self.most) = (since_ms, 0, 0);
        self.samples.clear();
    }

    /// Nothing unhurried was measured for a while; how long, what was measured says, so that gateways don't look for it all
    /// at once.
    fn is_forgotten(&self, median: f64, now_ms: u64) -> bool {
        let spread = (median as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let memory_ms = MEMORY_MS * (900 + spread % 201) / 1000;
        self.known_ms.is_none_or(|known_ms| now_ms.saturating_sub(known_ms) >= memory_ms)
    }

    /// What is unhurried, after a window with this median.
    fn learns(&mut self, median: f64, binds: bool, now_ms: u64) {
        if binds {
            self.unhurried.iter_mut().for_each(|(_, median)| *median *= CREEP);
            self.base_us = if self.base_us == 0.0 { median } else { self.base_us * CREEP };
            // Nothing is as fast as less than nothing: all that were slower were not unhurried.
            self.base_us = self.base_us.min(median);
        } else {
            self.unhurried.push_back((now_ms, median));
            self.known_ms = Some(now_ms);
        }
        let old = |(at_ms, _): &(u64, f64)| now_ms.saturating_sub(*at_ms) > MEMORY_MS;
        while self.unhurried.len() > WINDOWS || self.unhurried.len() > 1 && self.unhurried.front().is_some_and(old) {
            self.unhurried.pop_front();
        }
        if !binds {
            self.base_us = self.unhurried.iter().fold(f64::INFINITY, |least, (_, median)| least.min(*median));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Windows in which all answers take so long, each with so many in flight.
    fn windows(gradient: &mut Gradient, now_ms: &mut u64, count: usize, us: u32, in_flight: Option<u32>) {
        for _ in 0..count {
            for _ in 0..26 {
                *now_ms += 10;
                let limit = gradient.limit();
                gradient.answered(us, in_flight.unwrap_or(limit), *now_ms);
            }
        }
    }

    #[test]
    fn it_grows_while_it_binds_and_shrinks_when_answers_take_longer() {
        let (mut gradient, mut now_ms) = (Gradient::new(Settings::default()), 1_000);
        windows(&mut gradient, &mut now_ms, 10, 20_000, Some(5));
        assert_eq!(gradient.limit(), 20);
        windows(&mut gradient, &mut now_ms, 20, 20_000, None);
        let grown = gradient.limit();
        assert!((60..120).contains(&grown), "{grown}");
        // Within what is tolerated, nothing happens but that it grows.
        windows(&mut gradient, &mut now_ms, 2, 29_000, None);
        assert!(gradient.limit() >= grown);
        windows(&mut gradient, &mut now_ms, 20, 90_000, None);
        assert!(gradient.limit() <= 16, "{}", gradient.limit());
    }

    #[test]
    fn a_service_that_is_slower_for_good_is_known_after_a_while() {
        let (mut gradient, mut now_ms) = (Gradient::new(Settings::default()), 1_000);
        windows(&mut gradient, &mut now_ms, 10, 10_000, Some(1));
        windows(&mut gradient, &mut now_ms, 100, 50_000, Some(1));
        let least = gradient.limit();
        windows(&mut gradient, &mut now_ms, 100, 50_000, Some(1));
        windows(&mut gradient, &mut now_ms, 20, 50_000, None);
        assert!(least < 10 && gradient.limit() > 30, "{least}, {}", gradient.limit());
    }

    #[test]
    fn too_few_answers_tell_nothing() {
        let mut gradient = Gradient::new(Settings::default());
        gradient.known_ms = Some(0);
        assert!((0..19).all(|number| !gradient.answered(10, 20, number * 1_000)));
        assert!(gradient.answered(10, 20, 20_000) && gradient.limit() > 20);
    }

    /// A service with so many slots of 20 ms, of which as many ask at a time as are let in; each ms, one that was let in
    /// is answered.
    fn saturated(gradient: &mut Gradient, now_ms: &mut u64, slots: u32, ms: u64) {
        for _ in 0..ms {
            *now_ms += 1;
            let limit = gradient.limit();
            gradient.answered(20_000 * limit.div_ceil(slots), limit, *now_ms);
        }
    }

    #[test]
    fn what_begins_in_an_overload_is_known_at_once_and_looked_for_again() {
        let (mut gradient, mut now_ms) = (Gradient::new(Settings { start: 40, ..Settings::default() }), 1_000);
        saturated(&mut gradient, &mut now_ms, 4, 3_000);
        assert!((4..=14).contains(&gradient.limit()), "{}", gradient.limit());
        assert!((20_000.0..21_000.0).contains(&gradient.base_us) && gradient.probe.is_none(), "{}", gradient.base_us);
        // Later it can take four times as many: what is unhurried stays, and nobody is held back for long to find that out.
        let mut least = u32::MAX;
        for _ in 0..60 {
            saturated(&mut gradient, &mut now_ms, 16, 1_000);
            least = least.min(gradient.limit());
        }
        assert!(gradient.limit() >= 16 && gradient.base_us < 26_000.0, "{} {}", gradient.limit(), gradient.base_us);
        assert!(least >= 4);
        // Where more are let in than come, there is nothing to look for.
        let known = gradient.known_ms;
        for _ in 0..60_000 {
            now_ms += 1;
            gradient.answered(20_000, 4, now_ms);
            assert_eq!(gradient.probe, None);
        }
        assert!(gradient.known_ms > known);
    }

    #[test]
    fn a_step_of_the_probe_counts_whoever_came_with_as_few() {
        let mut probe = Probe::new(40.0, 200_000.0, 1_000);
        assert_eq!(probe.first(4.0), 20.0);
        // Forty are in flight, then twenty: those that came before have waited behind them.
        assert!(!probe.counts(1, 40, 20, 1_100) && !probe.counts(200_000, 20, 20, 1_200));
        assert!(!probe.counts(150_000, 20, 20, 1_300) && probe.counts(100_000, 20, 20, 1_300));
        assert_eq!(probe.step(20.0, 100_000.0, true, 1.5, 4.0), Next::Step(10.0));
        assert_eq!(probe.step(10.0, 50_000.0, true, 1.5, 4.0), Next::Step(5.0));
        // As fast as with twice as many: a fifth of the time fits an eighth and a half of it.
        assert_eq!(probe.step(5.0, 40_000.0, true, 1.5, 4.0), Next::Ends(12.0));
        let mut unhurried = Probe::new(40.0, 20_000.0, 0);
        assert_eq!(unhurried.step(20.0, 20_000.0, true, 1.5, 4.0), Next::Ends(40.0));
        assert_eq!((unhurried.is_over(4_999), unhurried.is_over(5_000)), (None, Some(40.0)));
    }

    proptest! {
        #[test]
        fn it_stays_within_its_bounds(
            answers in prop::collection::vec((1u32..10_000_000, 0u32..2_000, 0u64..100), 1..3_000),
        ) {
            let settings = Settings { max: 200, min_requests: 1, window: Duration::from_millis(50), ..Settings::default() };
            let (mut gradient, mut now_ms) = (Gradient::new(settings), 0);
            for (took, in_flight, later) in answers {
                now_ms += later;
                gradient.answered(took, in_flight, now_ms);
                prop_assert!((4..=200).contains(&gradient.limit()) && gradient.samples.len() <= KEPT);
                prop_assert!(gradient.base_us.is_finite());
            }
        }
    }
}
