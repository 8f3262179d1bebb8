//! The `dns` source: the addresses of a name, or what SRV records say, asked again when what was answered has expired.
//! DNS tells nobody of a change, so one is seen half a TTL later on average.

mod look;
mod wanted;

use super::backoff::Backoff;
use super::keeper::{Keeper, Known, longest_wait};
use super::registry::dns::hosts::Family;
use super::registry::dns::{self as registry, Client};
use super::{Build, Lookup, Observed, Reports, Source};
use crate::base::keys;
use look::{How, Seen};
use serde::Deserialize;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use wanted::Wanted;

/// So many services are looked up at once.
const LOOKUPS: usize = 64;

/// `[sources.NAME]` with `kind = "dns"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Whom to ask.
    pub client: registry::Settings,
    /// Which addresses of a name count.
    pub family: Family,
    /// All SRV records count, not only those of the lowest priority that has addresses; the number is in `priority` of an
    /// endpoint's metadata.
    pub all_priorities: bool,
    /// What holds shorter than this, or is not said to hold, is asked again after it: 100 ms at least.
    pub min_ttl: Duration,
    /// What holds longer than this is asked again after it all the same.
    pub max_ttl: Duration,
    /// How old a doubt has to be at least before another answer confirms it.
    pub confirm_after: Duration,
}

/// What a table says beside its client's keys.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    family: Family,
    #[serde(default)]
    all_priorities: bool,
    #[serde(default = "min_ttl", with = "crate::base::duration")]
    min_ttl: Duration,
    #[serde(default = "max_ttl", with = "crate::base::duration")]
    max_ttl: Duration,
    #[serde(default = "crate::discovery::guard::confirm_after", with = "crate::base::duration")]
    confirm_after: Duration,
}

fn min_ttl() -> Duration {
    Duration::from_secs(1)
}
fn max_ttl() -> Duration {
    Duration::from_secs(30)
}
impl Settings {
    /// Reads a table.
    ///
    /// # Errors
    /// The key that is wrong, and what was expected.
    fn read(table: toml::Table) -> Result<Self, String> {
        let (client, raw): (registry::Settings, Raw) = keys::share(table)?;
        let Raw { family, all_priorities, min_ttl, max_ttl, confirm_after } = raw;
        let shown = |duration| humantime::format_duration(duration);
        if min_ttl < Duration::from_millis(100) {
            return Err(format!("`min_ttl`: {} is less than 100ms", shown(min_ttl)));
        }
        if max_ttl < min_ttl {
            return Err(format!("`max_ttl`: {} is less than `min_ttl` ({})", shown(max_ttl), shown(min_ttl)));
        }
        Ok(Settings { client, family, all_priorities, min_ttl, max_ttl, confirm_after })
    }
}

/// Can a service be looked up like this?
///
/// # Errors
/// The service's key that is wrong, and what to write.
pub(super) fn check(lookup: &Lookup) -> Result<(), String> {
    Wanted::of(lookup).map(drop)
}

/// Reads a table of this kind.
pub(super) fn read(table: toml::Table, _: &Path) -> Result<Build, String> {
    let settings = Settings::read(table)?;
    Ok(Arc::new(move || Ok(Arc::new(Dns::new(&settings)))))
}

/// Looks names up.
#[derive(Debug)]
pub struct Dns {
    lookups: Arc<Lookups>,
    known: Known,
}

/// What all lookups share.
#[derive(Debug)]
struct Lookups {
    client: Arc<Client>,
    settings: Settings,
    turns: Semaphore,
}

impl Dns {
    /// A source that asks these servers.
    pub fn new(settings: &Settings) -> Self {
        let client = Arc::new(Client::new(settings.client.clone()));
        let lookups = Lookups { client, settings: settings.clone(), turns: Semaphore::new(LOOKUPS) };
        Dns { lookups: Arc::new(lookups), known: Known::default() }
    }
}

impl Source for Dns {
    fn remember(&self, lookup: &Lookup, observed: &Observed) {
        self.known.remember(lookup, observed);
    }

    fn watch(&self, lookups: Vec<Lookup>, reports: Reports) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let (all, known) = (Arc::clone(&self.lookups), self.known.clone());
        Box::pin(async move {
            known.retain(&lookups);
            // The set ends its tasks when this future is dropped.
            let mut watches = tokio::task::JoinSet::new();
            for lookup in lookups {
                let keeper = Keeper::new(lookup, &known, all.settings.confirm_after, reports.clone());
                watches.spawn(run(Arc::clone(&all), keeper));
            }
            // None of them ends by itself, so this is a bug of ours: all begin anew. What was applied is known.
            match watches.join_next().await {
                Some(ended) => tracing::error!(source = %reports.source, problem = ?ended.err(), "a watch ended"),
                None => std::future::pending().await,
            }
        })
    }
}

/// The watch of one service: ask, report, wait until the answer has expired, for ever.
async fn run(all: Arc<Lookups>, mut keeper: Keeper) {
    let wanted = match Wanted::of(keeper.lookup()) {
        Ok(wanted) => wanted,
        Err(problem) => {
            keeper.failed(&problem).await;
            return std::future::pending().await;
        }
    };
    let how = How { family: all.settings.family, all_priorities: all.settings.all_priorities };
    let mut backoff = Backoff::seeded();
    loop {
        // Whoever waits for a turn has not begun yet: the deadline is the lookup's own. Nobody closes the turns.
        let turn = all.turns.acquire().await;
        let seen = look::look(&all.client, how, &wanted).await;
        drop(turn);
        match seen {
            Ok(Seen { observed, ttl }) => {
                backoff.reset();
                keeper.offer(observed).await;
                // Also while a list is held: before an answer has expired, a resolver would only repeat it.
                sleep(ttl.clamp(all.settings.min_ttl, all.settings.max_ttl)).await;
            }
            Err(failure) => {
                keeper.failed(&failure.problem).await;
                sleep(backoff.wait_within(longest_wait(&failure))).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
