//! State that gateways share through a store. Each keeps a copy, answers from it at once, and queues what it did; what the
//! store says of it corrects the copy. So a call never waits, sums in the store are exact, and what a call sees is what was
//! true some milliseconds ago; of a key that this gateway has not read yet it sees nothing, and the next call what there is.

use super::{Rate, State, Taken};
use crate::discovery::store::{Op, Said, Stores};
use std::sync::Arc;

/// A value that was read longer ago than this, in ms, is read again beside the call that reads it.
const FRESH_MS: u64 = 1000;
/// What a bucket that is shut says of when to come again, ms.
const SHUT_MS: u32 = 1000;

/// How a policy's state is shared.
#[derive(Debug, Clone)]
pub(in crate::policy) struct Sharing {
    /// All stores.
    pub(in crate::policy) stores: Stores,
    /// The one that is used; where it is not declared, the state is this gateway's own.
    pub(in crate::policy) store: Arc<str>,
    /// Before each key: the policy's name.
    pub(in crate::policy) policy: Arc<str>,
    /// While the store fails, no bucket grants anything, and no value is there.
    pub(in crate::policy) closed: bool,
}

impl Sharing {
    /// Queues it; what comes of it is told to `done`.
    fn tell(&self, key: &str, op: Op, done: impl FnOnce(Option<Said>) + Send + 'static) {
        match self.stores.get(&self.store) {
            Some(store) => store.tell(format!("{}:{key}", self.policy), op, Box::new(done)),
            None => done(None),
        }
    }

    fn shut(&self) -> bool {
        self.closed && self.stores.get(&self.store).is_none_or(|store| store.failing())
    }

    /// As [`State::add`].
    pub(in crate::policy) fn add(&self, state: &Arc<State>, key: &str, delta: i32, ttl_ms: u32, now_ms: u64) -> i64 {
        let value = state.add_unsettled(key, delta, ttl_ms, now_ms);
        let (copy, own) = (Arc::clone(state), key.to_owned());
        self.tell(key, Op::Add(delta.into(), ttl_ms), move |said| {
            let said = match said {
                Some(Said::Counter(value, ttl)) => Some((value, ttl.unwrap_or(0))),
                _ => None,
            };
            copy.settle_counter(&own, delta.into(), said, now_ms);
        });
        value
    }

    /// As [`State::take`].
    pub(in crate::policy) fn take(&self, state: &Arc<State>, key: &str, tokens: u32, rate: Rate, now_ms: u64) -> Taken {
        if self.shut() {
            return Taken { granted: false, left: 0, wait_ms: SHUT_MS };
        }
        let taken = state.take_unsettled(key, tokens, rate, now_ms);
        // Where none are given, the store is asked what is left: others may have let theirs come back.
        let tokens = if taken.granted { tokens } else { 0 };
        let (copy, own) = (Arc::clone(state), key.to_owned());
        self.tell(key, Op::Take(tokens, rate), move |said| {
            let left = match said {
                Some(Said::Tokens(left)) => Some(left),
                _ => None,
            };
            copy.settle_bucket(&own, tokens, left, now_ms);
        });
        taken
    }

    /// As [`State::get`].
    pub(in crate::policy) fn get(&self, state: &Arc<State>, key: &str, now_ms: u64) -> Option<String> {
        if self.shut() {
            return None;
        }
        if let Some(writes) = state.asks(key, FRESH_MS, now_ms) {
            self.tell(key, Op::Get, value(state, key, writes, now_ms));
        }
        state.get(key, now_ms)
    }

    /// As [`State::set`].
    pub(in crate::policy) fn set(&self, state: &Arc<State>, key: &str, text: &str, ttl_ms: u32, now_ms: u64) {
        state.set(key, text, ttl_ms, now_ms);
        state.writes(key);
        self.tell(key, Op::Set(text.to_owned(), ttl_ms), |_| {});
    }

    /// As [`State::get_or_set`].
    pub(in crate::policy) fn get_or_set(
        &self,
        state: &Arc<State>,
        key: &str,
        text: &str,
        ttl_ms: u32,
        now_ms: u64,
    ) -> String {
        if let Some(there) = self.get(state, key, now_ms) {
            return there;
        }
        let there = state.get_or_set(key, text, ttl_ms, now_ms);
        let writes = state.writes(key);
        self.tell(key, Op::GetOrSet(text.to_owned(), ttl_ms), value(state, key, writes, now_ms));
        there
    }

    /// As [`State::remove`].
    pub(in crate::policy) fn remove(&self, state: &Arc<State>, key: &str) {
        state.remove(key);
        state.writes(key);
        self.tell(key, Op::Remove, |_| {});
    }
}

/// Takes the value that is told into the copy.
fn value(state: &Arc<State>, key: &str, writes: u32, now_ms: u64) -> impl FnOnce(Option<Said>) + Send + 'static {
    let (copy, own) = (Arc::clone(state), key.to_owned());
    move |said| {
        if let Some(Said::Value(value)) = said {
            copy.settle_value(&own, value.map(|(text, ttl)| (text, ttl.unwrap_or(0))), writes, now_ms);
        }
    }
}
