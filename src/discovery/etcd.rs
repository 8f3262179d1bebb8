//! The `etcd` source: keys `PREFIX NAME/ADDRESS`, with a value or without one, of every declared service. All is listed, then
//! watched from that revision on; the watch proves every few seconds that it lives.

use super::keeper::{Follow, Followed, Keepers};
use super::listing::Listing;
use super::registry::etcd::messages::{Event, KeyValue};
use super::registry::etcd::{Client, Prefix, Range, Session, Told};
use super::registry::members;
use super::{Build, registry::Failure};
use crate::base::keys;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout_at;

/// What a table says beside its client's keys.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(default = "prefix")]
    prefix: String,
    #[serde(default = "crate::discovery::guard::confirm_after", with = "crate::base::duration")]
    confirm_after: Duration,
}

fn prefix() -> String {
    "/services/".to_owned()
}
/// Reads a table of this kind.
pub(super) fn read(table: toml::Table, folder: &Path) -> Result<Build, String> {
    let (members, settings): (members::Settings, Settings) = keys::share(table)?;
    let members = members.at(folder);
    Ok(Arc::new(move || {
        let etcd = Etcd { client: Client::new(members.clone()), prefix: settings.prefix.clone() };
        Ok(Arc::new(Followed::new(etcd, settings.confirm_after)))
    }))
}

#[derive(Debug)]
struct Etcd {
    client: Client,
    prefix: String,
}

/// A service as etcd holds it.
struct Held {
    service: Arc<str>,
    tags: Vec<String>,
    prefix: Prefix,
    /// What follows the prefix, with its value.
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Of the newest change that is in it.
    revision: i64,
}

impl Held {
    fn list(&mut self, range: Range) {
        self.revision = range.revision;
        self.entries.clear();
        for KeyValue { key, value, .. } in range.kvs {
            if let Some(name) = self.prefix.strip(&key) {
                self.entries.insert(name.to_vec(), value);
            }
        }
    }

    /// Takes changes that are not in it yet.
    fn change(&mut self, events: Vec<Event>) {
        let listed = self.revision;
        for event in events {
            let Some(KeyValue { key, value, mod_revision }) = event.kv else { continue };
            let Some(name) = self.prefix.strip(&key).filter(|_| mod_revision > listed) else { continue };
            match event.kind {
                0 => drop(self.entries.insert(name.to_vec(), value)),
                _ => drop(self.entries.remove(name)),
            }
            self.revision = self.revision.max(mod_revision);
        }
    }

    async fn offer(&self, services: &mut Keepers) {
        let mut listing = Listing::default();
        self.entries.iter().for_each(|(name, value)| listing.add_value(name, value, &self.tags));
        services.offer(&self.service, listing.observed(self.revision.to_string())).await;
    }
}

impl Follow for Etcd {
    async fn follow(&self, services: &mut Keepers) -> Result<Infallible, Failure> {
        let mut session = self.client.connect().await?;
        let followed = self.follow_on(&mut session, services).await;
        self.client.leave();
        followed
    }
}

impl Etcd {
    async fn follow_on(&self, session: &mut Session, services: &mut Keepers) -> Result<Infallible, Failure> {
        let mut all: Vec<Held> = services.lookups().map(|lookup| self.held(lookup)).collect();
        list(session, &mut all, services).await?;
        let from: Vec<_> = all.iter().map(|held| (held.prefix.clone(), held.revision + 1)).collect();
        let mut watch = session.watch(&from).await?;
        loop {
            let Ok(told) = timeout_at(services.again(), watch.next()).await else {
                list(session, &mut all, services).await?;
                continue;
            };
            match told? {
                Told::Nothing => services.alive().await,
                Told::Changes(place, events) => {
                    if let Some(held) = all.get_mut(place) {
                        held.change(events);
                        held.offer(services).await;
                    }
                }
            }
        }
    }

    fn held(&self, lookup: &super::Lookup) -> Held {
        Held {
            service: Arc::clone(&lookup.service),
            tags: lookup.tags.clone(),
            prefix: Prefix::new(format!("{}{}/", self.prefix, lookup.registered_as)),
            entries: BTreeMap::new(),
            revision: 0,
        }
    }
}

/// Reads everything.
async fn list(session: &mut Session, all: &mut [Held], services: &mut Keepers) -> Result<(), Failure> {
    let prefixes: Vec<Prefix> = all.iter().map(|held| held.prefix.clone()).collect();
    for (held, range) in all.iter_mut().zip(session.ranges(&prefixes).await?) {
        held.list(range);
        held.offer(services).await;
    }
    services.whole().await;
    Ok(())
}
