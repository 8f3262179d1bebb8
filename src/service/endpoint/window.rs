//! How an endpoint did in the last ten seconds, second by second, counted by all workers without a lock.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

const SLOTS: usize = 10;
/// Each slot is one word: the second's stamp, then two numbers.
const STAMP: u32 = 44;
const HALF: u32 = 22;
const HALF_MASK: u64 = (1 << HALF) - 1;
const MASK: u64 = (1 << STAMP) - 1;
/// Times are summed up in these.
const UNIT_US: u64 = 100;

/// What it did in a while.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::service) struct Did {
    /// Good answers.
    pub(in crate::service) good: u64,
    /// Bad answers, and attempts without one.
    pub(in crate::service) bad: u64,
    /// Time until the heads of the good ones, all together, µs.
    pub(in crate::service) took_us: u64,
}

/// The counts of one endpoint.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// (bad, good) of a second.
    counts: [AtomicU64; SLOTS],
    /// Time of its good ones.
    took: [AtomicU64; SLOTS],
}

impl Window {
    /// One attempt that ended at `now_ms`.
    pub(super) fn add(&self, good: bool, took: Duration, now_ms: u64) {
        let (stamp, slot) = place(now_ms);
        let Some((counts, times)) = self.counts.get(slot).zip(self.took.get(slot)) else { return };
        let (more, mask) = if good { (1, HALF_MASK) } else { (1 << HALF, HALF_MASK << HALF) };
        add(counts, stamp, more, mask);
        if good {
            let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX) / UNIT_US;
            add(times, stamp, took.min(MASK), MASK);
        }
    }

    /// An attempt that was added as a good one at `at_ms` was a bad one.
    pub(super) fn turn(&self, took: Duration, at_ms: u64) {
        let (stamp, slot) = place(at_ms);
        let Some((counts, times)) = self.counts.get(slot).zip(self.took.get(slot)) else { return };
        let turned = counts.fetch_update(Relaxed, Relaxed, |word| {
            let (good, bad) = (word & HALF_MASK, word >> HALF & HALF_MASK);
            // What was so long ago, nobody looks at any more.
            (word >> STAMP == stamp && good > 0 && bad < HALF_MASK).then(|| word - 1 + (1 << HALF))
        });
        if turned.is_ok() {
            let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX) / UNIT_US;
            let _ = times
                .fetch_update(Relaxed, Relaxed, |word| (word >> STAMP == stamp).then(|| word - took.min(word & MASK)));
        }
    }

    /// What it did in the second of `now_ms` and in the nine before it.
    pub(super) fn did(&self, now_ms: u64) -> Did {
        let mut did = Did::default();
        let first = (now_ms / 1000).saturating_sub(SLOTS as u64 - 1);
        for second in first..=now_ms / 1000 {
            let (stamp, slot) = place(second * 1000);
            let of = |words: &[AtomicU64; SLOTS]| {
                let word = words.get(slot).map_or(0, |word| word.load(Relaxed));
                if word >> STAMP == stamp { word & MASK } else { 0 }
            };
            let counts = of(&self.counts);
            did.good += counts & HALF_MASK;
            did.bad += counts >> HALF;
            did.took_us += of(&self.took) * UNIT_US;
        }
        did
    }

    /// Nothing is known any more.
    pub(super) fn clear(&self) {
        self.counts.iter().chain(&self.took).for_each(|word| word.store(0, Relaxed));
    }
}

/// A second's stamp, and its slot. Stamps come again after twelve days, in which a slot that nobody has used meanwhile
/// would count once more.
fn place(now_ms: u64) -> (u64, usize) {
    let second = now_ms / 1000;
    (second & ((1 << (64 - STAMP)) - 1), (second % SLOTS as u64) as usize)
}

/// Adds `more` to the number in `mask`, unless that would be too much for it. A word of another second begins anew.
fn add(word: &AtomicU64, stamp: u64, more: u64, mask: u64) {
    let _ = word.fetch_update(Relaxed, Relaxed, |before| {
        let same = if before >> STAMP == stamp { before & MASK } else { 0 };
        ((same & mask) <= mask - more).then_some(stamp << STAMP | (same + more))
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_counted_is_what_came_in_these_ten_seconds(
            steps in proptest::collection::vec((0u64..3000, any::<bool>(), 0u64..10_000), 1..200),
            start in 0u64..1 << 42,
        ) {
            let (window, mut now, mut all) = (Window::default(), start, Vec::new());
            for (step, good, took_ms) in steps {
                now += step;
                window.add(good, Duration::from_millis(took_ms), now);
                all.push((now / 1000, good, took_ms * 1000));
                let mut did = Did::default();
                for (_, good, took_us) in all.iter().filter(|(second, ..)| second + 10 > now / 1000) {
                    did.good += u64::from(*good);
                    did.bad += u64::from(!*good);
                    did.took_us += if *good { *took_us } else { 0 };
                }
                prop_assert_eq!(window.did(now), did);
            }
            window.clear();
            prop_assert_eq!(window.did(now), Did::default());
        }
    }

    #[test]
    fn one_that_turns_bad_is_counted_where_it_was_taken_for_a_good_one() {
        let (window, ms) = (Window::default(), Duration::from_millis);
        window.add(true, ms(30), 1_500);
        window.add(true, ms(10), 1_900);
        window.turn(ms(30), 1_500);
        assert_eq!(window.did(5_000), Did { good: 1, bad: 1, took_us: 10_000 });
        // Of a second that is gone, and of one in which nothing was counted.
        window.turn(ms(30), 11_500);
        window.turn(ms(30), 4_000);
        assert_eq!(window.did(5_000), Did { good: 1, bad: 1, took_us: 10_000 });
    }

    #[test]
    fn numbers_do_not_run_into_each_other() {
        let window = Window::default();
        let fill = |word: &AtomicU64| word.store((5 << STAMP) | (HALF_MASK << HALF) | HALF_MASK, Relaxed);
        fill(&window.counts[5]);
        window.add(true, Duration::MAX, 5_000);
        window.add(false, Duration::ZERO, 5_999);
        let did = window.did(5_000);
        assert_eq!((did.good, did.bad, did.took_us), (HALF_MASK, HALF_MASK, MASK * UNIT_US));
    }
}
