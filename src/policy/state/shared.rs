//! State that gateways share through a store. Each keeps a copy, answers from it at once, and queues what it did; what the
//! store says of it corrects the copy. So a call never waits, sums in the store are exact, and what a call sees is what was
//! true some milliseconds ago; of a key that this gateway has not read yet it sees nothing, and the next call what there is.

use super::{Rate, State, Taken};
use crate::discovery::store::{Op, Said, Store};
use std::sync::Arc;

/// A value that was read longer ago than this, in ms, is read again beside the call that reads it.
const FRESH_MS: u64 = 1000;

/// How a policy's state is shared.
#[derive(Debug, Clone)]
pub struct Sharing {
    /// With whom.
    pub store: Arc<Store>,
    /// Before each key: the policy's name.
    pub name: Arc<str>,
    /// While the store fails, no bucket grants anything and no value is there.
    pub closed: bool,
}

impl Sharing {
    fn tell(&self, state: &Arc<State>, key: &str, op: Op, now_ms: u64) {
        let (state, own, told) = (Arc::clone(state), key.to_owned(), op.clone());
        let done = Box::new(move |said| state.settle(&own, &told, said, now_ms));
        self.store.tell(format!("{}:{key}", self.name), op, done);
    }

    fn shut(&self) -> bool {
        self.closed && self.store.failing()
    }

    /// As [`State::add`].
    pub fn add(&self, state: &Arc<State>, key: &str, delta: i32, ttl_ms: u32, now_ms: u64) -> i64 {
        let value = state.add_unsettled(key, delta, ttl_ms, now_ms);
        self.tell(state, key, Op::Add(delta.into(), ttl_ms), now_ms);
        value
    }

    /// As [`State::take`].
    pub fn take(&self, state: &Arc<State>, key: &str, tokens: u32, rate: Rate, now_ms: u64) -> Taken {
        if self.shut() {
            return Taken { granted: false, left: 0, wait_ms: 1000 };
        }
        let taken = state.take(key, tokens, rate, now_ms);
        // Also where none are given: others may have given some back by not taking them.
        self.tell(state, key, Op::Take(if taken.granted { tokens } else { 0 }, rate), now_ms);
        taken
    }

    /// As [`State::get`].
    pub fn get(&self, state: &Arc<State>, key: &str, now_ms: u64) -> Option<String> {
        if self.shut() {
            return None;
        }
        if state.read_at(key).is_none_or(|at| at.saturating_add(FRESH_MS) <= now_ms) {
            state.reads(key, now_ms);
            self.tell(state, key, Op::Get, now_ms);
        }
        state.get(key, now_ms)
    }

    /// As [`State::set`].
    pub fn set(&self, state: &Arc<State>, key: &str, value: &str, ttl_ms: u32, now_ms: u64) {
        state.set(key, value, ttl_ms, now_ms);
        self.tell(state, key, Op::Set(value.to_owned(), ttl_ms), now_ms);
    }

    /// As [`State::get_or_set`].
    pub fn get_or_set(&self, state: &Arc<State>, key: &str, value: &str, ttl_ms: u32, now_ms: u64) -> String {
        match self.get(state, key, now_ms) {
            Some(there) => there,
            None => {
                let there = state.get_or_set(key, value, ttl_ms, now_ms);
                self.tell(state, key, Op::GetOrSet(value.to_owned(), ttl_ms), now_ms);
                there
            }
        }
    }

    /// As [`State::remove`].
    pub fn remove(&self, state: &Arc<State>, key: &str, now_ms: u64) {
        state.remove(key);
        self.tell(state, key, Op::Remove, now_ms);
    }
}

impl State {
    /// What the store says of what was done, to be taken into the copy. None: nothing.
    fn settle(&self, key: &str, op: &Op, said: Option<Said>, now_ms: u64) {
        match (op, said) {
            (Op::Add(delta, _), said) => {
                let said = match said {
                    Some(Said::Counter(value, ttl)) => Some((value, ttl.unwrap_or(0))),
                    _ => None,
                };
                self.settle_counter(key, *delta, said, now_ms);
            }
            (Op::Take(_, rate), Some(Said::Tokens(tokens))) => self.settle_bucket(key, tokens, *rate, now_ms),
            (Op::Get | Op::GetOrSet(..), Some(Said::Value(Some((value, ttl))))) => {
                self.set(key, &value, ttl.unwrap_or(0), now_ms);
                self.reads(key, now_ms);
            }
            (Op::Get, Some(Said::Value(None))) => self.remove(key),
            _ => {}
        }
    }
}
