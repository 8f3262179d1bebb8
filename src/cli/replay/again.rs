//! One recorded call made again, and what comes of comparing the two.

use crate::http::request::Head;
use crate::policy::{Question, Version, Wall};
use crate::service::catalog::Catalog;
use crate::service::decision::Called;
use crate::service::decision::said::Said;
use crate::service::tape::{Asked, Effect, Tape};
use crate::telemetry::recording::entry::CallSaid;
use std::sync::Arc;
use std::time::Instant;

/// What a call is made with, beside its tape.
pub(super) struct Asking<'a> {
    pub(super) head: &'a Arc<Head>,
    pub(super) catalog: &'a Arc<Catalog>,
    pub(super) at_ms: u64,
    /// Of the exchange.
    pub(super) seed: u64,
    pub(super) worker: usize,
    /// The version is the one that made the call, so that its reasons count, too.
    pub(super) same: bool,
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub(super) struct Came {
    pub(super) said: Said,
    pub(super) effects: Vec<Effect>,
    pub(super) reason: String,
}

/// How two calls compare.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verdict {
    Same,
    /// It comes out otherwise: before, after.
    Changed(Box<(Came, Came)>),
    /// It hangs on what is not in the record.
    Hidden,
    /// It read what was not read then.
    Unknown(Asked),
    /// Of then or of now: the machine decided.
    Environment,
    /// It comes out otherwise only on an instance that was asked before.
    Memory(Box<(Came, Came)>),
}

impl Came {
    fn of(called: Called) -> (Came, Tape) {
        let mut tape = called.tape.map(|tape| *tape).unwrap_or_default();
        let effects = std::mem::take(&mut tape.effects);
        (Came { said: Said::of(&called.outcome), effects, reason: called.reason }, tape)
    }

    fn is_as(&self, other: &Came, same: bool) -> bool {
        self.said == other.said && self.effects == other.effects && (!same || self.reason == other.reason)
    }
}

/// Makes it again.
pub(super) fn again(version: &Version, call: CallSaid, asking: &Asking<'_>) -> Verdict {
    if call.tape.hidden {
        return Verdict::Hidden;
    }
    if call.said.is_of_environment() {
        return Verdict::Environment;
    }
    let CallSaid { policy, mut tape, said, reason, .. } = call;
    let before = Came { said, effects: std::mem::take(&mut tape.effects), reason };
    let tape = Arc::new(tape);
    let question = || Question {
        head: Arc::clone(asking.head),
        catalog: Arc::clone(asking.catalog),
        now_ms: asking.at_ms,
        started: Instant::now(),
        seed: Question::seed(&policy, asking.seed),
        wall: Some(Wall::taped(Arc::clone(&tape))),
    };
    let after = match judge(version.again(asking.worker, question())) {
        Ok(after) => after,
        Err(verdict) => return verdict,
    };
    if after.is_as(&before, asking.same) {
        return Verdict::Same;
    }
    // A second look, on an instance that remembers nothing.
    let Ok(afresh) = version.afresh(question()) else { return Verdict::Changed(Box::new((before, after))) };
    match judge(afresh) {
        Ok(afresh) if afresh.is_as(&after, true) => Verdict::Changed(Box::new((before, after))),
        // It says one thing, and the other: the one that an author can get again is what it says afresh.
        Ok(afresh) if afresh.is_as(&before, asking.same) => Verdict::Memory(Box::new((before, after))),
        Ok(afresh) => Verdict::Changed(Box::new((before, afresh))),
        Err(verdict) => verdict,
    }
}

fn judge(called: Called) -> Result<Came, Verdict> {
    let (came, tape) = Came::of(called);
    match tape {
        _ if came.said.is_of_environment() => Err(Verdict::Environment),
        Tape { hidden: true, .. } => Err(Verdict::Hidden),
        Tape { unknown: Some(asked), .. } => Err(Verdict::Unknown(asked)),
        _ => Ok(came),
    }
}
