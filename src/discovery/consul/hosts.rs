//! Host names that stand for addresses in Consul's answers: looked up in DNS, and looked up again while they stand there.

use crate::discovery::registry::dns::hosts::{Family, hosts};
use crate::discovery::registry::dns::{Client, Settings};
use hickory_resolver::proto::rr::Name;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long what DNS says is kept, at least and at most.
const LEAST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(30);
/// When a name is looked up again after a failure.
const AGAIN: Duration = Duration::from_secs(5);
/// So many names of one answer are looked up, and so many are kept.
const NAMES: usize = 1_000;
const KEPT: usize = 10_000;

/// The addresses of names as they are written; of one that has none, why.
pub(super) type Resolved = BTreeMap<String, Result<BTreeSet<IpAddr>, String>>;

/// Looks names up for all services of a source.
#[derive(Debug)]
pub(super) struct Hosts {
    client: Arc<Client>,
    kept: Mutex<BTreeMap<String, Kept>>,
}

#[derive(Debug, Clone)]
struct Kept {
    ips: Result<BTreeSet<IpAddr>, String>,
    until: Instant,
}

impl Hosts {
    /// Asks these servers.
    pub(super) fn new(settings: Settings) -> Self {
        Hosts { client: Arc::new(Client::new(settings)), kept: Mutex::default() }
    }

    /// The addresses of these names, and when they are to be looked up again; none: there are no names. Where DNS cannot
    /// say, what it said last stays.
    pub(super) async fn resolve(&self, names: &BTreeSet<&str>) -> (Resolved, Option<Instant>) {
        let now = Instant::now();
        let known = self.known(names);
        let fresh = |name: &str| known.get(name).is_some_and(|kept| kept.until > now);
        let lacking: Vec<&str> = names.iter().copied().filter(|name| !fresh(name)).take(NAMES).collect();
        let mut all = known.clone();
        let mut asked: BTreeMap<Name, Vec<&str>> = BTreeMap::new();
        for name in lacking {
            match absolute(name) {
                Some(absolute) => asked.entry(absolute).or_default().push(name),
                None => {
                    let kept = Kept { ips: Err(told(name, "is no name")), until: now + MOST };
                    all.insert(name.to_owned(), kept);
                }
            }
        }
        let found = hosts(&self.client, Family::Both, asked.keys().cloned().collect(), self.client.deadline()).await;
        let now = Instant::now();
        for (absolute, host) in found {
            for name in asked.get(&absolute).into_iter().flatten() {
                let before = known.get(*name).map(|kept| &kept.ips);
                let kept = match &host {
                    Ok(host) if host.ips.is_empty() => {
                        Kept { ips: Err(told(name, "has no address")), until: now + AGAIN }
                    }
                    Ok(host) => {
                        let holds = Duration::from_secs(host.ttl.into()).clamp(LEAST, MOST);
                        Kept { ips: Ok(host.ips.clone()), until: now + holds }
                    }
                    Err(failure) => {
                        let failed = || Err(told(name, &format!("cannot be looked up: {}", failure.problem)));
                        let ips = before.filter(|ips| ips.is_ok()).cloned().unwrap_or_else(failed);
                        Kept { ips, until: now + AGAIN }
                    }
                };
                all.insert((*name).to_owned(), kept);
            }
        }
        self.keep(&all, now);
        // With more names than are looked up, those that are lacking are no reason to look again.
        let again = all.values().map(|kept| kept.until).min();
        (all.into_iter().map(|(name, kept)| (name, kept.ips)).collect(), again)
    }

    fn known(&self, names: &BTreeSet<&str>) -> BTreeMap<String, Kept> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        names.iter().filter_map(|name| Some(((*name).to_owned(), kept.get(*name)?.clone()))).collect()
    }

    fn keep(&self, all: &BTreeMap<String, Kept>, now: Instant) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() > KEPT {
            kept.retain(|_, kept| kept.until > now);
        }
        if kept.len() <= KEPT {
            kept.extend(all.iter().map(|(name, kept)| (name.clone(), kept.clone())));
        }
    }
}

fn told(name: &str, what: &str) -> String {
    format!("`{name}` {what}")
}

/// No search list applies.
fn absolute(name: &str) -> Option<Name> {
    let mut name = Name::from_utf8(name).or_else(|_| Name::from_ascii(name)).ok()?;
    name.set_fqdn(true);
    (!name.is_root() && name.len() <= 255).then_some(name)
}
