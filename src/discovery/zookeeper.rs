//! The `zookeeper` source: one node for each endpoint, at `PATH/SERVICE/NODE`, whose name or data is the address (as
//! Curator writes it, too). Watches come before reads, and are set again on each connection: what a server would have told
//! while nobody was connected is told by none.

mod nodes;
mod tree;

use super::keeper::{Follow, Followed, Keepers};
use super::registry::Failure;
use super::registry::members::{self, Members};
use super::registry::zookeeper::Session;
use super::{Build, Lookup};
use crate::base::keys;
use nodes::Nodes;
use serde::Deserialize;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long the session lasts without the gateway, if the server lets it: it is only there to read.
const SESSION: Duration = Duration::from_secs(3);
/// When what may not be read is tried again.
const REFUSED: Duration = Duration::from_secs(5);

/// What `[sources.NAME]` with `kind = "zookeeper"` says beside its members' keys.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// The node whose children are the services.
    path: Root,
    /// How long after a doubtful list it is read again.
    #[serde(default = "crate::discovery::guard::confirm_after", with = "crate::base::duration")]
    confirm_after: Duration,
}

/// A node's path, without a slash at its end: the root itself is empty.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct Root(String);

impl TryFrom<String> for Root {
    type Error = String;

    fn try_from(written: String) -> Result<Self, String> {
        let path = written.trim_end_matches('/');
        let good = path.is_empty() || path.strip_prefix('/').is_some_and(is_below);
        if !written.starts_with('/') || !good {
            return Err(format!("`{written}` is no path of a node, like `/services`"));
        }
        Ok(Root(path.to_owned()))
    }
}

/// A node's path from another one, as a server takes it.
fn is_below(path: &str) -> bool {
    let names = |name: &str| !matches!(name, "" | "." | "..");
    path.split('/').all(names) && !path.contains(char::is_control)
}

/// Follows services through one member at a time.
#[derive(Debug)]
struct ZooKeeper {
    members: Members,
    path: Root,
}

/// Reads a table of this kind.
pub(super) fn read(table: toml::Table, folder: &Path) -> Result<Build, String> {
    let (members, Settings { path, confirm_after }): (members::Settings, Settings) = keys::share(table)?;
    let members = members.at(folder);
    Ok(Arc::new(move || {
        let follow = ZooKeeper { members: Members::new(members.clone()), path: path.clone() };
        Ok(Arc::new(Followed::new(follow, confirm_after)))
    }))
}

impl Follow for ZooKeeper {
    async fn follow(&self, services: &mut Keepers) -> Result<Infallible, Failure> {
        let ended = self.converse(services).await;
        self.members.next();
        ended
    }
}

impl ZooKeeper {
    async fn converse(&self, services: &mut Keepers) -> Result<Infallible, Failure> {
        let mut session = self.open().await?;
        let mut nodes = self.nodes(services).await;
        if !nodes.watch(&mut session).await? {
            tracing::debug!(source = %services.source(), "no recursive watches: the server is older than 3.6");
            session = self.open().await?;
            nodes.watch_once();
        }
        let mut all = true;
        loop {
            nodes.read(&mut session, services).await?;
            let refused = nodes.offer(&session, services).await;
            let (some_refused, all_refused) = nodes.refused();
            match refused {
                Some(failure) if all_refused => return Err(failure),
                _ if all => services.whole().await,
                _ => services.alive().await,
            }
            let again = services.again();
            let until = if some_refused { again.min(Instant::now() + REFUSED) } else { again };
            nodes.wait(&mut session, services, until).await?;
            let now = Instant::now();
            all = now >= again;
            if now >= until {
                nodes.doubt(all);
                self.log_in(&mut session).await?;
            }
        }
    }

    async fn open(&self) -> Result<Session, Failure> {
        let settings = &self.members.settings;
        let mut session = Session::open(self.members.member(), settings.tls.as_ref(), SESSION, None).await?;
        self.log_in(&mut session).await?;
        Ok(session)
    }

    /// Says who the gateway is, with the password as it is now.
    async fn log_in(&self, session: &mut Session) -> Result<(), Failure> {
        match self.members.login().await? {
            Some((username, password)) => session.authenticate(&username, &password).await,
            None => Ok(()),
        }
    }

    async fn nodes(&self, services: &mut Keepers) -> Nodes {
        let mut nodes = Nodes::default();
        let lookups: Vec<Lookup> = services.lookups().cloned().collect();
        for lookup in lookups {
            if is_below(&lookup.registered_as) {
                nodes.add(format!("{}/{}", self.path.0, lookup.registered_as), lookup);
            } else {
                let problem = format!("`{}` is no name of a node", lookup.registered_as);
                services.refused(&lookup.service, &problem).await;
            }
        }
        nodes
    }
}

#[cfg(test)]
mod tests;
