//! How an endpoint has done lately, as the strategies weigh it: failures that count as in flight for a while, a latency
//! that becomes the service's mean where nobody measures it, and for how long it has been silent. Each is one word of
//! memory, written by one exchange, so that no reader ever sees half of it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// After so long, a failure counts 1/e of what it did.
const FAILURES_FADE_MS: f32 = 10_000.0;
/// After so long, 1/e of a measured latency's distance from the service's mean is left.
const LATENCY_FADES_MS: f32 = 5_000.0;
/// The least part of a moving average that a sample is.
const SAMPLE: f32 = 0.1;
/// The same of a service's mean, which more answers go into.
const SHARED_SAMPLE: f32 = 0.02;
/// A service's mean takes in one answer in so long, so that workers seldom write to the same memory.
const SHARED_EACH_MS: u64 = 10;
/// Past this it is ill.
const ILL: f32 = 0.5;
/// As is one that owes an answer for so many times the service's mean, but not for less than so many ms.
const SILENT: (f32, f32) = (10.0, 10.0);
/// An endpoint that was idle for so long is asked by whoever draws it, by one at a time.
const FORGOTTEN_MS: u64 = 1_000;

/// What is remembered of an endpoint's answers. Times are in ms since the process started.
#[derive(Debug, Default)]
pub struct Load {
    /// How many failures count now.
    failures: Fading,
    /// In µs, until the response's head. 0: not measured yet.
    latency: Fading,
    /// When it last answered or failed, or was first asked after it was idle.
    since_ms: AtomicU64,
}

/// The mean latency of a service's good answers: what is assumed of an endpoint that nobody has measured lately.
#[derive(Debug, Default)]
pub struct Pace(Fading);

/// A number and when it was written.
#[derive(Debug, Default)]
struct Fading(AtomicU64);

impl Load {
    /// It has answered, and not with a failure, after `took`.
    pub fn answered(&self, took: Duration, pace: &Pace, now_ms: u64) {
        let us = micros(took);
        pace.takes_in(us, now_ms);
        self.measured(us, pace.mean_us(), now_ms);
    }

    /// It has failed after `took`: no connection, a reset, no answer in time, or an answer that says so. Of the latency that
    /// tells something only where it took longer than usual: failing fast must not make it look fast.
    pub fn failed(&self, took: Duration, pace: &Pace, now_ms: u64) {
        self.failures.update(|count, at| (faded(count, now_ms.saturating_sub(at), FAILURES_FADE_MS) + 1.0, now_ms));
        let (us, mean_us) = (micros(took), pace.mean_us());
        match us > self.expected_us(mean_us, now_ms) {
            true => self.measured(us, mean_us, now_ms),
            false => self.since_ms.store(now_ms, Relaxed),
        }
    }

    /// It is asked, with nothing else in flight.
    pub fn begins(&self, now_ms: u64) {
        self.since_ms.store(now_ms, Relaxed);
    }

    fn measured(&self, us: f32, mean_us: f32, now_ms: u64) {
        self.since_ms.store(now_ms, Relaxed);
        self.latency.update(|estimate, at| {
            if estimate == 0.0 {
                return (us, now_ms);
            }
            let elapsed = now_ms.saturating_sub(at);
            let sample = SAMPLE.max(1.0 - faded(1.0, elapsed, LATENCY_FADES_MS));
            let now = towards(mean_us, estimate, elapsed);
            (now + sample * (us - now), now_ms)
        });
    }

    /// Failures that count as in flight.
    pub fn failures(&self, now_ms: u64) -> f32 {
        match self.failures.get() {
            (0.0, _) => 0.0,
            (count, at) => faded(count, now_ms.saturating_sub(at), FAILURES_FADE_MS),
        }
    }

    /// The latency to expect, in µs: what was measured, or the mean, the more so the longer ago that was.
    pub fn expected_us(&self, mean_us: f32, now_ms: u64) -> f32 {
        match self.latency.get() {
            (0.0, _) => mean_us,
            (estimate, at) => towards(mean_us, estimate, now_ms.saturating_sub(at)),
        }
    }

    /// The same for one with requests in flight: it has been silent for at least as long as the next one may wait.
    pub fn expected_busy_us(&self, mean_us: f32, now_ms: u64) -> f32 {
        self.expected_us(mean_us, now_ms).max(self.silent_ms(now_ms) * 1_000.0)
    }

    /// It fails, or owes an answer for very long.
    pub fn ill(&self, in_flight: u32, mean_us: f32, now_ms: u64) -> bool {
        let (times, least_ms) = SILENT;
        let silent =
            || in_flight > 0 && mean_us > 0.0 && self.silent_ms(now_ms) > least_ms.max(times * mean_us / 1_000.0);
        self.failures(now_ms) > ILL || silent()
    }

    /// With nothing in flight: nobody has asked it for a while, and whoever is told so must. One at a time is.
    pub fn claim(&self, now_ms: u64) -> bool {
        let since = self.since_ms.load(Relaxed);
        let forgotten = now_ms.saturating_sub(since) >= FORGOTTEN_MS;
        forgotten && self.since_ms.compare_exchange(since, now_ms, Relaxed, Relaxed).is_ok()
    }

    fn silent_ms(&self, now_ms: u64) -> f32 {
        now_ms.saturating_sub(self.since_ms.load(Relaxed)) as f32
    }

    /// The moving average of the time to the response's head, in µs, as it was measured last. 0: not yet.
    pub fn latency_us(&self) -> u32 {
        // Whatever does not fit is the largest that does.
        self.latency.get().0 as u32
    }
}

impl Pace {
    /// In µs. 0: no answer yet.
    pub fn mean_us(&self) -> f32 {
        self.0.get().0
    }

    fn takes_in(&self, us: f32, now_ms: u64) {
        let (mean, at) = self.0.get();
        let elapsed = now_ms.saturating_sub(at);
        if mean == 0.0 {
            self.0.update(|_, _| (us, now_ms));
        } else if elapsed >= SHARED_EACH_MS {
            let sample = SHARED_SAMPLE.max(1.0 - faded(1.0, elapsed, LATENCY_FADES_MS));
            self.0.update(|mean, _| (mean + sample * (us - mean), now_ms));
        }
    }
}

impl Fading {
    /// Bits of the time, below those of the number: 34 years. The number keeps 15 of its own bits behind the first one.
    const TIME: u32 = 40;

    fn get(&self) -> (f32, u64) {
        Self::unpack(self.0.load(Relaxed))
    }

    fn unpack(word: u64) -> (f32, u64) {
        (f32::from_bits((word >> Self::TIME << 8) as u32), word & ((1 << Self::TIME) - 1))
    }

    fn update(&self, next: impl Fn(f32, u64) -> (f32, u64)) {
        let pack = |(number, at): (f32, u64)| {
            let number = u64::from(number.to_bits() >> 8);
            number << Self::TIME | at & ((1 << Self::TIME) - 1)
        };
        // It always has something to write, so this cannot fail.
        let _ = self.0.fetch_update(Relaxed, Relaxed, |word| {
            let (number, at) = Self::unpack(word);
            Some(pack(next(number, at)))
        });
    }
}

fn micros(took: Duration) -> f32 {
    (took.as_secs_f32() * 1e6).max(1.0)
}

fn towards(mean: f32, estimate: f32, elapsed_ms: u64) -> f32 {
    mean + faded(estimate - mean, elapsed_ms, LATENCY_FADES_MS)
}

fn faded(number: f32, elapsed_ms: u64, fades_ms: f32) -> f32 {
    // An exponential costs more than all the rest of a pick.
    if elapsed_ms == 0 { number } else { number * (-(elapsed_ms as f32) / fades_ms).exp() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_failure_counts_as_one_in_flight_and_fades() {
        let (load, pace) = (Load::default(), Pace::default());
        assert_eq!(load.failures(5), 0.0);
        load.failed(MS, &pace, 1_000);
        load.failed(MS, &pace, 1_000);
        assert!((load.failures(1_000) - 2.0).abs() < 0.001);
        assert!((load.failures(11_000) - 2.0 / std::f32::consts::E).abs() < 0.001);
        assert!(load.ill(0, 0.0, 2_000) && !load.ill(0, 0.0, 60_000));
    }

    #[test]
    fn failing_fast_does_not_look_fast_and_failing_late_looks_slow() {
        let (load, pace) = (Load::default(), Pace::default());
        load.answered(10 * MS, &pace, 1_000);
        load.failed(MS / 100, &pace, 1_000);
        assert_eq!(load.latency_us(), 10_000);
        load.failed(2_000 * MS, &pace, 3_000);
        assert!(load.latency_us() > 200_000, "{}", load.latency_us());
    }

    #[test]
    fn whoever_is_not_asked_becomes_average_and_never_best() {
        let (slow, fast, pace) = (Load::default(), Load::default(), Pace::default());
        fast.answered(10 * MS, &pace, 0);
        slow.answered(300 * MS, &pace, 0);
        let mean = pace.mean_us();
        assert!(fast.expected_us(mean, 0) < 1.01 * mean && slow.expected_us(mean, 0) > 20.0 * mean);
        let later = slow.expected_us(mean, 30_000);
        assert!(later >= mean && later < 1.1 * mean, "{later} of {mean}");
    }

    #[test]
    fn silence_counts_as_long_as_it_lasts() {
        let (load, pace) = (Load::default(), Pace::default());
        load.answered(10 * MS, &pace, 1_000);
        load.begins(5_000);
        assert!(load.expected_busy_us(pace.mean_us(), 5_001) < 10_100.0);
        assert!(load.expected_busy_us(pace.mean_us(), 6_000) >= 999_999.0);
        assert!(!load.ill(1, pace.mean_us(), 5_090) && load.ill(1, pace.mean_us(), 5_200) && !load.ill(0, 1.0, 5_200));
    }

    #[test]
    fn the_idle_are_claimed_by_one_at_a_time() {
        let load = Load::default();
        load.begins(1_000);
        assert!(!load.claim(1_999));
        assert!(load.claim(2_000) && !load.claim(2_000) && !load.claim(2_500) && load.claim(3_000));
    }

    proptest! {
        #[test]
        fn a_number_and_its_time_are_kept_together(number in 0f32..1e9, at in 0u64..1 << 40) {
            let fading = Fading::default();
            fading.update(|_, _| (number, at));
            let (kept, then) = fading.get();
            prop_assert_eq!(then, at);
            prop_assert!((kept - number).abs() <= number / 16_384.0);
        }

        #[test]
        fn an_average_stays_between_its_samples(samples in prop::collection::vec((1u64..10_000, 0u64..3_000), 1..50)) {
            let (load, pace, mut now) = (Load::default(), Pace::default(), 0);
            for (ms, later) in &samples {
                now += later;
                load.answered(MS * *ms as u32, &pace, now);
            }
            let (least, most) = (samples.iter().map(|s| s.0).min().unwrap(), samples.iter().map(|s| s.0).max().unwrap());
            let within = |us: f32| us >= 999.0 * least as f32 && us <= 1_001.0 * most as f32;
            prop_assert!(within(load.latency_us() as f32) && within(pace.mean_us()));
            prop_assert!(within(load.expected_us(pace.mean_us(), now + 1_234)));
        }
    }
}
