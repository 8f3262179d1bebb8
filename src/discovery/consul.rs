//! The `consul` source: the health endpoint of a Consul agent, with one blocking query for each declared service.
//!
//! Each watch keeps one connection, as long as there are as many as services; else they take turns.

mod answer;
mod health;
mod hosts;
mod pulse;
mod watch;

use super::keeper::{Keeper, Known};
use super::registry::consul::{self as registry, Client};
use super::registry::dns;
use super::registry::members::OneOrMore;
use super::{Build, Lookup, Observed, Report, Reports, Source};
use crate::base::keys;
use health::Health;
use hosts::Hosts;
use serde::Deserialize;
use std::collections::BTreeMap;
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
    /// In which namespace and partition of Consul Enterprise they are; none: the token's.
    pub namespace: Option<String>,
    /// See `namespace`.
    pub partition: Option<String>,
    /// Only what fits this expression (developer.hashicorp.com/consul/api-docs/features/filtering) counts.
    pub filter: Option<String>,
    /// Only on nodes whose metadata has all of these, each as `key:value`.
    pub node_meta: Vec<String>,
    /// Which of an endpoint's tagged addresses counts, such as `wan`; none: its address. Who has none is left out.
    pub tagged_address: Option<String>,
    /// Whom to ask for the addresses of host names; none: they are left out.
    pub hosts: Option<dns::Settings>,
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
    namespace: Option<String>,
    partition: Option<String>,
    filter: Option<String>,
    #[serde(default)]
    node_meta: BTreeMap<String, String>,
    tagged_address: Option<String>,
    #[serde(default)]
    resolve_hosts: bool,
    dns_server: Option<OneOrMore>,
    passing_only: Option<bool>,
    passing: Option<bool>,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default = "crate::discovery::guard::confirm_after", with = "crate::base::duration")]
    confirm_after: Duration,
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
        let named = [
            ("namespace", &raw.namespace),
            ("partition", &raw.partition),
            ("filter", &raw.filter),
            ("tagged_address", &raw.tagged_address),
        ];
        let is_empty = |text: &Option<String>| text.as_ref().is_some_and(|text| text.trim().is_empty());
        if let Some((key, _)) = named.into_iter().find(|(_, text)| is_empty(text)) {
            return Err(format!("`{key}` is empty; leave it out"));
        }
        if let Some(key) = raw.node_meta.keys().find(|key| key.is_empty() || key.contains(':')) {
            return Err(format!("`node_meta`: `{key}` is no key of a node's metadata"));
        }
        let hosts = match (raw.resolve_hosts, raw.dns_server) {
            (false, None) => None,
            (false, Some(_)) => return Err("`dns_server` is of use with `resolve_hosts = true` only".to_owned()),
            (true, None) => Some(dns::Settings::default()),
            (true, Some(servers)) => Some(dns::Settings::named("dns_server", servers)?),
        };
        let node_meta = raw.node_meta.iter().map(|(key, value)| format!("{key}:{value}")).collect();
        let Raw { datacenter, namespace, partition, filter, tagged_address, tags, confirm_after, .. } = raw;
        let client = client.at(folder);
        Ok(Settings {
            client,
            datacenter,
            namespace,
            partition,
            filter,
            node_meta,
            tagged_address,
            hosts,
            states,
            tags,
            confirm_after,
        })
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
        let hosts = settings.hosts.clone().map(Hosts::new);
        let health = Health { client, settings: settings.clone(), hosts };
        Ok(Consul { health: Arc::new(health), known: Known::default() })
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
            loop {
                // The set ends its tasks when it is dropped.
                let mut watches = tokio::task::JoinSet::new();
                for lookup in &lookups {
                    let keeper = Keeper::new(lookup.clone(), &known, health.settings.confirm_after, reports.clone());
                    watches.spawn(watch::run(Arc::clone(&health), keeper));
                }
                if watches.is_empty() {
                    return std::future::pending().await;
                }
                let silent = tokio::select! {
                    // None of them ends by itself, so this is a bug of ours: all begin anew. What was applied is known.
                    ended = watches.join_next() => {
                        let problem = ended.and_then(Result::err);
                        tracing::error!(source = %reports.source, ?problem, "a watch ended");
                        return;
                    }
                    silent = pulse::silence(&health.client) => silent,
                };
                drop(watches);
                let problem = format!("{}; all services are read again when it speaks", silent.problem);
                reports.send(Report::Failed(None, problem)).await;
                pulse::speech(&health.client).await;
            }
        })
    }
}

#[cfg(test)]
mod tests;
