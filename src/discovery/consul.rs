//! The `consul` source: the health endpoint of a Consul agent, with one blocking query for each declared service.
//!
//! Each watch keeps one connection, as long as there are as many as services; else they take turns.

mod answer;
mod health;
mod watch;

use super::keeper::{Keeper, Known};
use super::registry::consul::{self as registry, Client};
use super::{Build, Lookup, Observed, Reports, Source};
use crate::base::keys;
use health::Health;
use serde::Deserialize;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// `[sources.NAME]` with `kind = "consul"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How the agent is reached.
    pub client: registry::Settings,
    /// Whose services; none: the agent's own datacenter.
    pub datacenter: Option<String>,
    /// Which endpoints count, by the state of their checks.
    pub states: States,
    /// Only endpoints with all these tags, beside those of the service.
    pub tags: Vec<String>,
    /// How long after a doubtful answer it is read again.
    pub confirm_after: Duration,
}

/// Which endpoints count, by the state of their checks and their node's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum States {
    /// Those without a critical check, as Consul's own DNS has it.
    NotCritical,
    /// Those whose checks all pass: `passing_only`.
    Passing,
    /// All; a critical check makes one unhealthy: `passing = false`.
    All,
}

/// What a table says beside its client's keys.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    datacenter: Option<String>,
    passing_only: Option<bool>,
    passing: Option<bool>,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default = "confirm_after", with = "crate::base::duration")]
    confirm_after: Duration,
}

fn confirm_after() -> Duration {
    Duration::from_secs(5)
}

impl Settings {
    /// Reads a table. Relative paths are relative to the folder.
    ///
    /// # Errors
    /// The key that is wrong, and what was expected.
    fn read(table: toml::Table, folder: &Path) -> Result<Self, String> {
        let (client, raw): (registry::Settings, Raw) = keys::share(table)?;
        let states = match (raw.passing_only, raw.passing) {
            (Some(_), Some(_)) => {
                return Err("`passing` and `passing_only` exclude each other (`passing` is the older one)".to_owned());
            }
            (Some(true), None) | (None, Some(true)) => States::Passing,
            (None, Some(false)) => States::All,
            (Some(false) | None, None) => States::NotCritical,
        };
        let Raw { datacenter, tags, confirm_after, .. } = raw;
        Ok(Settings { client: client.at(folder), datacenter, states, tags, confirm_after })
    }
}

/// Watches services through one agent.
#[derive(Debug)]
pub struct Consul {
    health: Arc<Health>,
    known: Known,
}

/// Reads a table of this kind.
pub(super) fn read(table: toml::Table, folder: &Path) -> Result<Build, String> {
    let settings = Settings::read(table, folder)?;
    Ok(Arc::new(move || Ok(Arc::new(Consul::new(&settings)?))))
}

impl Consul {
    /// A source that asks this agent.
    ///
    /// # Errors
    /// The system's certificates cannot be used.
    pub fn new(settings: &Settings) -> Result<Self, String> {
        let client = Client::new(settings.client.clone())?;
        Ok(Consul { health: Arc::new(Health { client, settings: settings.clone() }), known: Known::default() })
    }
}

impl Source for Consul {
    fn remember(&self, lookup: &Lookup, observed: &Observed) {
        self.known.remember(lookup, observed);
    }

    fn watch(&self, lookups: Vec<Lookup>, reports: Reports) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let (health, known) = (Arc::clone(&self.health), self.known.clone());
        Box::pin(async move {
            known.retain(&lookups);
            if health.client.watches(lookups.len()) {
                let (services, most) = (lookups.len(), health.settings.client.max_connections);
                tracing::info!(source = %reports.source, services, most, "more services than connections: they take turns");
            }
            // The set ends its tasks when this future is dropped.
            let mut watches = tokio::task::JoinSet::new();
            for lookup in lookups {
                let keeper = Keeper::new(lookup, &known, health.settings.confirm_after, reports.clone());
                watches.spawn(watch::run(Arc::clone(&health), keeper));
            }
            // None of them ends by itself, so this is a bug of ours: all begin anew. What was applied is known.
            match watches.join_next().await {
                Some(ended) => tracing::error!(source = %reports.source, problem = ?ended.err(), "a watch ended"),
                None => std::future::pending().await,
            }
        })
    }
}

#[cfg(test)]
mod tests;
