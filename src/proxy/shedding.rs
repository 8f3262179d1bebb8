//! Load shedding: a worker that has more to do than it can gets to everything too late, to what it could still do in time as
//! well. So it refuses a part of what comes, at once and cheaply. It finds out by a tick of its own: one that is always late
//! stands in line behind work that does not get less, where a burst is over soon (CoDel's idea; Nichols & Jacobson 2012).
//! Pure: it is told how late the tick was.

use crate::base::chance::Chance;
use std::cell::Cell;
use std::time::{Duration, Instant};

/// How often a worker looks.
pub const TICK: Duration = Duration::from_millis(10);
/// What is late for so long stands in line.
const WINDOW: Duration = Duration::from_millis(100);
/// By so many thousandths the part that is refused changes with each window,
const STEP: u32 = 50;
/// and by at most so many times as much where one lasted longer, since its only tick was as late as that.
const STEPS: u128 = 10;

/// A worker's own.
#[derive(Debug, Default)]
pub struct Shedding {
    /// In thousandths.
    refused: Cell<u32>,
    /// When this window began, and how late its ticks were at least.
    window: Cell<Option<(Instant, Duration)>>,
    /// The window before this one was late: it was no moment in which the machine stood still.
    stands: Cell<bool>,
}

impl Shedding {
    /// A tick that was due then came at `now`. `tolerated`: as late as it may be; zero: however late.
    pub fn ticked(&self, due: Instant, now: Instant, tolerated: Duration) {
        if tolerated.is_zero() {
            self.window.set(None);
            self.refused.set(0);
            self.stands.set(false);
            return;
        }
        let late = now.saturating_duration_since(due);
        let (began, least) = self.window.get().unwrap_or((due, late));
        let least = least.min(late);
        let lasted = now.saturating_duration_since(began);
        if lasted < WINDOW {
            return self.window.set(Some((began, least)));
        }
        let (refused, is_late) = (self.refused.get(), least > tolerated);
        let stood = self.stands.replace(is_late);
        let windows = if stood && is_late { (lasted.as_millis() / WINDOW.as_millis()).clamp(1, STEPS) } else { 1 };
        // At most 10.
        let step = STEP * windows as u32;
        self.refused.set(if is_late { (refused + step).min(1000) } else { refused.saturating_sub(step) });
        self.window.set(None);
    }

    /// Is the next one refused?
    pub fn refuses(&self, chance: &mut Chance) -> bool {
        let refused = self.refused.get();
        refused > 0 && chance.below(1000) < refused as usize
    }

    /// The part that is refused, in thousandths.
    pub fn permille(&self) -> u32 {
        self.refused.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    const TOLERATED: Duration = Duration::from_millis(20);

    fn us(us: u64) -> Duration {
        Duration::from_micros(us)
    }

    #[test]
    fn a_burst_is_no_reason_and_a_line_that_stands_is() {
        let (shedding, mut now) = (Shedding::default(), Instant::now());
        let mut ticks = |late_ms: &[u64], tolerated| {
            for late in late_ms {
                let due = now + TICK;
                now = due + us(late * 1_000);
                shedding.ticked(due, now, tolerated);
            }
            shedding.permille()
        };
        // One of a window's ticks is in time.
        assert_eq!(ticks(&[50, 60, 0, 40, 500, 1, 99, 300, 2, 98], TOLERATED), 0);
        assert_eq!(ticks(&[150; 3], TOLERATED), 150);
        assert_eq!(ticks(&[30; 6], TOLERATED), 250);
        assert_eq!(ticks(&[200; 50], TOLERATED), 1000);
        assert_eq!(ticks(&[0; 33], TOLERATED), 850);
        // It stands still once, for two seconds.
        assert_eq!(ticks(&[2_000], TOLERATED), 900);
        assert_eq!(ticks(&[200], Duration::ZERO), 0);
    }

    /// A worker on a virtual clock, that does one thing after the other: requests, of which one costs 1 ms and a refusal a
    /// twentieth of that, and its ticks. How many of those that came in `from..seconds` were served within a second.
    fn served(rate: f64, seconds: u64, tolerated: Duration) -> f64 {
        let (shedding, mut chance, start) = (Shedding::default(), Chance(7), Instant::now());
        let (mut now, mut next, mut due, mut tick) = (0, 0.0, 10_000, None);
        let (mut line, mut good, from) = (VecDeque::new(), 0_u32, 5_000_000);
        let end = seconds * 1_000_000;
        while now < end {
            // What has come meanwhile stands in line.
            while next as u64 <= now {
                line.push_back(Some(next as u64));
                let unit = ((chance.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
                next -= unit.ln() / rate * 1e6;
                if tick.is_none() && due <= next as u64 {
                    line.push_back(None);
                    tick = Some(due);
                }
            }
            match line.pop_front() {
                None => now = next as u64,
                Some(None) => {
                    shedding.ticked(start + us(tick.take().unwrap_or(now)), start + us(now), tolerated);
                    due = now + 10_000;
                }
                Some(Some(_)) if shedding.refuses(&mut chance) => now += 50,
                Some(Some(came)) => {
                    now += 1_000;
                    good += u32::from(came >= from && now - came < 1_000_000);
                }
            }
        }
        f64::from(good) / (seconds - 5) as f64
    }

    #[test]
    fn at_twice_the_load_it_serves_nearly_as_many() {
        let once = served(950.0, 30, TOLERATED);
        let (twice, without) = (served(1_900.0, 30, TOLERATED), served(1_900.0, 30, Duration::ZERO));
        assert!(once > 900.0 && twice >= 0.9 * once && without < 0.1 * once, "{once}, {twice}, {without} without");
    }

    proptest! {
        #[test]
        fn a_worker_that_is_in_time_refuses_nobody(lates in prop::collection::vec(0u64..20_000, 1..500)) {
            let (shedding, mut now) = (Shedding::default(), Instant::now());
            for late in lates {
                let due = now + TICK;
                now = due + us(late);
                shedding.ticked(due, now, TOLERATED);
                prop_assert_eq!(shedding.permille(), 0);
            }
        }
    }
}
