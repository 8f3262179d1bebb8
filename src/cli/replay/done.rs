//! What came of a block of entries: how many of each sort, and what differs.

use super::again::{Came, Verdict};
use crate::service::decision::said::{Said, Sent};
use serde::Serialize;
use std::sync::Arc;

/// What came of a block.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) place: u64,
    pub(super) counts: Counts,
    pub(super) differences: Vec<Difference>,
    pub(super) read: u64,
}

/// Decisions by what came of them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub(super) struct Counts {
    /// Made again and compared.
    pub(super) replayed: u64,
    /// Those of them that came out otherwise.
    pub(super) changed: u64,
    /// They hang on what is not in the record.
    pub(super) hidden: u64,
    /// They read what was not read then.
    pub(super) unknown: u64,
    /// The machine made them.
    pub(super) environment: u64,
    /// Nobody could be asked.
    pub(super) not_run: u64,
    /// They come out otherwise only on an instance that was asked before.
    pub(super) memory: u64,
}

impl Counts {
    pub(super) fn add(&mut self, other: Counts) {
        self.replayed += other.replayed;
        self.changed += other.changed;
        self.hidden += other.hidden;
        self.unknown += other.unknown;
        self.environment += other.environment;
        self.not_run += other.not_run;
        self.memory += other.memory;
    }
}

/// A decision that did not come out the same.
#[derive(Debug, Serialize)]
pub(super) struct Difference {
    /// Its place in the files, from 1.
    record: u64,
    at_ms: u64,
    request: String,
    policy: Arc<str>,
    version: Arc<str>,
    /// `changed`, `memory` or `unknown`.
    what: &'static str,
    /// What is different, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fields: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Came>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<Came>,
    /// What it read that is not on the tape.
    #[serde(skip_serializing_if = "Option::is_none")]
    read: Option<String>,
}

impl Difference {
    pub(super) fn new(
        (record, at_ms): (u64, u64),
        (policy, version): (Arc<str>, Arc<str>),
        request: String,
        verdict: Verdict,
    ) -> Self {
        let (what, both, read) = match verdict {
            Verdict::Changed(both) => ("changed", Some(both), None),
            Verdict::Memory(both) => ("memory", Some(both), None),
            Verdict::Unknown(asked) => ("unknown", None, Some(format!("{asked:?}"))),
            Verdict::Same | Verdict::Hidden | Verdict::Environment => ("", None, None),
        };
        let fields = both.as_ref().map_or_else(Vec::new, |both| fields(&both.0, &both.1));
        let (before, after) = both.map(|both| *both).unzip();
        Difference { record, at_ms, request, policy, version, what, fields, before, after, read }
    }

    /// For people: `#12 … tenant: forward users → forward users-v2 (service)`.
    pub(super) fn line(&self) -> String {
        let Difference { record, request, policy, version, what, fields, before, after, read, .. } = self;
        let head = format!("#{record} {request} {policy} {version} {what}:");
        match (before, after, read) {
            (Some(before), Some(after), _) => {
                format!("{head} {} → {} ({})", short(&before.said), short(&after.said), fields.join(", "))
            }
            (_, _, Some(read)) => format!("{head} {read} is not on the tape"),
            _ => head,
        }
    }

    /// What differences of one sort have in common.
    pub(super) fn sort(&self) -> String {
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => {
                format!(
                    "{} {}: {} → {} ({})",
                    self.policy,
                    self.what,
                    short(&before.said),
                    short(&after.said),
                    self.fields.join(", ")
                )
            }
            _ => format!("{} {}", self.policy, self.what),
        }
    }
}

fn short(said: &Said) -> String {
    match said {
        Said::Next => "next".to_owned(),
        Said::Forward(sent) => format!("forward {}", sent.service),
        Said::Respond(answered) => format!("respond {}", answered.status),
        Said::Fault(kind, _) => format!("fault {}", kind.name()),
    }
}

/// Names of what differs.
fn fields(before: &Came, after: &Came) -> Vec<&'static str> {
    let mut fields = match (&before.said, &after.said) {
        (Said::Forward(before), Said::Forward(after)) => sent(before, after),
        (before, after) if before == after => Vec::new(),
        (before, after) if before.kind() == after.kind() => vec!["answer"],
        _ => vec!["decision"],
    };
    if before.effects != after.effects {
        fields.push("state");
    }
    if fields.is_empty() {
        fields.push("reason");
    }
    fields
}

fn sent(before: &Sent, after: &Sent) -> Vec<&'static str> {
    let terms = |sent: &Sent| (sent.timeout_ms, sent.attempt_timeout_ms, sent.max_attempts, sent.retry_status.clone());
    let edits = |sent: &Sent| {
        (sent.request.clone(), sent.response.clone(), sent.path.clone(), sent.query.clone(), sent.host.clone())
    };
    let all = [
        ("service", before.service != after.service),
        ("strategy", before.strategy != after.strategy),
        ("key", before.key != after.key),
        ("endpoints", before.endpoints != after.endpoints),
        ("subset", before.subset != after.subset),
        ("prefer", before.prefer != after.prefer),
        ("terms", terms(before) != terms(after)),
        ("queue", before.queue != after.queue),
        ("edits", edits(before) != edits(after)),
    ];
    all.into_iter().filter(|(_, differ)| *differ).map(|(name, _)| name).collect()
}
