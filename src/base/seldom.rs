//! Lines that would come again and again: one in a while for each place, with the number of those left out.

use super::time::process_ms;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// One place that tells something, as a `static` of it or a field of what it tells about.
#[derive(Debug)]
pub struct Seldom {
    /// At most one line in this many milliseconds.
    period: u64,
    /// When the next one may come, in milliseconds of [`process_ms`].
    next: AtomicU64,
    left_out: AtomicU64,
}

impl Seldom {
    /// At most one line in this time.
    pub const fn each(period: Duration) -> Self {
        Seldom { period: period.as_millis() as u64, next: AtomicU64::new(0), left_out: AtomicU64::new(0) }
    }

    /// Some: now is the time to tell; how many were left out since the last line. None: this one is left out, too.
    pub fn may(&self) -> Option<u64> {
        self.may_at(process_ms())
    }

    fn may_at(&self, now: u64) -> Option<u64> {
        let next = self.next.load(Relaxed);
        let mine = now >= next && self.next.compare_exchange(next, now + self.period, Relaxed, Relaxed).is_ok();
        if mine {
            return Some(self.left_out.swap(0, Relaxed));
        }
        self.left_out.fetch_add(1, Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_period_says_how_many_it_stands_for() {
        let place = Seldom::each(Duration::from_secs(1));
        let told: Vec<Option<u64>> = [0, 1, 500, 999, 1000, 1001, 5000].map(|now| place.may_at(now)).into();
        assert_eq!(told, [Some(0), None, None, None, Some(3), None, Some(1)]);
    }

    proptest::proptest! {
        #[test]
        fn each_is_told_or_counted(steps in proptest::collection::vec(0_u64..400, 1..200)) {
            let place = Seldom::each(Duration::from_secs(1));
            let (mut now, mut told, mut counted, mut last) = (0, 0, 0, None::<u64>);
            for step in &steps {
                now += step;
                if let Some(left_out) = place.may_at(now) {
                    proptest::prop_assert!(last.is_none_or(|last| now >= last + 1000));
                    (told, counted, last) = (told + 1, counted + left_out, Some(now));
                }
            }
            let open = place.left_out.load(Relaxed);
            proptest::prop_assert_eq!(told + counted + open, steps.len() as u64);
        }
    }
}
