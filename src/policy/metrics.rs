//! The numbers that one policy counts for itself, behind the WIT interface `metrics`. They belong to the policy's name,
//! as its state does.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Series of one policy with labels of their own; past that, label values become `other`.
const MAX_SERIES: usize = 1000;
/// Series of one policy in all, with those of `other`; past that, new ones are dropped and counted.
const MAX_ALL: usize = MAX_SERIES + 200;
const OTHER: &str = "other";

/// Upper bounds of histogram buckets; made for seconds.
pub const BOUNDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// What the gateway itself shows of policies, each as `wayside_policy_` and this. Such names are not a policy's to use.
pub const OWN: [&str; 7] = [
    "calls_total",
    "faults_total",
    "duration_seconds",
    "suspended",
    "suspensions_total",
    "instances_ready",
    "metrics_dropped_total",
];
/// What the samples of a histogram end with.
const SUFFIXES: [&str; 4] = ["", "_bucket", "_sum", "_count"];
/// Names that are refused are told once each, up to this many.
const REFUSED: usize = 16;

/// The registry of one policy name.
#[derive(Debug, Default)]
pub struct GuestMetrics(Mutex<Registry>);

#[derive(Debug, Default)]
struct Registry {
    series: HashMap<Box<str>, Series>,
    /// A name is a counter or a histogram, never both.
    kinds: HashMap<Box<str>, Kind>,
    /// Names that are the gateway's, and were told of.
    refused: HashSet<Box<str>>,
    dropped: u64,
    /// Where keys are put together, so that a call allocates nothing.
    key: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Histogram,
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
        self.update(name, labels, Kind::Counter, |value| {
            if let SeriesValue::Counter(count) = value {
                *count = count.saturating_add(delta);
            }
        })
    }

    /// Puts a finite value into a histogram. `labels` are sorted in place.
    ///
    /// # Errors
    /// The name is a counter's, or the gateway's.
    pub fn observe(&self, name: &str, value: f64, labels: &mut [(String, String)]) -> Result<(), Refused> {
        self.update(name, labels, Kind::Histogram, |series| {
            if let SeriesValue::Histogram { counts, sum } = series {
                counts[BOUNDS.partition_point(|bound| *bound < value)] += 1;
                *sum += value;
            }
        })
    }

    /// All series, in no order.
    pub fn series(&self) -> Vec<Series> {
        self.lock().series.values().cloned().collect()
    }

    /// Calls that are not shown: their series was one too many even for `other`, or their name is the gateway's.
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    fn update(
        &self,
        name: &str,
        labels: &mut [(String, String)],
        kind: Kind,
        change: impl FnOnce(&mut SeriesValue),
    ) -> Result<(), Refused> {
        labels.sort();
        let mut guard = self.lock();
        let registry = &mut *guard;
        if registry.kinds.get(name).is_some_and(|known| *known != kind) {
            return Err(Refused::WrongKind);
        }
        registry.write_key(name, labels);
        if let Some(series) = registry.series.get_mut(registry.key.as_str()) {
            change(&mut series.value);
            return Ok(());
        }
        if !registry.kinds.contains_key(name) && is_own(name, kind) {
            registry.dropped += 1;
            let first = registry.refused.len() < REFUSED && registry.refused.insert(name.into());
            return Err(Refused::Own { first });
        }
        if registry.series.len() >= MAX_SERIES {
            for (_, value) in labels.iter_mut() {
                OTHER.clone_into(value);
            }
            registry.write_key(name, labels);
            if registry.series.len() >= MAX_ALL && !registry.series.contains_key(registry.key.as_str()) {
                registry.dropped += 1;
                return Ok(());
            }
        }
        registry.kinds.entry(name.into()).or_insert(kind);
        let series = registry.series.entry(registry.key.as_str().into()).or_insert_with(|| Series {
            name: name.to_owned(),
            labels: labels.to_vec(),
            value: match kind {
                Kind::Counter => SeriesValue::Counter(0),
                Kind::Histogram => SeriesValue::Histogram { counts: [0; BOUNDS.len() + 1], sum: 0.0 },
            },
        });
        change(&mut series.value);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        // Nothing that panics runs under this lock; should it ever, what it holds is still numbers.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Would a scrape take it for one of the gateway's own?
fn is_own(name: &str, kind: Kind) -> bool {
    match kind {
        Kind::Counter => {
            let base = name.strip_suffix("_total").unwrap_or(name);
            OWN.iter().any(|own| own.strip_suffix("_total") == Some(base))
        }
        Kind::Histogram => {
            let differ = |a: &str, b: &str| a.strip_prefix(b).is_some_and(|rest| SUFFIXES.contains(&rest));
            OWN.iter().any(|own| differ(name, own) || differ(own, name))
        }
    }
}

impl Registry {
    fn write_key(&mut self, name: &str, labels: &[(String, String)]) {
        self.key.clear();
        self.key.push_str(name);
        for (label, value) in labels {
            // Lengths, so that no value can look like the next label.
            // Writing into a string does not fail.
            let _ = write!(self.key, "\n{}:{label}={value}", value.len());
        }
    }
}

#[cfg(test)]
mod tests {
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
