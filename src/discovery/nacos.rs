//! The `nacos` source: the instances of each declared service, subscribed to on one connection. The server pushes whole
//! lists, half a second after a change; after a restart it knows only those that registered again.

mod instance;

use super::keeper::{Follow, Followed, Keepers};
use super::registry::members;
use super::registry::nacos::messages::ServiceInfo;
use super::registry::nacos::{Client, Heard, Session};
use super::registry::{Failure, Kind};
use super::{Build, Lookup};
use crate::base::keys;
use serde::Deserialize;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long the first list of a connection is held where it takes much away: a server that was started again knows no
/// instance until its owner comes back, and owners take their time.
const RETURN: Duration = Duration::from_secs(30);
/// When what may not be had is tried again.
const REFUSED: Duration = Duration::from_secs(5);

/// What `[sources.NAME]` with `kind = "nacos"` says beside its members' keys.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// The id of a namespace.
    #[serde(default = "namespace")]
    namespace: String,
    /// The group of services that name none.
    #[serde(default = "group")]
    group: String,
    /// Only instances of these clusters; none: of all.
    #[serde(default)]
    clusters: Vec<String>,
    /// How long after a doubtful list it is read again.
    #[serde(default = "crate::discovery::guard::confirm_after", with = "crate::base::duration")]
    confirm_after: Duration,
}

fn namespace() -> String {
    "public".to_owned()
}
fn group() -> String {
    "DEFAULT_GROUP".to_owned()
}
/// Follows services through one member at a time.
#[derive(Debug)]
struct Nacos {
    client: Client,
    settings: Settings,
}

/// Reads a table of this kind.
pub(super) fn read(table: toml::Table, folder: &Path) -> Result<Build, String> {
    let (members, settings): (members::Settings, Settings) = keys::share(table)?;
    let members = members.at(folder);
    Client::new(members.clone(), &settings.namespace)?;
    Ok(Arc::new(move || {
        let client = Client::new(members.clone(), &settings.namespace)?;
        let confirm_after = settings.confirm_after;
        Ok(Arc::new(Followed::new(Nacos { client, settings: settings.clone() }, confirm_after)))
    }))
}

impl Follow for Nacos {
    // A push that a server under load never sends is made good by asking; its own clients ask every 6 to 60 s beside.
    const QUIET: Duration = Duration::from_secs(30);

    async fn follow(&self, services: &mut Keepers) -> Result<Infallible, Failure> {
        let ended = self.converse(services).await;
        self.client.leave();
        ended
    }
}

/// A service as Nacos knows it.
#[derive(Debug)]
struct Subscribed {
    lookup: Lookup,
    group: String,
    name: String,
    /// Of the newest list.
    at: i64,
    refused: bool,
}

impl Nacos {
    async fn converse(&self, services: &mut Keepers) -> Result<Infallible, Failure> {
        let mut session = self.client.connect().await?;
        services.doubt_next(RETURN);
        let mut all: Vec<Subscribed> = services.lookups().map(|lookup| self.subscribed(lookup)).collect();
        loop {
            let due = services.again() <= Instant::now() || !all.iter().any(|service| service.refused);
            let refused = self.list(&session, &mut all, services, due).await?;
            match refused {
                Some(failure) if all.iter().all(|service| service.refused) => return Err(failure),
                _ if due => services.whole().await,
                _ => services.alive().await,
            }
            let some_refused = all.iter().any(|service| service.refused);
            let retry = Instant::now() + REFUSED;
            loop {
                // A list that is held makes it sooner.
                let again = services.again();
                match session.heard(if some_refused { again.min(retry) } else { again }).await? {
                    Heard::Changed(info) => self.changed(&info, &mut all, services).await,
                    Heard::Beat => services.alive().await,
                    Heard::Nothing => break,
                }
            }
            self.client.renew(&mut session, some_refused).await?;
        }
    }

    fn subscribed(&self, lookup: &Lookup) -> Subscribed {
        let (group, name) =
            lookup.registered_as.split_once("@@").unwrap_or((&self.settings.group, &lookup.registered_as));
        Subscribed { lookup: lookup.clone(), group: group.to_owned(), name: name.to_owned(), at: 0, refused: false }
    }

    /// Asks for every list, or for those that were refused. Some: something may not be had.
    async fn list(
        &self,
        session: &Session,
        all: &mut [Subscribed],
        services: &mut Keepers,
        due: bool,
    ) -> Result<Option<Failure>, Failure> {
        let mut refused = None;
        for service in all.iter_mut().filter(|service| due || service.refused) {
            match session.subscribe(&service.group, &service.name).await {
                Ok(info) => {
                    service.refused = false;
                    self.offer(service, &info, services).await;
                }
                Err(failure) if matches!(failure.kind, Kind::Denied | Kind::BadAnswer) => {
                    service.refused = true;
                    services.refused(&service.lookup.service, &failure.problem).await;
                    refused = Some(failure);
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(refused)
    }

    /// Pushes may come twice, and late.
    async fn changed(&self, info: &ServiceInfo, all: &mut [Subscribed], services: &mut Keepers) {
        let of = |service: &&mut Subscribed| info.service() == (&service.group, &service.name);
        for service in all.iter_mut().filter(of) {
            if info.last_ref_time >= service.at && !service.refused {
                self.offer(service, info, services).await;
            }
        }
    }

    async fn offer(&self, service: &mut Subscribed, info: &ServiceInfo, services: &mut Keepers) {
        service.at = info.last_ref_time;
        let Lookup { service: name, tags, .. } = &service.lookup;
        let observed = instance::observed(&info.hosts, &self.settings.clusters, tags, info.last_ref_time);
        services.offer(name, observed).await;
    }
}

#[cfg(test)]
mod tests;
