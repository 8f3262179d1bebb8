//! Prometheus text, format 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>). The libraries for it write
//! OpenMetrics, in which a counter's type stands under another name, so that readers of this format lose it.

use super::numbers::Total;
use std::fmt::{Display, Write as _};

/// A page that is being written. Writing into a string does not fail, so results are let go.
#[derive(Debug, Default)]
pub(super) struct Text(String);

/// Labels of a sample, in the order of the page.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

impl Text {
    /// Begins a family: all its samples follow. `kind` is `counter`, `gauge` or `histogram`.
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    pub(super) fn sample(&mut self, name: &str, labels: Labels<'_>, value: impl Display) {
        self.line(name, labels, None, value);
    }

    /// A family of one sample.
    pub(super) fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    /// The samples of a histogram of times, in seconds.
    pub(super) fn times(&mut self, name: &str, labels: Labels<'_>, bounds_ns: &[u64; 15], total: &Total) {
        let bounds = bounds_ns.map(seconds);
        self.histogram(name, labels, &bounds, &total.counts, seconds(total.sum));
    }

    /// The samples of a histogram; `counts` has one more than `bounds`.
    pub(super) fn histogram(&mut self, name: &str, labels: Labels<'_>, bounds: &[f64], counts: &[u64], sum: f64) {
        let bucket = format!("{name}_bucket");
        let mut so_far = 0;
        for (count, bound) in counts.iter().zip(bounds) {
            so_far += count;
            self.line(&bucket, labels, Some(&bound.to_string()), so_far);
        }
        let all: u64 = counts.iter().sum();
        self.line(&bucket, labels, Some("+Inf"), all);
        self.line(&format!("{name}_sum"), labels, None, sum);
        self.line(&format!("{name}_count"), labels, None, all);
    }

    fn line(&mut self, name: &str, labels: Labels<'_>, bound: Option<&str>, value: impl Display) {
        self.0.push_str(name);
        let mut before = '{';
        for (label, text) in labels.iter().copied().chain(bound.map(|bound| ("le", bound))) {
            self.0.push(before);
            before = ',';
            let _ = write!(self.0, "{label}=\"");
            for char in text.chars() {
                match char {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    other => self.0.push(other),
                }
            }
            self.0.push('"');
        }
        if before == ',' {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    pub(super) fn finish(self) -> String {
        self.0
    }
}

/// ns as seconds.
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}
