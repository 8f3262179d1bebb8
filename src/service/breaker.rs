//! A breaker, one for each service: while most requests to it fail, the others are refused at once, and after a while one
//! after the other may find out whether it is well again (Nygard, "Release It!").

use super::endpoint::ramp;
use crate::base::duration;
use serde::Deserialize;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// `breaker = { … }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// What is looked at: the last so long.
    #[serde(with = "duration")]
    pub window: Duration,
    /// It opens where so many of a hundred requests in the window failed.
    pub percent: u32,
    /// And there were so many at least.
    pub min_requests: u32,
    /// How long it refuses then, ± 10 %.
    #[serde(with = "duration")]
    pub open: Duration,
    /// This many good answers in a row close it, asked for one after the other.
    pub probes: u32,
    /// Once it has closed, it lets in a tenth of the requests at first, and all after so long (as `slow_start` does); zero: all
    /// at once.
    #[serde(with = "duration")]
    pub ramp: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        let (window, open) = (Duration::from_secs(2), Duration::from_secs(5));
        Settings { window, percent: 50, min_requests: 20, open, probes: 5, ramp: Duration::ZERO }
    }
}

impl Settings {
    /// Is every number within its bounds?
    ///
    /// # Errors
    /// The key that is not, and what was expected.
    pub fn check(&self) -> Result<(), String> {
        for (key, time) in [("window", self.window), ("open", self.open)] {
            if !(Duration::from_millis(100)..=Duration::from_secs(3600)).contains(&time) {
                return Err(format!(".{key}: must be between 100ms and 1h"));
            }
        }
        if self.ramp > Duration::from_secs(3600) {
            return Err(".ramp: must be at most 1h".into());
        }
        if !(1..=100).contains(&self.percent) {
            return Err(format!(".percent: {} is not between 1 and 100", self.percent));
        }
        if !(1..=1_000_000).contains(&self.min_requests) {
            return Err(format!(".min_requests: {} is not between 1 and 1000000", self.min_requests));
        }
        if !(1..=MOST_PROBES).contains(&self.probes) {
            return Err(format!(".probes: {} is not between 1 and {MOST_PROBES}", self.probes));
        }
        Ok(())
    }
}

const MOST_PROBES: u32 = 100;
/// Parts of a window: what is older than it goes part by part.
const SLOTS: usize = 10;

/// How a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Requests pass.
    Closed,
    /// They are refused.
    Open,
    /// One at a time passes, to find out.
    HalfOpen,
    /// It has closed a while ago, and a part of them passes.
    Ramping,
}

impl State {
    /// As `/services` calls it.
    pub fn name(self) -> &'static str {
        match self {
            State::Closed => "closed",
            State::Open => "open",
            State::HalfOpen => "half-open",
            State::Ramping => "ramping",
        }
    }
}

/// A service's own; it begins closed, and belongs to the service's name.
#[derive(Debug, Default)]
pub struct Breaker {
    /// 0: closed. Else until when it is open, ms, above what [`Word`] says of the time after it.
    word: AtomicU64,
    slots: [Slot; SLOTS],
    /// How often it has opened.
    opened: AtomicU64,
    /// When it closed last, ms; 0: it never did.
    closed_ms: AtomicU64,
    /// Requests that have come since then, while not all of them were let in.
    since: AtomicU64,
}

/// What the state is packed in: who knows one knows all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Word(u64);

impl Word {
    const CLOSED: Word = Word(0);

    /// Open until then, and then half-open: so many have found it well, and whether somebody is finding out.
    fn new(until_ms: u64, good: u32, probing: bool) -> Self {
        Word((until_ms.max(1) << 8) | (u64::from(good.min(MOST_PROBES)) << 1) | u64::from(probing))
    }

    fn until_ms(self) -> u64 {
        self.0 >> 8
    }

    fn good(self) -> u32 {
        (self.0 >> 1) as u32 & 0x7f
    }

    fn probing(self) -> bool {
        self.0 & 1 == 1
    }
}

/// Requests of one part of a window: its number (24 bits), all (20 bits), bad ones (20 bits).
#[derive(Debug, Default)]
struct Slot(AtomicU64);

const COUNT: u64 = (1 << 20) - 1;
const NUMBER: u64 = (1 << 24) - 1;

impl Slot {
    fn count(&self, number: u64, bad: bool) {
        let number = number & NUMBER;
        let counted = |slot: u64| {
            let (all, wrong) = if slot >> 40 == number { (slot >> 20 & COUNT, slot & COUNT) } else { (0, 0) };
            // More than a million in one part say no more than a million.
            let full = all == COUNT;
            let (all, wrong) = if full { (all, wrong) } else { (all + 1, wrong + u64::from(bad)) };
            Some(number << 40 | all << 20 | wrong)
        };
        let _ = self.0.fetch_update(Relaxed, Relaxed, counted);
    }

    /// One that was counted as good in the part of this number is bad.
    fn turn(&self, number: u64) {
        let _ = self.0.fetch_update(Relaxed, Relaxed, |slot| {
            let (all, wrong) = (slot >> 20 & COUNT, slot & COUNT);
            (slot >> 40 == number & NUMBER && wrong < all).then(|| slot + 1)
        });
    }

    fn read(&self, number: u64) -> (u64, u64) {
        let slot = self.0.load(Relaxed);
        if slot >> 40 == number & NUMBER { (slot >> 20 & COUNT, slot & COUNT) } else { (0, 0) }
    }
}

/// A request that a breaker has let pass.
#[derive(Debug)]
pub struct Pass<'a> {
    breaker: &'a Breaker,
    settings: &'a Settings,
    /// It is the one that finds out.
    probe: bool,
    ended: bool,
}

impl Breaker {
    /// May a request pass now?
    ///
    /// # Errors
    /// No: come again after so many ms.
    pub fn pass<'a>(&'a self, settings: &'a Settings, now_ms: u64) -> Result<Pass<'a>, u64> {
        let pass = |probe| Pass { breaker: self, settings, probe, ended: false };
        let word = Word(self.word.load(Relaxed));
        if word == Word::CLOSED {
            // Whoever comes now finds out sooner than that how it goes.
            return if self.takes_turn(settings, now_ms) { Ok(pass(false)) } else { Err(1000) };
        }
        let left = word.until_ms().saturating_sub(now_ms);
        if left > 0 {
            return Err(left);
        }
        let probing = Word::new(word.until_ms(), word.good(), true);
        let mine = !word.probing() && self.change(word, probing);
        // Whoever finds out is soon done, one way or the other.
        if mine { Ok(pass(true)) } else { Err(1000) }
    }

    /// It is closed: is this one of those that are let in by now? Evenly, by their number.
    fn takes_turn(&self, settings: &Settings, now_ms: u64) -> bool {
        let permille = u64::from(self.ramp_permille(settings, now_ms));
        if permille >= 1000 {
            return true;
        }
        let number = self.since.fetch_add(1, Relaxed) & u64::from(u32::MAX);
        number * permille / 1000 != (number + 1) * permille / 1000
    }

    /// Since it has closed, so many of a thousand requests are let in.
    fn ramp_permille(&self, settings: &Settings, now_ms: u64) -> u32 {
        match self.closed_ms.load(Relaxed) {
            0 => 1000,
            closed_ms => {
                let ramp_ms = u64::try_from(settings.ramp.as_millis()).unwrap_or(u64::MAX);
                ramp::permille(closed_ms, ramp_ms, now_ms)
            }
        }
    }

    fn change(&self, from: Word, to: Word) -> bool {
        self.word.compare_exchange(from.0, to.0, Relaxed, Relaxed).is_ok()
    }

    /// How it stands.
    pub fn state(&self, settings: &Settings, now_ms: u64) -> State {
        match Word(self.word.load(Relaxed)) {
            Word::CLOSED if self.ramp_permille(settings, now_ms) < 1000 => State::Ramping,
            Word::CLOSED => State::Closed,
            word if word.until_ms() > now_ms => State::Open,
            _ => State::HalfOpen,
        }
    }

    /// The share of requests that it lets in now: 0 to 1, and 0 as well where one at a time finds out.
    pub fn lets_in(&self, settings: &Settings, now_ms: u64) -> f64 {
        match self.state(settings, now_ms) {
            State::Closed => 1.0,
            State::Ramping => f64::from(self.ramp_permille(settings, now_ms)) / 1000.0,
            State::Open | State::HalfOpen => 0.0,
        }
    }

    /// How often it has opened.
    pub fn opened(&self) -> u64 {
        self.opened.load(Relaxed)
    }

    /// A request that had a good answer at `head_ms` was a bad one: so its end says. `chance`: any number.
    pub fn turned_bad(&self, settings: &Settings, head_ms: u64, now_ms: u64, chance: u64) {
        let number = part(settings, head_ms);
        if let Some(slot) = self.slots.get(number as usize % SLOTS) {
            slot.turn(number);
        }
        let word = Word(self.word.load(Relaxed));
        let half_open = word != Word::CLOSED && word.until_ms() <= now_ms && !word.probing();
        match half_open {
            // It was one of those that found it well. Who finds out now will see for itself.
            true if self.change(word, Word::new(until(settings, now_ms, chance), 0, false)) => {
                self.opened.fetch_add(1, Relaxed);
            }
            true => {}
            false => self.may_open(settings, now_ms, chance),
        }
    }

    fn count(&self, settings: &Settings, bad: bool, now_ms: u64, chance: u64) {
        let number = part(settings, now_ms);
        if let Some(slot) = self.slots.get(number as usize % SLOTS) {
            slot.count(number, bad);
        }
        if bad {
            self.may_open(settings, now_ms, chance);
        }
    }

    /// Opens it if it is closed, and too much is bad.
    fn may_open(&self, settings: &Settings, now_ms: u64, chance: u64) {
        let number = part(settings, now_ms);
        let oldest = number.saturating_sub(SLOTS as u64 - 1);
        let of = |number: u64| self.slots.get(number as usize % SLOTS).map_or((0, 0), |slot| slot.read(number));
        let (all, wrong) = (oldest..=number).map(of).fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
        let opens = all >= u64::from(settings.min_requests) && wrong * 100 >= all * u64::from(settings.percent);
        if opens && self.change(Word::CLOSED, Word::new(until(settings, now_ms, chance), 0, false)) {
            self.opened.fetch_add(1, Relaxed);
        }
    }
}

/// The number of the part of windows that this is. The first one has a number, too: none is 0, which slots begin with.
fn part(settings: &Settings, now_ms: u64) -> u64 {
    now_ms / u64::try_from(settings.window.as_millis()).unwrap_or(u64::MAX).div_ceil(SLOTS as u64).max(1) + 1
}

/// When one ends that opens now: within ± 10 %, so that many gateways don't ask at once.
fn until(settings: &Settings, now_ms: u64, chance: u64) -> u64 {
    let open = u64::try_from(settings.open.as_millis()).unwrap_or(u64::MAX);
    now_ms.saturating_add(open * (900 + chance % 201) / 1000)
}

impl Pass<'_> {
    /// What it came to. `chance`: any number.
    pub fn ended(mut self, bad: bool, now_ms: u64, chance: u64) {
        self.ended = true;
        let Pass { breaker, settings, .. } = self;
        if !self.probe {
            return breaker.count(settings, bad, now_ms, chance);
        }
        let word = Word(breaker.word.load(Relaxed));
        let next = match word.good() + 1 {
            _ if bad => {
                breaker.opened.fetch_add(1, Relaxed);
                Word::new(until(settings, now_ms, chance), 0, false)
            }
            good if good >= settings.probes => {
                // What opened it is forgotten: one bad answer would open it again.
                breaker.slots.iter().for_each(|slot| slot.0.store(0, Relaxed));
                breaker.closed_ms.store(now_ms, Relaxed);
                Word::CLOSED
            }
            good => Word::new(word.until_ms(), good, false),
        };
        // Nobody else changes it while somebody finds out.
        breaker.word.store(next.0, Relaxed);
    }
}

impl Drop for Pass<'_> {
    /// Without an end, nothing was found out.
    fn drop(&mut self) {
        if self.probe && !self.ended {
            let word = Word(self.breaker.word.load(Relaxed));
            self.breaker.word.store(Word::new(word.until_ms(), word.good(), false).0, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::atomic::AtomicU32;

    fn end(breaker: &Breaker, settings: &Settings, bad: bool, now_ms: u64) -> bool {
        breaker.pass(settings, now_ms).map(|pass| pass.ended(bad, now_ms, 100)).is_ok()
    }

    #[test]
    fn it_opens_refuses_finds_out_and_closes() {
        let (breaker, settings) = (Breaker::default(), Settings::default());
        // 1,000 requests a second, all of which fail.
        let passed = (0..1000).filter(|ms| end(&breaker, &settings, true, *ms)).count();
        assert_eq!((passed, breaker.state(&settings, 1000), breaker.opened()), (20, State::Open, 1));
        assert_eq!(breaker.pass(&settings, 1019).map(drop), Err(4000));
        assert_eq!(breaker.state(&settings, 5019), State::HalfOpen);
        // One at a time, and five of them.
        let first = breaker.pass(&settings, 5019).unwrap();
        assert_eq!(breaker.pass(&settings, 5020).map(drop), Err(1000));
        first.ended(false, 5030, 0);
        for _ in 0..4 {
            assert_eq!(breaker.state(&settings, 5040), State::HalfOpen);
            assert!(end(&breaker, &settings, false, 5040));
        }
        assert_eq!(breaker.state(&settings, 5041), State::Closed);
        // What was before is forgotten.
        assert!(end(&breaker, &settings, true, 5041));
        assert_eq!(breaker.state(&settings, 5041), State::Closed);
    }

    #[test]
    fn once_closed_it_lets_in_more_and_more() {
        let settings = Settings { ramp: Duration::from_secs(10), ..Settings::default() };
        let breaker = Breaker::default();
        assert!((0..20).all(|ms| end(&breaker, &settings, true, ms)));
        assert!((0..5).all(|_| end(&breaker, &settings, false, 10_000)));
        let passed = |from: u64| (from..from + 1000).filter(|ms| end(&breaker, &settings, false, *ms)).count();
        let shares = [10_000, 15_000, 18_000, 20_000].map(passed);
        assert!((100..=101).contains(&shares[0]) && (540..=560).contains(&shares[1]), "{shares:?}");
        assert!((840..=860).contains(&shares[2]) && shares[3] == 1000, "{shares:?}");
    }

    #[test]
    fn a_bad_answer_opens_it_again_and_one_that_never_comes_leaves_it_to_the_next() {
        let (breaker, settings) = (Breaker::default(), Settings::default());
        assert!((0..20).all(|ms| end(&breaker, &settings, true, ms)));
        let left = breaker.pass(&settings, 20).unwrap_err();
        let now_ms = 20 + left;
        drop(breaker.pass(&settings, now_ms).unwrap());
        assert!(end(&breaker, &settings, true, now_ms));
        assert_eq!((breaker.state(&settings, now_ms), breaker.opened()), (State::Open, 2));
    }

    #[test]
    fn it_never_opens_for_few_or_for_fewer_than_half() {
        let (breaker, settings) = (Breaker::default(), Settings::default());
        // Nineteen in each window.
        assert!((0..1000).all(|n| end(&breaker, &settings, true, n * 115)));
        let breaker = Breaker::default();
        assert!((0..10_000).all(|ms| end(&breaker, &settings, ms % 20 > 10, ms)));
    }

    #[test]
    fn of_all_workers_one_finds_out_at_a_time() {
        let (breaker, settings) = (Breaker::default(), Settings { probes: 100, ..Settings::default() });
        assert!((0..20).all(|ms| end(&breaker, &settings, true, ms)));
        let (inside, most) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    while breaker.state(&settings, 10_000) == State::HalfOpen {
                        let Ok(pass) = breaker.pass(&settings, 10_000) else { continue };
                        if !pass.probe {
                            break;
                        }
                        most.fetch_max(inside.fetch_add(1, Relaxed) + 1, Relaxed);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Relaxed);
                        pass.ended(false, 10_000, 0);
                    }
                });
            }
        });
        assert_eq!((most.load(Relaxed), breaker.state(&settings, 10_000)), (1, State::Closed));
    }

    #[test]
    fn an_answer_that_turns_bad_counts_as_if_its_head_had_said_so() {
        let (breaker, settings) = (Breaker::default(), Settings::default());
        for ms in 0..20 {
            assert_eq!(breaker.state(&settings, ms), State::Closed);
            assert!(end(&breaker, &settings, false, ms));
        }
        (0..9).for_each(|ms| breaker.turned_bad(&settings, ms, ms + 100, 100));
        assert_eq!(breaker.state(&settings, 110), State::Closed);
        breaker.turned_bad(&settings, 9, 110, 100);
        assert_eq!(breaker.state(&settings, 110), State::Open);
        // What began before the window says nothing; one of those who found it well, that it is not.
        breaker.turned_bad(&settings, 0, 4000, 100);
        let now_ms = 110 + 5000;
        assert!(end(&breaker, &settings, false, now_ms));
        assert_eq!(breaker.state(&settings, now_ms), State::HalfOpen);
        breaker.turned_bad(&settings, now_ms, now_ms + 1, 100);
        assert_eq!((breaker.state(&settings, now_ms + 1), breaker.opened()), (State::Open, 2));
    }

    proptest! {
        /// Where everything fails at 20 requests a window and more, it is open within a window.
        #[test]
        fn it_opens_within_a_window(began in 0u64..100_000_000, every in 1u64..95) {
            let (breaker, settings) = (Breaker::default(), Settings::default());
            let opened = (0..).map(|n| began + n * every).find(|now_ms| !end(&breaker, &settings, true, *now_ms));
            prop_assert!(opened.unwrap() - began <= 2000);
        }
    }
}
