//! One conversation with the servers: what changes is read and handed over, until there is nobody left to talk with.

mod masters;

use super::Redis;
use super::ledger::Ledger;
use super::names::Names;
use super::read::{self, AT_ONCE, Reading};
use super::servers::{Server, Way};
use crate::discovery::Lookup;
use crate::discovery::keeper::Keepers;
use crate::discovery::registry::redis::{Master, News, Pushes};
use crate::discovery::registry::{Failure, Kind};
use std::collections::{BTreeSet, HashSet};
use std::net::SocketAddr;
use std::sync::PoisonError;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Between two pings.
const BEAT: Duration = Duration::from_secs(1);
/// How often it is asked who the masters are; and how often while one of them is missing.
const LOOK: Duration = Duration::from_secs(30);
const LOOK_FOR_MISSING: Duration = Duration::from_secs(1);
/// How often all is listed where a server tells of changes, but not of all that there are.
const SAFETY: Duration = Duration::from_secs(30);
/// Between two lists, whatever is said to have changed.
const PAUSE: Duration = Duration::from_millis(100);

/// A conversation.
pub(super) struct Run<'a> {
    source: &'a Redis,
    lookups: Vec<Lookup>,
    names: Names,
    pushes: Pushes,
    servers: Vec<Server>,
    /// Masters of a cluster that cannot be followed now, and why.
    missing: Vec<(Master, Failure)>,
    ledger: Ledger,
    /// Keys are on their way from one server to another.
    unsettled: bool,
    beat: Instant,
    look: Instant,
    looked: Instant,
    /// When all was listed, and how long that took.
    listed: (Instant, Duration),
    /// All may have changed.
    flushed: bool,
}

impl Drop for Run<'_> {
    /// What was known of masters that are away is for the next one.
    fn drop(&mut self) {
        *self.source.kept.lock().unwrap_or_else(PoisonError::into_inner) = std::mem::take(&mut self.ledger);
    }
}

impl<'a> Run<'a> {
    /// Connects with all servers, and reads every list.
    pub(super) async fn start(source: &'a Redis, services: &mut Keepers) -> Result<Self, Failure> {
        let lookups: Vec<Lookup> = services.lookups().cloned().collect();
        let names = Names::new(&source.settings.prefix, lookups.iter().map(|lookup| lookup.registered_as.clone()));
        let masters = source.client.find().await?;
        let ledger = std::mem::take(&mut *source.kept.lock().unwrap_or_else(PoisonError::into_inner));
        let now = Instant::now();
        let (pushes, servers, missing, listed) = (Pushes::default(), vec![], vec![], (now, Duration::ZERO));
        let (beat, look) = (now + BEAT, now + LOOK);
        let (unsettled, looked, flushed) = (false, now, false);
        let mut run = Run {
            source,
            lookups,
            names,
            pushes,
            servers,
            missing,
            ledger,
            unsettled,
            beat,
            look,
            looked,
            listed,
            flushed,
        };
        run.connect(masters, services).await?;
        run.list(services).await?;
        Ok(run)
    }

    /// Takes what comes next.
    pub(super) async fn step(&mut self, services: &mut Keepers) -> Result<(), Failure> {
        let list_at = self.list_at(services);
        let end_at = self.ledger.next_end().unwrap_or(list_at);
        tokio::select! {
            news = self.pushes.next() => self.take(news, services).await,
            () = sleep_until(end_at) => {
                let ended = self.ledger.ended(Instant::now(), AT_ONCE);
                self.read(ended, services).await
            }
            () = sleep_until(self.beat) => self.ping(services).await,
            () = sleep_until(self.look) => self.look(services).await,
            () = sleep_until(list_at) => self.list(services).await,
        }
    }

    /// When all has to be listed again.
    fn list_at(&self, services: &Keepers) -> Instant {
        let (at, took) = self.listed;
        if self.flushed {
            return at + PAUSE;
        }
        let every = match self.servers.iter().map(|server| server.way).max() {
            None | Some(Way::Tracking) => return services.again(),
            Some(Way::Notifications) => SAFETY,
            Some(Way::MaybeNotifications | Way::Scan) => self.source.settings.interval,
        };
        // A server with very many keys is not kept busy by this alone.
        services.again().min(at + every.max(took * 10))
    }

    /// Reads everything.
    async fn list(&mut self, services: &mut Keepers) -> Result<(), Failure> {
        self.flushed = false;
        self.list_but(&[], services).await
    }

    /// Reads everything but what these have, which are followed already.
    async fn list_but(&mut self, known: &[Master], services: &mut Keepers) -> Result<(), Failure> {
        let started = Instant::now();
        let mut ledger = Ledger::default();
        let mut elsewhere = BTreeSet::new();
        let (mut read, mut lost) = (Vec::new(), Vec::new());
        for server in self.servers.iter().filter(|server| !known.contains(&server.master)) {
            match list_one(server, &self.names, &mut ledger, &mut elsewhere).await {
                Ok(()) => read.push(server.master.clone()),
                Err(failure) => lost.push((server.master.address.clone(), failure)),
            }
        }
        for (address, failure) in lost {
            self.lose(&address, failure)?;
        }
        if !elsewhere.is_empty() {
            self.unsettle();
        }
        let is_read = |key: &[u8]| read.iter().any(|master| master.holds(key)) && !elsewhere.contains(key);
        let unknown = |key: &[u8]| self.names.of(key).is_some() && !is_read(key);
        ledger.take_over(std::mem::take(&mut self.ledger), unknown);
        self.ledger = ledger;
        self.ledger.whole |= self.missing.is_empty();
        for lookup in &self.lookups {
            self.offer(lookup, services).await;
        }
        self.listed = (Instant::now(), started.elapsed());
        self.tell_how_it_is(services).await;
        Ok(())
    }

    /// Hands over a service's list. Where a part was never read, what was known before this conversation stays in it.
    async fn offer(&self, lookup: &Lookup, services: &mut Keepers) {
        let mut list = self.ledger.list(&lookup.registered_as, &lookup.tags);
        if !self.ledger.whole
            && let Some(known) = services.known(&lookup.service)
        {
            let there: HashSet<SocketAddr> = list.endpoints.iter().map(|entry| entry.address).collect();
            list.endpoints.extend(known.endpoints.into_iter().filter(|entry| !there.contains(&entry.address)));
        }
        services.offer(&lookup.service, list).await;
    }

    async fn take(&mut self, news: News, services: &mut Keepers) -> Result<(), Failure> {
        let mut lost = false;
        for connection in news.ended {
            let Some(server) = self.servers.iter().find(|server| server.has(connection)) else { continue };
            let address = server.master.address.clone();
            let problem = format!("{address}: the connection has ended");
            self.lose(&address, Failure::new(Kind::Unreachable, problem))?;
            lost = true;
        }
        if lost {
            self.tell_how_it_is(services).await;
        }
        self.flushed |= news.all;
        self.read(news.keys.into_iter().collect(), services).await
    }

    /// Reads these keys, and hands over the lists that have changed.
    async fn read(&mut self, keys: Vec<Vec<u8>>, services: &mut Keepers) -> Result<(), Failure> {
        let mut changed = BTreeSet::new();
        let mut lost = Vec::new();
        let mut elsewhere = false;
        for server in &self.servers {
            let own = |key: &&Vec<u8>| self.names.of(key).is_some() && server.master.holds(key);
            let own: Vec<Vec<u8>> = keys.iter().filter(own).cloned().collect();
            for keys in own.chunks(AT_ONCE) {
                let found = match read::read(&server.connection, &self.names, keys, server.parts).await {
                    Ok(found) => found,
                    Err(failure) => {
                        lost.push((server.master.address.clone(), failure));
                        break;
                    }
                };
                for (key, found) in keys.iter().zip(found) {
                    let Some(name) = self.names.of(key) else { continue };
                    let now = match found {
                        Reading::Held(held) => Some(held),
                        Reading::Gone => None,
                        Reading::Elsewhere => {
                            elsewhere = true;
                            continue;
                        }
                    };
                    if self.ledger.put(name.service, key, now) {
                        changed.insert(name.service.to_owned());
                    }
                }
            }
        }
        if elsewhere {
            self.unsettle();
        }
        for lookup in self.lookups.iter().filter(|lookup| changed.contains(&lookup.registered_as)) {
            self.offer(lookup, services).await;
        }
        self.lost(lost, services).await
    }

    async fn ping(&mut self, services: &mut Keepers) -> Result<(), Failure> {
        let mut lost = Vec::new();
        for server in &mut self.servers {
            if let Err(failure) = server.ping().await {
                lost.push((server.master.address.clone(), failure));
            }
        }
        self.lost(lost, services).await?;
        if self.missing.is_empty() {
            services.alive().await;
        }
        self.beat = Instant::now() + BEAT;
        Ok(())
    }
}

/// Reads all of one server.
async fn list_one(
    server: &Server,
    names: &Names,
    ledger: &mut Ledger,
    elsewhere: &mut BTreeSet<Vec<u8>>,
) -> Result<(), Failure> {
    let keys = read::look(&server.connection, names).await?;
    for keys in keys.chunks(AT_ONCE) {
        let found = read::read(&server.connection, names, keys, server.parts).await?;
        for (key, found) in keys.iter().zip(found) {
            match (names.of(key), found) {
                (Some(name), Reading::Held(held)) => {
                    ledger.put(name.service, key, Some(held));
                }
                (_, Reading::Elsewhere) => {
                    elsewhere.insert(key.clone());
                }
                _ => {}
            }
        }
    }
    Ok(())
}
