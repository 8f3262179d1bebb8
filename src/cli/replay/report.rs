//! What a replay tells: a line for each difference, what they have in common, and the counts.

use super::done::{Counts, Done};
use super::versions::Library;
use crate::cli::out;
use crate::service::tape::redaction::MARK;
use serde::Serialize;
use std::collections::HashMap;
use std::time::Duration;

/// Sorts of differences that are counted apart.
const MOST_SORTS: usize = 256;
/// Of those, so many are shown.
const SHOWN: usize = 20;

/// What was found so far.
#[derive(Debug)]
pub(super) struct Report {
    json: bool,
    bytes: u64,
    pub(super) counts: Counts,
    sorts: HashMap<String, u64>,
}

impl Report {
    /// `bytes`: of all files.
    pub(super) fn new(json: bool, bytes: u64) -> Self {
        Report { json, bytes, counts: Counts::default(), sorts: HashMap::new() }
    }

    /// Tells what came of a block.
    pub(super) fn take(&mut self, done: Done) {
        self.counts.add(done.counts);
        for difference in &done.differences {
            let sort = difference.sort();
            let known = self.sorts.contains_key(&sort) || self.sorts.len() < MOST_SORTS;
            *self.sorts.entry(if known { sort } else { "other".to_owned() }).or_default() += 1;
            out::say(if self.json { json(difference) } else { plain(&difference.line()) });
        }
        let all = self.counts.replayed + self.counts.hidden + self.counts.environment + self.counts.not_run;
        let (done, bytes) = (done.read >> 20, self.bytes >> 20);
        out::progress(format_args!("{all} decisions, {} changed, {done} of {bytes} MiB", self.counts.changed), false);
    }

    /// What is left to say.
    pub(super) fn end(&self, took: Duration, threads: usize, library: &Library) {
        out::progress("", true);
        for (about, problem) in library.problems() {
            out::complain(format_args!("{} {}: not run: {problem}", about.policy, about.version));
        }
        let mut sorts: Vec<_> = self.sorts.iter().collect();
        sorts.sort_by(|one, two| two.1.cmp(one.1).then_with(|| one.0.cmp(two.0)));
        for (sort, count) in sorts.iter().take(SHOWN) {
            out::complain(plain(&format!("{count} × {sort}")));
        }
        if let Some(other) = library.other().filter(|_| self.counts == Counts::default()) {
            out::complain(format_args!(
                "nobody asked a policy `{other}`: name the file after the policy whose place it takes"
            ));
        }
        if self.counts.memory > 0 {
            out::complain(
                "`memory`: what it answers depends on what it was asked before; where it goes through a map, sort, or take one that is in order",
            );
        }
        let took = took.saturating_sub(library.loading());
        let rate = self.counts.replayed as f64 / took.as_secs_f64().max(1e-9);
        out::complain(format_args!(
            "{} decisions in {:.2} s: {rate:.0} a second with {threads} threads, {:.0} each",
            self.counts.replayed,
            took.as_secs_f64(),
            rate / threads as f64
        ));
        out::say(json(&self.counts));
    }
}

/// One line, for machines.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default().replace("\\u0000redacted\\u0000", "[redacted]")
}

/// One line, that a terminal shows as it is.
fn plain(line: &str) -> String {
    let line = line.replace(MARK, "[redacted]");
    line.chars().flat_map(|char| if char.is_control() { char.escape_debug().collect() } else { vec![char] }).collect()
}
