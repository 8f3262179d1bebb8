//! What is counted: numbers that one thread writes and others read.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A sum that only its worker adds to.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    /// For the one writer: a load and a store cost less than an atomic addition.
    pub(super) fn add(&self, more: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(more), Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Times by how long they were.
#[derive(Debug)]
pub(super) struct Histogram {
    bounds: &'static [u64; 15],
    counts: [Count; 16],
    sum: Count,
}

/// A histogram's numbers at one moment, of one worker or of several.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Total {
    /// At most as long as each bound and longer than the one before; the last: longer than all.
    pub(super) counts: [u64; 16],
    /// In ns.
    pub(super) sum: u64,
}

impl Histogram {
    /// With upper bounds of buckets in ns.
    pub(super) fn new(bounds: &'static [u64; 15]) -> Self {
        Histogram { bounds, counts: Default::default(), sum: Count::default() }
    }

    pub(super) fn observe(&self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.counts[self.bounds.partition_point(|bound| *bound < ns)].add(1);
        self.sum.add(ns);
    }

    pub(super) fn add_to(&self, total: &mut Total) {
        for (sum, count) in total.counts.iter_mut().zip(&self.counts) {
            *sum += count.get();
        }
        total.sum = total.sum.wrapping_add(self.sum.get());
    }
}

impl Total {
    /// Of all times.
    pub(super) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_goes_into_the_bucket_that_it_just_fits() {
        static BOUNDS: [u64; 15] = [10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120, 130, 140, 150];
        let histogram = Histogram::new(&BOUNDS);
        for ns in [0, 10, 11, 150, 151] {
            histogram.observe(Duration::from_nanos(ns));
        }
        let mut total = Total::default();
        histogram.add_to(&mut total);
        histogram.add_to(&mut total);
        assert_eq!(total.counts, [4, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2]);
        assert_eq!((total.sum, total.count()), (2 * 322, 10));
    }
}
