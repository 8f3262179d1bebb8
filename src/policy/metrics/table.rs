//! The series of one policy by their names: found, or found to be one too many.

use super::{BOUNDS, OWN, Series, SeriesValue};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Series of one policy with labels of their own; past that, label values become `other`.
pub(super) const MAX_SERIES: usize = 1000;
/// Series of one policy in all, with those of `other`; past that, new ones are dropped and counted.
pub(super) const MAX_ALL: usize = MAX_SERIES + 200;
/// The value of each label past [`MAX_SERIES`].
pub(super) const OTHER: &str = "other";
/// What the samples of a histogram end with.
const SUFFIXES: [&str; 4] = ["", "_bucket", "_sum", "_count"];
/// Names that are refused are told once each, up to this many.
const REFUSED: usize = 16;

/// All series of one policy. Only what they have counted changes; cheap to clone, as far as 1,200 series can be.
#[derive(Debug, Clone, Default)]
pub(super) struct SeriesTable {
    /// By name and labels, as [`key`] writes them.
    series: HashMap<Arc<str>, Arc<Counted>>,
    /// A name is a counter or a histogram, never both.
    kinds: HashMap<Arc<str>, Kind>,
    /// Names that are the gateway's, and were told of.
    refused: HashSet<Arc<str>>,
}

#[derive(Debug)]
struct Counted {
    name: Arc<str>,
    labels: Vec<(String, String)>,
    value: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Histogram,
}

/// What a series has counted so far.
#[derive(Debug)]
pub(super) enum Value {
    Counter(AtomicU64),
    Histogram {
        counts: [AtomicU64; BOUNDS.len() + 1],
        /// The bits of an `f64`.
        sum: AtomicU64,
    },
}

impl Value {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::Counter => Value::Counter(AtomicU64::new(0)),
            Kind::Histogram => Value::Histogram { counts: Default::default(), sum: AtomicU64::new(0.0_f64.to_bits()) },
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Value::Counter(_) => Kind::Counter,
            Value::Histogram { .. } => Kind::Histogram,
        }
    }

    /// Adds to a counter, up to its end.
    pub(super) fn add(&self, delta: u64) {
        if let Value::Counter(count) = self {
            let add = |count: u64| Some(count.saturating_add(delta));
            let _ = count.fetch_update(Relaxed, Relaxed, add);
        }
    }

    /// Puts a value into a histogram.
    pub(super) fn observe(&self, value: f64) {
        if let Value::Histogram { counts, sum } = self {
            counts[BOUNDS.partition_point(|bound| *bound < value)].fetch_add(1, Relaxed);
            let add = |sum: u64| Some((f64::from_bits(sum) + value).to_bits());
            let _ = sum.fetch_update(Relaxed, Relaxed, add);
        }
    }

    fn read(&self) -> SeriesValue {
        match self {
            Value::Counter(count) => SeriesValue::Counter(count.load(Relaxed)),
            Value::Histogram { counts, sum } => SeriesValue::Histogram {
                counts: std::array::from_fn(|index| counts[index].load(Relaxed)),
                sum: f64::from_bits(sum.load(Relaxed)),
            },
        }
    }
}

/// Where a number goes.
pub(super) enum Looked<'a> {
    Series(&'a Value),
    /// The name is taken by a metric of the other kind.
    WrongKind,
    /// Nowhere: the name would look like one of the gateway's own, as was told.
    Own,
    /// Nowhere: there are too many series.
    Full,
}

/// What the next table has to have.
pub(super) enum Missing {
    /// A new series.
    Series,
    /// A name that would look like one of the gateway's own, to be told of once.
    OwnName,
}

impl SeriesTable {
    /// Looks where a number goes. `labels` are sorted; once there are too many series, their values become `other`.
    pub(super) fn find(&self, name: &str, labels: &mut [(String, String)], kind: Kind) -> Result<Looked<'_>, Missing> {
        let series = |labels: &[(String, String)]| self.series.get(key(name, labels).as_ref());
        let of_kind = |value| if Value::kind(value) == kind { Looked::Series(value) } else { Looked::WrongKind };
        if let Some(series) = series(labels) {
            return Ok(of_kind(&series.value));
        }
        match self.kinds.get(name) {
            Some(known) if *known != kind => return Ok(Looked::WrongKind),
            None if is_own(name, kind) => {
                let told = self.refused.contains(name) || self.refused.len() >= REFUSED;
                return if told { Ok(Looked::Own) } else { Err(Missing::OwnName) };
            }
            _ => {}
        }
        if self.series.len() < MAX_SERIES {
            return Err(Missing::Series);
        }
        for (_, value) in labels.iter_mut() {
            OTHER.clone_into(value);
        }
        match series(labels) {
            Some(series) => Ok(of_kind(&series.value)),
            None if self.series.len() >= MAX_ALL => Ok(Looked::Full),
            None => Err(Missing::Series),
        }
    }

    /// Adds a series that is missing, with nothing counted yet.
    pub(super) fn add(&mut self, name: &str, labels: &[(String, String)], kind: Kind) -> &Value {
        let known = self.kinds.get_key_value(name).map(|(name, _)| Arc::clone(name));
        let shared = known.unwrap_or_else(|| name.into());
        self.kinds.entry(Arc::clone(&shared)).or_insert(kind);
        let new = || Arc::new(Counted { name: shared, labels: labels.to_vec(), value: Value::new(kind) });
        &self.series.entry(key(name, labels).into()).or_insert_with(new).value
    }

    /// Remembers that a name was told of.
    pub(super) fn refuse(&mut self, name: &str) {
        self.refused.insert(name.into());
    }

    /// All of them, in no order.
    pub(super) fn series(&self) -> Vec<Series> {
        let read = |series: &Arc<Counted>| Series {
            name: series.name.to_string(),
            labels: series.labels.clone(),
            value: series.value.read(),
        };
        self.series.values().map(read).collect()
    }
}

/// Name and labels in one text; without labels, that is the name.
fn key<'a>(name: &'a str, labels: &[(String, String)]) -> Cow<'a, str> {
    if labels.is_empty() {
        return name.into();
    }
    let length = labels.iter().map(|(label, value)| label.len() + value.len() + 6).sum::<usize>();
    let mut key = String::with_capacity(name.len() + length);
    key.push_str(name);
    for (label, value) in labels {
        // Lengths, so that no value can look like the next label.
        // Writing into a string does not fail.
        let _ = write!(key, "\n{}:{label}={value}", value.len());
    }
    key.into()
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
