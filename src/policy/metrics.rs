//! The numbers that one policy counts for itself, behind the WIT interface `metrics`. They belong to the policy's name,
//! as its state does. Counting takes no lock, except where a series is new.

mod table;

use arc_swap::ArcSwap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use table::{Kind, Looked, Missing, SeriesTable, Value};

/// Upper bounds of histogram buckets; made for seconds.
pub const BOUNDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// What the gateway itself shows of policies, each as `wayside_policy_` and this. Such names are not a policy's to use.
pub const OWN: [&str; 9] = [
    "calls_total",
    "faults_total",
    "duration_seconds",
    "suspended",
    "suspensions_total",
    "instances_ready",
    "canary_share",
    "rollbacks_total",
    "metrics_dropped_total",
];

/// The numbers of one policy name. Workers look a series up in a table that never changes, and add to it as it is; whoever
/// has a new series puts a larger table in the place of the first.
#[derive(Debug, Default)]
pub struct GuestMetrics {
    table: ArcSwap<SeriesTable>,
    /// Held by whoever makes the next table.
    growing: Mutex<()>,
    dropped: AtomicU64,
}

/// One series as the exporter shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// As the policy called it; shown as `wayside_policy_NAME`, a counter's with `_total` at its end.
    pub name: String,
    /// Sorted by name; without the label `policy`, which the exporter adds.
    pub labels: Vec<(String, String)>,
    /// What was counted.
    pub value: SeriesValue,
}

/// The value of a series.
#[derive(Debug, Clone, PartialEq)]
pub enum SeriesValue {
    /// A sum that only grows.
    Counter(u64),
    /// Values put into buckets.
    Histogram {
        /// Values at most as large as each of [`BOUNDS`] and larger than the one before; the last: larger than all.
        counts: [u64; BOUNDS.len() + 1],
        /// Of all values.
        sum: f64,
    },
}

/// Why a number is not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The name is taken by a metric of the other kind.
    WrongKind,
    /// The name would look like one of the gateway's own. `first`: it was not tried before.
    Own {
        /// Worth telling.
        first: bool,
    },
}

impl GuestMetrics {
    /// Adds to a counter. `labels` are sorted in place.
    ///
    /// # Errors
    /// The name is a histogram's, or the gateway's.
    pub fn count(&self, name: &str, delta: u64, labels: &mut [(String, String)]) -> Result<(), Refused> {
        self.update(name, labels, Kind::Counter, |value| value.add(delta))
    }

    /// Puts a finite value into a histogram. `labels` are sorted in place.
    ///
    /// # Errors
    /// The name is a counter's, or the gateway's.
    pub fn observe(&self, name: &str, value: f64, labels: &mut [(String, String)]) -> Result<(), Refused> {
        self.update(name, labels, Kind::Histogram, |series| series.observe(value))
    }

    /// All series, in no order.
    pub fn series(&self) -> Vec<Series> {
        self.table.load().series()
    }

    /// Calls that are not shown: their series was one too many even for `other`, or their name is the gateway's.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    fn update(
        &self,
        name: &str,
        labels: &mut [(String, String)],
        kind: Kind,
        change: impl Fn(&Value),
    ) -> Result<(), Refused> {
        labels.sort();
        match self.table.load().find(name, labels, kind) {
            Ok(found) => self.settle(found, change),
            Err(_) => self.grow(name, labels, kind, change),
        }
    }

    fn settle(&self, found: Looked<'_>, change: impl Fn(&Value)) -> Result<(), Refused> {
        match found {
            Looked::Series(value) => change(value),
            Looked::WrongKind => return Err(Refused::WrongKind),
            Looked::Own => {
                self.dropped.fetch_add(1, Relaxed);
                return Err(Refused::Own { first: false });
            }
            Looked::Full => drop(self.dropped.fetch_add(1, Relaxed)),
        }
        Ok(())
    }

    /// Puts a table with one more in the place of the one that is.
    #[cold]
    fn grow(
        &self,
        name: &str,
        labels: &mut [(String, String)],
        kind: Kind,
        change: impl Fn(&Value),
    ) -> Result<(), Refused> {
        // Nothing that panics runs under this lock; should it ever, the table is whole.
        let _growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        let table = self.table.load_full();
        // Another worker may have been quicker.
        let missing = match table.find(name, labels, kind) {
            Ok(found) => return self.settle(found, change),
            Err(missing) => missing,
        };
        let mut next = SeriesTable::clone(&table);
        let done = match missing {
            Missing::Series => {
                change(next.add(name, labels, kind));
                Ok(())
            }
            Missing::OwnName => {
                next.refuse(name);
                self.dropped.fetch_add(1, Relaxed);
                Err(Refused::Own { first: true })
            }
        };
        self.table.store(Arc::new(next));
        done
    }
}

#[cfg(test)]
mod tests {
    use super::table::{MAX_ALL, MAX_SERIES, OTHER};
    use super::*;

    fn label(value: &str) -> Vec<(String, String)> {
        vec![("user".to_owned(), value.to_owned())]
    }

    #[test]
    fn counters_add_up_by_name_and_labels_in_any_order() {
        let metrics = GuestMetrics::default();
        let (a, b) = (("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned()));
        metrics.count("hits", 1, &mut [a.clone(), b.clone()]).unwrap();
        metrics.count("hits", 2, &mut [b.clone(), a.clone()]).unwrap();
        let series = metrics.series();
        assert_eq!(series, [Series { name: "hits".into(), labels: vec![a, b], value: SeriesValue::Counter(3) }]);
    }

    #[test]
    fn histograms_fill_the_right_bucket() {
        let metrics = GuestMetrics::default();
        for value in [0.005, 0.0051, 11.0] {
            metrics.observe("took", value, &mut []).unwrap();
        }
        let SeriesValue::Histogram { counts, sum } = metrics.series()[0].value.clone() else { panic!() };
        assert_eq!(counts, [1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert!((sum - 11.0101).abs() < 1e-9);
        assert_eq!(metrics.count("took", 1, &mut []), Err(Refused::WrongKind));
    }

    #[test]
    fn the_gateways_own_names_are_refused_and_told_once() {
        let metrics = GuestMetrics::default();
        for name in ["calls", "calls_total", "faults", "suspensions", "metrics_dropped"] {
            assert_eq!(metrics.count(name, 1, &mut []), Err(Refused::Own { first: true }), "{name}");
            assert_eq!(metrics.count(name, 1, &mut []), Err(Refused::Own { first: false }), "{name}");
        }
        for name in ["duration_seconds", "suspended", "instances_ready", "duration_seconds_bucket", "calls_total"] {
            assert!(matches!(metrics.observe(name, 1.0, &mut []), Err(Refused::Own { .. })), "{name}");
        }
        assert_eq!((metrics.series().len(), metrics.dropped()), (0, 15));
        for name in ["hits", "duration", "suspended", "call"] {
            metrics.count(name, 1, &mut []).unwrap();
        }
    }

    #[test]
    fn only_what_is_new_waits_for_others() {
        let metrics = GuestMetrics::default();
        for i in 0..MAX_SERIES {
            metrics.count("hits", 1, &mut label(&i.to_string())).unwrap();
        }
        metrics.count("hits", 1, &mut label("one more")).unwrap();
        assert_eq!(metrics.count("calls", 1, &mut []), Err(Refused::Own { first: true }));
        // A lock that somebody else holds would be waited for without end.
        let _held = metrics.growing.lock().unwrap();
        metrics.count("hits", 1, &mut label("7")).unwrap();
        metrics.count("hits", 1, &mut label("another one")).unwrap();
        assert_eq!(metrics.count("calls", 1, &mut []), Err(Refused::Own { first: false }));
        assert_eq!(metrics.observe("hits", 1.0, &mut label("7")), Err(Refused::WrongKind));
        assert_eq!(metrics.observe("hits", 1.0, &mut label("yet another one")), Err(Refused::WrongKind));
    }

    #[test]
    fn nothing_is_lost_between_workers() {
        let metrics = GuestMetrics::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for i in 0..2000 {
                        metrics.count("hits", 1, &mut label(&(i % 1500).to_string())).unwrap();
                        metrics.observe("took", 0.5, &mut []).unwrap();
                    }
                });
            }
        });
        let (mut hits, mut took) = (0, Vec::new());
        for series in metrics.series() {
            match series.value {
                SeriesValue::Counter(count) => hits += count,
                SeriesValue::Histogram { counts, sum } => took.push((counts.iter().sum::<u64>(), sum)),
            }
        }
        assert_eq!((hits, took), (8000, vec![(8000, 4000.0)]));
    }

    #[test]
    fn counters_stop_at_their_end() {
        let metrics = GuestMetrics::default();
        metrics.count("hits", u64::MAX - 1, &mut []).unwrap();
        metrics.count("hits", 2, &mut []).unwrap();
        assert_eq!(metrics.series()[0].value, SeriesValue::Counter(u64::MAX));
    }

    #[test]
    fn past_a_thousand_series_values_become_other() {
        let metrics = GuestMetrics::default();
        for i in 0..5000 {
            metrics.count("hits", 1, &mut label(&i.to_string())).unwrap();
        }
        let series = metrics.series();
        assert_eq!(series.len(), MAX_SERIES + 1);
        let other = series.iter().find(|s| s.labels[0].1 == OTHER).unwrap();
        assert_eq!(other.value, SeriesValue::Counter(4000));
        // Names are no way around it.
        for i in 0..5000 {
            metrics.count(&format!("n{i}"), 1, &mut []).unwrap();
        }
        assert_eq!(metrics.series().len(), MAX_ALL);
        assert_eq!(metrics.dropped(), 5000 - 199);
    }
}
