//! How long an endpoint is put aside for its answers, and what it has to do to be trusted again. After Envoy's
//! (`outlier.rst`) with two differences: time does not heal, only good answers do (envoy#21142), and who comes back is
//! put aside again by its first failure (envoy#18950, #40697).

use super::window::{Did, Window};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// So many good answers in a row take one step back.
const GOOD: u32 = 20;

/// One endpoint's, counted by all workers, each number on its own.
#[derive(Debug)]
pub(in crate::service) struct Ejection {
    /// Failures in a row.
    failed: AtomicU32,
    /// Steps that its time has grown by.
    times: AtomicU32,
    /// Good answers in a row, while there are steps to be taken back.
    good: AtomicU32,
    /// In ms since the process started; never, while it is not put aside.
    until_ms: AtomicU64,
    /// None: nobody has asked how it does.
    window: OnceLock<Box<Window>>,
}

impl Default for Ejection {
    fn default() -> Self {
        let (failed, times, good, window) = Default::default();
        Ejection { failed, times, good, until_ms: u64::MAX.into(), window }
    }
}

impl Ejection {
    /// A good answer. Writes nothing where all was well before.
    pub(in crate::service) fn good(&self) {
        if self.failed.load(Relaxed) != 0 {
            self.failed.store(0, Relaxed);
        }
        if self.times.load(Relaxed) != 0 && self.good.fetch_add(1, Relaxed) + 1 >= GOOD {
            self.good.store(0, Relaxed);
            let _ = self.times.fetch_update(Relaxed, Relaxed, |times| times.checked_sub(1));
        }
    }

    /// Bad answers in a row until now.
    pub(in crate::service) fn failed(&self) -> u32 {
        self.failed.load(Relaxed)
    }

    /// An answer that was taken for a good one was a bad one, and so many were bad before it: it never broke the row. How many
    /// that makes.
    pub(in crate::service) fn turned_bad(&self, before: u32) -> u32 {
        self.failed.fetch_max(before, Relaxed);
        self.bad()
    }

    /// The same for the counts of the second in which it was taken for a good one, `head_ms`; it took so long.
    pub(in crate::service) fn count_turned(&self, took: Duration, head_ms: u64) {
        self.window.get_or_init(Box::default).turn(took, head_ms);
    }

    /// A bad one, or none: how many these are in a row.
    pub(in crate::service) fn bad(&self) -> u32 {
        if self.good.load(Relaxed) != 0 {
            self.good.store(0, Relaxed);
        }
        self.failed.fetch_add(1, Relaxed).saturating_add(1)
    }

    /// Counts an attempt for [`Ejection::did`].
    pub(in crate::service) fn count(&self, good: bool, took: Duration, now_ms: u64) {
        self.window.get_or_init(Box::default).add(good, took, now_ms);
    }

    /// What it did in the last ten seconds, as far as it was counted.
    pub(in crate::service) fn did(&self, now_ms: u64) -> Did {
        self.window.get().map_or(Did::default(), |window| window.did(now_ms))
    }

    /// It is put aside once more at `now_ms`: for how long. Each time it is `base` longer, up to `max`, and up to a tenth
    /// more (`jitter`, in thousandths), so that those who failed together don't come back together.
    pub(in crate::service) fn begin(&self, (base, max): (Duration, Duration), jitter: u32, now_ms: u64) -> Duration {
        let most = u32::try_from(max.as_millis().div_ceil(base.as_millis().max(1))).unwrap_or(u32::MAX).max(1);
        let next = |times: u32| times.saturating_add(1).min(most);
        let before = self.times.fetch_update(Relaxed, Relaxed, |times| Some(next(times))).unwrap_or(0);
        let time = base.saturating_mul(next(before)).min(max);
        let time = time.saturating_add(time / 1000 * jitter.min(100));
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.until_ms.store(now_ms.saturating_add(ms), Relaxed);
        time
    }

    /// Until when it is put aside, in ms since the process started; `u64::MAX`: it is not.
    pub(in crate::service) fn until_ms(&self) -> u64 {
        self.until_ms.load(Relaxed)
    }

    /// It comes back. One failure less than `consecutive` in a row is held against it, so that the first one puts it aside
    /// again; what it did before is forgotten.
    pub(in crate::service) fn end(&self, consecutive: u32) {
        self.until_ms.store(u64::MAX, Relaxed);
        self.failed.store(consecutive.saturating_sub(1), Relaxed);
        self.good.store(0, Relaxed);
        if let Some(window) = self.window.get() {
            window.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECONDS: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(35));

    #[test]
    fn each_time_is_longer_and_twenty_good_answers_take_one_step_back() {
        let ejection = Ejection::default();
        let again = |times: usize| (0..times).map(|_| ejection.begin(SECONDS, 0, 7).as_secs()).collect::<Vec<_>>();
        assert_eq!(again(6), [10, 20, 30, 35, 35, 35]);
        assert_eq!(ejection.until_ms(), 35_007);
        ejection.end(5);
        assert_eq!(ejection.until_ms(), u64::MAX);
        assert_eq!(ejection.bad(), 5, "the first failure is one too many");
        // 19 good ones and a failure, again and again, heal nothing.
        for _ in 0..100 {
            (0..19).for_each(|_| ejection.good());
            assert_eq!(ejection.bad(), 1);
        }
        assert_eq!(again(1), [35]);
        (0..40).for_each(|_| ejection.good());
        assert_eq!(again(1), [30]);
        (0..1000).for_each(|_| ejection.good());
        assert_eq!(again(1), [10]);
    }

    proptest! {
        #[test]
        fn time_does_not_fall_while_it_fails(
            base_ms in 1u64..100_000, more in 1u32..100, goods in proptest::collection::vec(0usize..20, 1..100),
            jitter in 0u32..200,
        ) {
            let limits = (Duration::from_millis(base_ms), Duration::from_millis(base_ms) * more);
            let ejection = Ejection::default();
            let mut last = Duration::ZERO;
            for good in goods {
                (0..good).for_each(|_| ejection.good());
                let _ = ejection.bad();
                let time = ejection.begin(limits, 0, 0);
                prop_assert!(time >= last && time >= limits.0 && time <= limits.1);
                last = time;
            }
            let time = ejection.begin(limits, jitter, 0);
            prop_assert!(time >= last && time <= limits.1 * 11 / 10);
        }
    }
}
