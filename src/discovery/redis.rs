//! The `redis` source: keys `PREFIX NAME:ADDRESS`, or a hash `PREFIX NAME` with a field for each address, in Redis or
//! Valkey, alone, behind sentinels, or as a cluster.
//!
//! A server tells which keys changed by client-side tracking (redis.io/docs/latest/develop/reference/client-side-caching),
//! else by keyspace notifications; else its keys are looked through again and again. It tells of a key's end seconds after
//! it, so that is found out by a timer of our own.

mod ledger;
mod names;
mod read;
mod run;
mod servers;

use super::Build;
use super::keeper::{Follow, Followed, Keepers};
use super::registry::Failure;
use super::registry::redis::{self as registry, Client};
use crate::base::keys;
use run::Run;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// `[sources.NAME]` with `kind = "redis"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How the server is reached.
    pub client: registry::Settings,
    /// What the names of keys begin with.
    pub prefix: String,
    /// How often keys are looked through where no server tells of changes.
    pub interval: Duration,
    /// How long after a doubtful answer it is read again.
    pub confirm_after: Duration,
}

/// What a table says beside its client's keys.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default = "prefix")]
    prefix: String,
    #[serde(default = "interval", with = "crate::base::duration")]
    interval: Duration,
    #[serde(default = "crate::discovery::guard::confirm_after", with = "crate::base::duration")]
    confirm_after: Duration,
}

fn prefix() -> String {
    "services:".to_owned()
}

fn interval() -> Duration {
    Duration::from_secs(5)
}

/// No server is asked for all its keys more often.
const LEAST_INTERVAL: Duration = Duration::from_millis(100);

impl Settings {
    /// Reads a table. Relative paths are relative to the folder.
    ///
    /// # Errors
    /// The key that is wrong, and what was expected.
    fn read(table: toml::Table, folder: &Path) -> Result<Self, String> {
        let (client, raw): (registry::Settings, Raw) = keys::share(table)?;
        let Raw { prefix, interval, confirm_after } = raw;
        if interval < LEAST_INTERVAL {
            return Err("`interval`: expected \"100ms\" at least".to_owned());
        }
        Ok(Settings { client: client.at(folder), prefix, interval, confirm_after })
    }
}

/// Follows one server, or the masters of a cluster.
#[derive(Debug)]
struct Redis {
    client: Client,
    settings: Settings,
    /// What was known when the last conversation ended: of a cluster's master that is away nobody else can tell it.
    kept: Mutex<ledger::Ledger>,
    /// What the log has of each server.
    told: Mutex<BTreeMap<String, Heard>>,
}

/// How a server is followed, and why not better.
#[derive(Debug, PartialEq, Eq)]
struct Heard {
    way: servers::Way,
    why: String,
}

/// Reads a table of this kind.
pub(super) fn read(table: toml::Table, folder: &Path) -> Result<Build, String> {
    let settings = Settings::read(table, folder)?;
    Ok(Arc::new(move || {
        let (settings, client) = (settings.clone(), Client::new(settings.client.clone()));
        let confirm_after = settings.confirm_after;
        let redis = Redis { client, settings, kept: Mutex::default(), told: Mutex::default() };
        Ok(Arc::new(Followed::new(redis, confirm_after)))
    }))
}

impl Follow for Redis {
    async fn follow(&self, services: &mut Keepers) -> Result<Infallible, Failure> {
        let mut run = Run::start(self, services).await?;
        loop {
            run.step(services).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::SourceSettings;

    #[test]
    fn a_table_is_read() {
        let read = |text: &str| Settings::read(toml::from_str(text).unwrap(), Path::new("/etc/wayside"));
        let settings = read("address = 'redis://h:1'").unwrap();
        assert_eq!((settings.prefix.as_str(), settings.interval.as_secs()), ("services:", 5));
        assert_eq!(read("address = 'h:1'\nprefix = ''").unwrap().prefix, "");
        for (text, problem) in [
            ("address = 'h:1'\ninterval = '1ms'", "`interval`: expected \"100ms\" at least"),
            ("address = 'h:1'\nprefx = ''", "unknown field `prefx`, expected one of `address`, `sentinel`"),
            ("prefix = ''", "missing field `address`"),
        ] {
            let told = read(text).unwrap_err();
            assert!(told.contains(problem), "{text} gave {told}");
        }
    }

    #[test]
    fn nothing_that_is_shown_holds_a_secret() {
        let table = toml::from_str("kind = 'redis'\naddress = 'redis://me:hunter2@h:1'").unwrap();
        let settings = SourceSettings::parse(table, Path::new("/")).unwrap();
        let source = settings.build().unwrap();
        assert!(!format!("{settings:?} {source:?}").contains("hunter2"));
    }
}
