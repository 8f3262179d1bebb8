//! What belongs to a policy's name and survives its versions.

use super::conduct::Conducts;
use super::limits::Limits;
use super::metrics::GuestMetrics;
use super::state::{Rate, Sharing, State, Taken};
use super::told::Told;
use crate::base::time::process_ms;
use crate::http::request::Head;
use crate::service::decision::Fault;
use arc_swap::ArcSwapOption;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What belongs to a policy's name and survives its versions and reloads: there is one for each name.
#[derive(Debug)]
pub struct PolicyLive {
    /// What the policy remembers.
    pub state: Arc<State>,
    /// With other gateways, where its sidecar says so.
    sharing: ArcSwapOption<Sharing>,
    /// What the policy counts.
    pub metrics: GuestMetrics,
    /// How its components behave.
    pub(super) conducts: Conducts,
    told: Told,
    /// Canaries that were rolled back, since the gateway started.
    rollbacks: AtomicU64,
}

impl Default for PolicyLive {
    fn default() -> Self {
        let limits = Limits::default();
        PolicyLive {
            // Loading a version sets its own quota.
            state: Arc::new(State::new(limits.state_keys, limits.state_bytes)),
            sharing: ArcSwapOption::empty(),
            metrics: GuestMetrics::default(),
            conducts: Conducts::default(),
            told: Told::default(),
            rollbacks: AtomicU64::new(0),
        }
    }
}

impl PolicyLive {
    /// Its state is shared like this from now on; none: it is this gateway's own.
    pub(super) fn share(&self, sharing: Option<Sharing>) {
        self.sharing.store(sharing.map(Arc::new));
    }

    /// As [`State::add`], shared or not.
    pub(super) fn add(&self, key: &str, delta: i32, ttl_ms: u32, now_ms: u64) -> i64 {
        match &*self.sharing.load() {
            Some(sharing) => sharing.add(&self.state, key, delta, ttl_ms, now_ms),
            None => self.state.add(key, delta, ttl_ms, now_ms),
        }
    }

    /// As [`State::take`], shared or not.
    pub(super) fn take(&self, key: &str, tokens: u32, rate: Rate, now_ms: u64) -> Taken {
        match &*self.sharing.load() {
            Some(sharing) => sharing.take(&self.state, key, tokens, rate, now_ms),
            None => self.state.take(key, tokens, rate, now_ms),
        }
    }

    /// As [`State::get`], shared or not.
    pub(super) fn get(&self, key: &str, now_ms: u64) -> Option<String> {
        match &*self.sharing.load() {
            Some(sharing) => sharing.get(&self.state, key, now_ms),
            None => self.state.get(key, now_ms),
        }
    }

    /// As [`State::set`], shared or not.
    pub(super) fn set(&self, key: &str, value: &str, ttl_ms: u32, now_ms: u64) {
        match &*self.sharing.load() {
            Some(sharing) => sharing.set(&self.state, key, value, ttl_ms, now_ms),
            None => self.state.set(key, value, ttl_ms, now_ms),
        }
    }

    /// As [`State::get_or_set`], shared or not.
    pub(super) fn get_or_set(&self, key: &str, value: &str, ttl_ms: u32, now_ms: u64) -> String {
        match &*self.sharing.load() {
            Some(sharing) => sharing.get_or_set(&self.state, key, value, ttl_ms, now_ms),
            None => self.state.get_or_set(key, value, ttl_ms, now_ms),
        }
    }

    /// As [`State::remove`], shared or not.
    pub(super) fn remove(&self, key: &str) {
        match &*self.sharing.load() {
            Some(sharing) => sharing.remove(&self.state, key),
            None => self.state.remove(key),
        }
    }

    /// A canary of it was rolled back.
    pub(super) fn rolled_back(&self) {
        self.rollbacks.fetch_add(1, Relaxed);
    }

    /// Canaries that were rolled back, since the gateway started.
    pub fn rollbacks(&self) -> u64 {
        self.rollbacks.load(Relaxed)
    }

    /// Tells the log of a fault that a request came to, but not of each: what kind of request it was is told once, and
    /// then how many there were, every 10 s at most. `version` is "none" where nobody could be asked.
    pub fn tell(&self, policy: &str, version: &str, fault: &Fault, head: &Head) {
        self.told.tell(process_ms(), policy, version, fault, (head.parts.method.as_str(), &head.parts.headers));
    }
}
