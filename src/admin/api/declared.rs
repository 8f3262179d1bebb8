//! What is declared of middleware and rate limits, and what came of it so far.

use crate::service::middleware::jwt::KeySet;
use crate::service::middleware::{self, Kind, Outcome};
use crate::service::rate_limit::Declared;
use crate::snapshot::Snapshot;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `/middleware`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Middleware {
    /// In the configuration's order.
    pub middleware: Vec<MiddlewareState>,
}

/// One declared middleware.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MiddlewareState {
    /// Its name, which is nobody else's.
    pub name: String,
    /// Its kind, as the configuration calls it.
    pub kind: String,
    /// What it matches, in short.
    pub matches: String,
    /// The service that it sends requests to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Copies that it has under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<u32>,
    /// The keys that it fetches by URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<KeysState>,
    /// How often it did more than let a request pass, by what it did.
    pub outcomes: BTreeMap<String, u64>,
}

/// Keys of who issues tokens, by URL.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeysState {
    /// Where they are fetched.
    pub url: String,
    /// How many there are that can check a signature.
    pub keys: usize,
    /// Time since they were last fetched, ms; none: they never were.
    pub age_ms: Option<u64>,
    /// Why the newest try failed; the keys are those of the last good one.
    pub problem: Option<String>,
}

/// `/rate_limits`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RateLimits {
    /// In the configuration's order.
    pub rate_limits: Vec<RateLimitState>,
}

/// One declared limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RateLimitState {
    /// Its name, which is nobody else's.
    pub name: String,
    /// What it matches, in short.
    pub matches: String,
    /// Whose requests count together, as it is written.
    pub key: String,
    /// How many come through in the long run, as it is written.
    pub rate: String,
    /// How many come through at once.
    pub burst: u32,
    /// The store through which gateways count together; none: this one counts for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// That one does not answer now.
    #[serde(default)]
    pub store_failing: bool,
    /// Requests that it has refused.
    pub refused: u64,
}

impl Middleware {
    /// Of this snapshot.
    pub fn of(snapshot: &Snapshot) -> Self {
        Middleware { middleware: snapshot.middleware.all.iter().map(one).collect() }
    }
}

fn one(one: &middleware::Middleware) -> MiddlewareState {
    let service = match &one.kind {
        Kind::ForwardAuth(check) => Some(check.service.clone()),
        Kind::Mirror(mirror) => Some(mirror.service.clone()),
        _ => None,
    };
    let can = Outcome::ALL.into_iter().filter(|outcome| one.kind.can(*outcome));
    MiddlewareState {
        name: one.name.to_string(),
        kind: one.kind.name().to_owned(),
        matches: one.matcher.label(),
        service,
        in_flight: matches!(one.kind, Kind::Mirror(_)).then(|| one.live.under_way()),
        keys: one.kind.key_set().map(|set| keys(set)),
        outcomes: can.map(|outcome| (outcome.name().to_owned(), one.live.get(outcome))).collect(),
    }
}

fn keys(set: &KeySet) -> KeysState {
    KeysState {
        url: set.remote.as_ref().map_or_else(String::new, |remote| remote.url.clone()),
        keys: set.len(),
        age_ms: set.age().map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        problem: set.problem().map(|problem| problem.to_string()),
    }
}

impl RateLimits {
    /// Of this snapshot.
    pub fn of(snapshot: &Snapshot) -> Self {
        let one = |(limit, refused): (&std::sync::Arc<Declared>, u64)| {
            let failing = |store: &str| snapshot.stores.get(store).is_none_or(|store| store.failing());
            RateLimitState {
                name: limit.name.to_string(),
                matches: limit.matches(),
                key: limit.key(),
                rate: limit.rate(),
                burst: limit.burst(),
                store: limit.store().map(str::to_owned),
                store_failing: limit.store().is_some_and(failing),
                refused,
            }
        };
        RateLimits { rate_limits: snapshot.rate_limits.refused().map(one).collect() }
    }
}
