//! The nodes that one session follows: what changed is noted, read, and handed over.

use super::super::Lookup;
use super::super::keeper::Keepers;
use super::super::registry::zookeeper::{Heard, Session};
use super::super::registry::{Failure, Kind};
use super::tree::{Found, Tree};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// So many changes are taken in before what changed is read.
const AT_ONCE: usize = 1024;
/// After a change, what changes with it: who wipes a registry does so one entry after the other.
const SETTLE: Duration = Duration::from_millis(5);
/// What changes while it is read is read, too, so many times.
const ROUNDS: usize = 4;

/// A node, and what is read from it.
#[derive(Debug)]
struct Node {
    tree: Tree,
    lookups: Vec<Lookup>,
    /// What the newest read gave, until it is handed over.
    found: Option<Found>,
    /// It may not be read.
    refused: bool,
}

/// What is followed, by path.
#[derive(Debug, Default)]
pub(super) struct Nodes(BTreeMap<String, Node>);

impl Nodes {
    /// Follows the node at this path, too, for this lookup.
    pub(super) fn add(&mut self, path: String, lookup: Lookup) {
        let tree = Tree::new(path.clone());
        let node = || Node { tree, lookups: Vec::new(), found: None, refused: false };
        self.0.entry(path).or_insert_with(node).lookups.push(lookup);
    }

    /// Changes to all of them are told from now on. False: the server knows no such watches, and ends the session.
    ///
    /// # Errors
    /// The connection failed.
    pub(super) async fn watch(&mut self, session: &mut Session) -> Result<bool, Failure> {
        for node in self.0.values_mut() {
            if !node.tree.watch(session).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Each change is told once, to whoever reads and asks for it.
    pub(super) fn watch_once(&mut self) {
        self.0.values_mut().for_each(|node| node.tree.watch_once());
    }

    /// All has to be read again, or what was refused.
    pub(super) fn doubt(&mut self, all: bool) {
        self.0.values_mut().filter(|node| all || node.refused).for_each(|node| node.tree.doubt());
    }

    /// Something may not be read; nothing may.
    pub(super) fn refused(&self) -> (bool, bool) {
        let refused = self.0.values().filter(|node| node.refused).count();
        (refused > 0, refused > 0 && refused == self.0.len())
    }

    /// Reads what is stale. An answer comes after all changes that were made before it, so that what one transaction
    /// changed is read as a whole; but changes that never end hold nothing up.
    ///
    /// # Errors
    /// The connection failed.
    pub(super) async fn read(&mut self, session: &mut Session, services: &mut Keepers) -> Result<(), Failure> {
        for _ in 0..ROUNDS {
            let mut quiet = true;
            for node in self.0.values_mut().filter(|node| node.tree.is_stale()) {
                node.found = Some(node.tree.read(session).await?);
                quiet = false;
            }
            if quiet {
                break;
            }
            self.note(session, services, Instant::now()).await?;
        }
        Ok(())
    }

    /// Hands over what was read. Some: something may not be read.
    pub(super) async fn offer(&mut self, session: &Session, services: &mut Keepers) -> Option<Failure> {
        let mut refused = None;
        for node in self.0.values_mut() {
            let Some(found) = node.found.take() else { continue };
            node.refused = found != Found::Whole;
            if let Found::Refused(refusal) = found {
                let failure = session.failure(Kind::Denied, format!("{}: {refusal}", node.tree.path()));
                for Lookup { service, .. } in &node.lookups {
                    services.refused(service, &failure.problem).await;
                }
                refused = Some(failure);
            } else {
                for Lookup { service, tags, .. } in &node.lookups {
                    services.offer(service, node.tree.observed(tags)).await;
                }
            }
        }
        refused
    }

    /// Waits for a change, no longer than `until`, and a moment longer for those that come with it.
    ///
    /// # Errors
    /// The connection failed.
    pub(super) async fn wait(
        &mut self,
        session: &mut Session,
        services: &mut Keepers,
        until: Instant,
    ) -> Result<(), Failure> {
        while !self.0.values().any(|node| node.tree.is_stale()) {
            match session.heard(until).await? {
                Heard::Change(path) => self.changed(&path),
                Heard::Beat => services.alive().await,
                Heard::Nothing => return Ok(()),
            }
        }
        self.note(session, services, Instant::now() + SETTLE).await
    }

    /// Notes what changes until then.
    async fn note(&mut self, session: &mut Session, services: &mut Keepers, until: Instant) -> Result<(), Failure> {
        for _ in 0..AT_ONCE {
            match session.heard(until).await? {
                Heard::Change(path) => self.changed(&path),
                Heard::Beat => services.alive().await,
                Heard::Nothing => break,
            }
        }
        Ok(())
    }

    fn changed(&mut self, path: &str) {
        if let Some(node) = self.0.get_mut(path) {
            node.tree.changed(None);
        }
        // A service's node may be another's child.
        if let Some((parent, child)) = path.rsplit_once('/')
            && let Some(node) = self.0.get_mut(parent)
        {
            node.tree.changed(Some(child));
        }
    }
}
