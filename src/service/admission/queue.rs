//! Who waits for a place, and who is next. Between keys by deficit round robin (Shreedhar & Varghese 1995): each has a turn
//! after the other, with as many places as it weighs. Where the queue is full, the newest of whoever has most waiting for its
//! weight goes: a key that asks for less than its share loses nothing, however much others ask for.
//!
//! Without keys, the first is the first until it has waited for half of its time, and from then on the last is: the others
//! would be given up soon after they were served (Maurer, "Fail at Scale", 2015). Pure: it is told what time it is.

use crate::base::duration;
use crate::service::rate_limit::key::Key;
use rustc_hash::FxHashMap;
use serde::Deserialize;
use smallvec::SmallVec;
use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Keys that have a line of their own; more share as many lines.
const KEYS: u64 = 1024;
/// The deepest queue.
const DEEPEST: u32 = 10_000;
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(60);

/// `queue = { depth, wait, key }`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Requests that wait at a time, in this gateway.
    pub depth: u32,
    /// How long each waits at most.
    #[serde(with = "duration")]
    pub wait: Duration,
    /// Whose requests take turns; `none`: all are of one. As in `[[rate_limits]]`.
    pub(in crate::service) key: Key,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { depth: 100, wait: Duration::from_millis(200), key: Key::None }
    }
}

impl Settings {
    /// Is every number within its bounds?
    ///
    /// # Errors
    /// The key that is not, and what was expected.
    pub fn check(&self) -> Result<(), String> {
        if !(1..=DEEPEST).contains(&self.depth) {
            return Err(format!(".depth: {} is not between 1 and {DEEPEST}", self.depth));
        }
        if !(Duration::from_millis(1)..=LONGEST).contains(&self.wait) {
            return Err(".wait: must be between 1ms and 1m".into());
        }
        Ok(())
    }

    /// The same as numbers.
    pub fn terms(&self) -> Terms {
        let wait_ms = u64::try_from(self.wait.as_millis()).unwrap_or(u64::MAX);
        Terms { depth: self.depth as usize, wait_ms, keyed: self.key != Key::None }
    }
}

/// How many may wait, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// So many at a time.
    pub depth: usize,
    /// So long, ms.
    pub wait_ms: u64,
    /// Keys take turns.
    pub keyed: bool,
}

/// Who asks to wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Who {
    /// A hash of its key, which no client can foresee.
    pub key: u64,
    /// Places in each turn of its key, at least 1.
    pub weight: u32,
}

/// Where somebody waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    line: u64,
    number: u64,
}

/// Those who wait.
#[derive(Debug)]
pub(super) struct Queue<T> {
    /// None of them is empty.
    lines: FxHashMap<u64, Line<T>>,
    /// Their turns: each stands in here once.
    turns: VecDeque<u64>,
    /// Of the next one who comes.
    number: u64,
    length: usize,
}

/// Those of one key, by their numbers.
#[derive(Debug)]
struct Line<T> {
    waiting: BTreeMap<u64, Waiter<T>>,
    weight: u32,
    /// Places that are left of its turn.
    left: u32,
    /// The last may be the next.
    turns_round: bool,
}

#[derive(Debug)]
struct Waiter<T> {
    who: T,
    since_ms: u64,
    until_ms: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Queue { lines: FxHashMap::default(), turns: VecDeque::new(), number: 0, length: 0 }
    }
}

impl<T> Queue<T> {
    /// One more waits. Whoever has to go for it, if that must be, may be this one.
    pub(super) fn push(&mut self, who: T, by: Who, terms: Terms, now_ms: u64) -> (Ticket, Option<T>) {
        let key = if terms.keyed { by.key } else { 0 };
        let own = self.lines.contains_key(&key) || (self.lines.len() as u64) < KEYS;
        let ticket = Ticket { line: if own { key } else { key % KEYS }, number: self.number };
        self.number += 1;
        let turns = &mut self.turns;
        let line = self.lines.entry(ticket.line).or_insert_with(|| {
            turns.push_back(ticket.line);
            Line { waiting: BTreeMap::new(), weight: 1, left: 0, turns_round: false }
        });
        (line.weight, line.turns_round) = (by.weight.max(1), !terms.keyed);
        line.waiting.insert(ticket.number, Waiter { who, since_ms: now_ms, until_ms: now_ms + terms.wait_ms });
        self.length += 1;
        if self.length <= terms.depth {
            return (ticket, None);
        }
        // Of equals, the one who made it too many.
        let most = |(id, line): &(&u64, &Line<T>)| {
            let length = line.waiting.len() as u64 * (1 << 20) / u64::from(line.weight);
            (length, **id == ticket.line, Reverse(**id))
        };
        let longest = self.lines.iter().max_by_key(most).map(|(id, _)| *id);
        let newest = longest.and_then(|line| {
            let number = *self.lines.get(&line)?.waiting.last_key_value()?.0;
            self.remove(Ticket { line, number })
        });
        (ticket, newest)
    }

    /// Whoever is next. Those whose time is over have no turn any more, and go to `expired`.
    pub(super) fn pop(&mut self, now_ms: u64, expired: &mut SmallVec<[T; 4]>) -> Option<T> {
        self.pop_if(now_ms, expired, |_| true)
    }

    /// The same of those whom it suits; the others keep their turns.
    pub(super) fn pop_if(
        &mut self,
        now_ms: u64,
        expired: &mut SmallVec<[T; 4]>,
        suits: impl Fn(&T) -> bool,
    ) -> Option<T> {
        let mut at = 0;
        loop {
            let id = *self.turns.get(at)?;
            let Some(line) = self.lines.get_mut(&id) else {
                self.turns.remove(at);
                continue;
            };
            while let Some(first) = line.waiting.first_entry().filter(|first| first.get().until_ms <= now_ms) {
                expired.push(first.remove().who);
                self.length -= 1;
            }
            let next = line.next(now_ms, &suits).and_then(|number| line.waiting.remove(&number));
            if next.is_some() {
                self.length -= 1;
                line.left = if line.left == 0 { line.weight } else { line.left } - 1;
            }
            if line.waiting.is_empty() {
                self.lines.remove(&id);
                self.turns.remove(at);
            } else if next.is_none() {
                at += 1;
            } else if line.left == 0 {
                self.turns.remove(at);
                self.turns.push_back(id);
            }
            if let Some(next) = next {
                return Some(next.who);
            }
        }
    }

    /// This one waits no longer. None: it did not.
    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<T> {
        let line = self.lines.get_mut(&ticket.line)?;
        let gone = line.waiting.remove(&ticket.number)?;
        self.length -= 1;
        if line.waiting.is_empty() {
            self.lines.remove(&ticket.line);
            self.turns.retain(|id| *id != ticket.line);
        }
        Some(gone.who)
    }

    /// How many wait.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.length
    }
}

impl<T> Line<T> {
    /// The number of the one of those whom it suits who is next.
    fn next(&self, now_ms: u64, suits: impl Fn(&T) -> bool) -> Option<u64> {
        let mut fit = self.waiting.iter().filter(|(_, waiter)| suits(&waiter.who)).map(|(number, _)| *number);
        if self.is_late(now_ms) { fit.next_back() } else { fit.next() }
    }

    /// Whoever came first will hardly be served in time, so the last one shall.
    fn is_late(&self, now_ms: u64) -> bool {
        let late = |first: &Waiter<T>| now_ms - first.since_ms.min(now_ms) > (first.until_ms - first.since_ms) / 2;
        self.turns_round && self.waiting.first_key_value().is_some_and(|(_, first)| late(first))
    }
}

#[cfg(test)]
mod tests;
