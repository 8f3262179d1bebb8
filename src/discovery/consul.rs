//! The `consul` source: the health endpoint of a Consul agent, with one blocking query for each declared service.
//!
//! Semantics follow developer.hashicorp.com/consul/api-docs: `features/blocking` and `health#list-service-instances`.
//! Each watch keeps one connection, as long as there are as many as services; see `share`.

mod answer;
mod client;
mod index;
mod share;
mod watch;

use super::{Build, Lookup, Observed, Reports, Source};
use crate::base::secret::Secret;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// `[sources.NAME]` with `kind = "consul"`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Raw")]
pub struct Settings {
    /// The agent's HTTP API.
    pub address: Address,
    /// Where the ACL token comes from; none: anonymous.
    pub token: Option<Token>,
    /// Whose services; none: the agent's own datacenter.
    pub datacenter: Option<String>,
    /// Which endpoints count, by the state of their checks.
    pub states: States,
    /// Only endpoints with all these tags, beside those of the service.
    pub tags: Vec<String>,
    /// How long one query waits for a change: 1 s to 10 min.
    pub wait: Duration,
    /// How long after a doubtful answer it is read again.
    pub confirm_after: Duration,
    /// The largest answer that is read, bytes.
    pub max_answer: usize,
    /// Connections to the agent at once: 1 to 10,000. With more services than that, they take turns.
    pub max_connections: usize,
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

/// Where an ACL token comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// The configuration.
    Value(Secret),
    /// A file that is read for each query, so a new token needs no restart. White space around it is dropped.
    File(PathBuf),
}

/// An `http` or `https` URL. `Debug` and `Display` leave out user and password.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(reqwest::Url);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.0.host_str().unwrap_or_default();
        write!(f, "{}://{host}", self.0.scheme())?;
        self.0.port().map_or(Ok(()), |port| write!(f, ":{port}"))?;
        f.write_str(self.0.path().trim_end_matches('/'))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    address: String,
    token: Option<Secret>,
    token_file: Option<PathBuf>,
    datacenter: Option<String>,
    passing_only: Option<bool>,
    passing: Option<bool>,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default = "wait", with = "crate::base::duration")]
    wait: Duration,
    #[serde(default = "confirm_after", with = "crate::base::duration")]
    confirm_after: Duration,
    #[serde(default = "max_answer")]
    max_answer: usize,
    #[serde(default = "max_connections")]
    max_connections: usize,
}

fn wait() -> Duration {
    Duration::from_secs(60)
}
fn confirm_after() -> Duration {
    Duration::from_secs(5)
}
fn max_answer() -> usize {
    16 << 20
}
/// An agent takes 200 of one address, which others on this machine may need, too.
fn max_connections() -> usize {
    150
}

impl TryFrom<Raw> for Settings {
    type Error = String;

    fn try_from(raw: Raw) -> Result<Self, String> {
        // The text is not shown: it may hold a password.
        let expected = "`address`: expected a URL like `http://127.0.0.1:8500`";
        let url = reqwest::Url::parse(&raw.address).map_err(|e| format!("{expected} ({e})"))?;
        if !matches!(url.scheme(), "http" | "https") || url.query().is_some() || url.fragment().is_some() {
            return Err(format!("{expected}, without a query"));
        }
        let token = match (raw.token, raw.token_file) {
            (Some(_), Some(_)) => return Err("`token` and `token_file` exclude each other".to_owned()),
            (Some(token), None) if token.expose().trim().is_empty() => return Err("`token` is empty".to_owned()),
            (Some(token), None) => Some(Token::Value(token)),
            (None, Some(file)) => Some(Token::File(file)),
            (None, None) => None,
        };
        let states = match (raw.passing_only, raw.passing) {
            (Some(_), Some(_)) => {
                return Err("`passing` and `passing_only` exclude each other (`passing` is the older one)".to_owned());
            }
            (Some(true), None) | (None, Some(true)) => States::Passing,
            (None, Some(false)) => States::All,
            (Some(false) | None, None) => States::NotCritical,
        };
        if !(1..=10_000).contains(&raw.max_connections) {
            return Err(format!("`max_connections`: {} is not between 1 and 10000", raw.max_connections));
        }
        Ok(Settings {
            address: Address(url),
            token,
            datacenter: raw.datacenter,
            states,
            tags: raw.tags,
            // Consul's own limit; less than a second would be polling.
            wait: raw.wait.clamp(Duration::from_secs(1), Duration::from_secs(600)),
            confirm_after: raw.confirm_after,
            max_answer: raw.max_answer,
            max_connections: raw.max_connections,
        })
    }
}

/// Watches services through one agent.
#[derive(Debug)]
pub struct Consul {
    client: Arc<client::Client>,
    known: Known,
}

/// What was last applied for each lookup. It outlives a watch, so that a changed configuration does not make an empty
/// answer a first one, which would be applied at once.
type Known = Arc<Mutex<BTreeMap<Key, Observed>>>;
type Key = (Arc<str>, String, Vec<String>);

fn key(lookup: &Lookup) -> Key {
    (Arc::clone(&lookup.service), lookup.registered_as.clone(), lookup.tags.clone())
}

/// Reads a table of this kind.
pub(super) fn read(table: toml::Table, folder: &Path) -> Result<Build, String> {
    let settings = settings(table, folder)?;
    Ok(Arc::new(move || Ok(Arc::new(Consul::new(&settings)?))))
}

fn settings(table: toml::Table, folder: &Path) -> Result<Settings, String> {
    let mut settings: Settings = super::settings(table)?;
    if let Some(Token::File(file)) = &mut settings.token {
        *file = folder.join(&*file);
    }
    Ok(settings)
}

impl Consul {
    /// A source that asks this agent.
    ///
    /// # Errors
    /// The system's certificates cannot be used.
    pub fn new(settings: &Settings) -> Result<Self, String> {
        let client = client::Client::new(settings.clone())?;
        Ok(Consul { client: Arc::new(client), known: Known::default() })
    }
}

impl Source for Consul {
    fn watch(&self, lookups: Vec<Lookup>, reports: Reports) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let (client, known) = (Arc::clone(&self.client), Arc::clone(&self.known));
        Box::pin(async move {
            let keys: Vec<Key> = lookups.iter().map(key).collect();
            known.lock().unwrap_or_else(PoisonError::into_inner).retain(|key, _| keys.contains(key));
            if client.share.watch(lookups.len()) {
                let (services, most) = (lookups.len(), client.settings.max_connections);
                tracing::info!(source = %reports.source, services, most, "more services than connections: they take turns");
            }
            // The set ends its tasks when this future is dropped.
            let mut watches = tokio::task::JoinSet::new();
            for lookup in lookups {
                watches.spawn(watch::run(Arc::clone(&client), Arc::clone(&known), lookup, reports.clone()));
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
