//! One service as ZooKeeper has it: a node with a child for each endpoint. What was read of it is kept, so that a change
//! to one child costs one read.

use super::super::listing::{self, Listing};
use super::super::registry::zookeeper::Session;
use super::super::registry::zookeeper::message::{Answer, Refusal, Request, Watch};
use super::super::registry::{Failure, Kind};
use super::super::{Entry, Observed};
use std::collections::{BTreeMap, BTreeSet};

/// So many requests are on their way at once.
const AT_ONCE: usize = 256;
/// Changes to more children than this are read as a whole.
const MOST_CHANGED: usize = 1024;
/// So many children are read; a list has room for no more.
const MOST: usize = 65_536;

/// A service's node and its children.
#[derive(Debug)]
pub(super) struct Tree {
    path: String,
    /// Each change to a node is told once, so that every read asks for the next one: servers before 3.6.
    once: bool,
    /// By name.
    children: BTreeMap<String, Result<Entry, String>>,
    /// Children that there was no room for.
    beyond: usize,
    stale: Stale,
}

/// What of it has to be read.
#[derive(Debug)]
enum Stale {
    All,
    /// These children.
    Some(BTreeSet<String>),
}

/// What a read gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// All of it is known.
    Whole,
    /// It may not be read.
    Refused(Refusal),
}

impl Tree {
    pub(super) fn new(path: String) -> Self {
        Tree { path, once: false, children: BTreeMap::new(), beyond: 0, stale: Stale::All }
    }

    /// The path of its node.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Changes to it are told from now on. False: the server knows no such watch, and ends the session.
    ///
    /// # Errors
    /// The connection failed.
    pub(super) async fn watch(&mut self, session: &mut Session) -> Result<bool, Failure> {
        self.stale = Stale::All;
        match session.ask(Request::Follow(&self.path)).await? {
            Answer::Refused(Refusal::Unknown) => Ok(false),
            // Nobody needs a right for this; if one says so, the read will tell.
            Answer::Refused(Refusal::NotAllowed) => Ok(true),
            Answer::Refused(refusal) => Err(self.trouble(session, refusal)),
            _ => Ok(true),
        }
    }

    /// Changes are told once after each read.
    pub(super) fn watch_once(&mut self) {
        (self.once, self.stale) = (true, Stale::All);
    }

    /// All of it has to be read again.
    pub(super) fn doubt(&mut self) {
        self.stale = Stale::All;
    }

    /// Its node, or this child of it, may have changed.
    pub(super) fn changed(&mut self, child: Option<&str>) {
        match (&mut self.stale, child) {
            (Stale::Some(changed), Some(child)) if !self.once && changed.len() < MOST_CHANGED => {
                changed.insert(child.to_owned());
            }
            _ => self.stale = Stale::All,
        }
    }

    /// Something has to be read.
    pub(super) fn is_stale(&self) -> bool {
        !matches!(&self.stale, Stale::Some(changed) if changed.is_empty())
    }

    /// Reads what has to be read.
    ///
    /// # Errors
    /// The connection failed.
    pub(super) async fn read(&mut self, session: &mut Session) -> Result<Found, Failure> {
        let changed: Vec<String> = match &mut self.stale {
            Stale::Some(changed) => std::mem::take(changed).into_iter().collect(),
            Stale::All => {
                self.children.clear();
                self.beyond = 0;
                match self.names(session).await? {
                    Ok(names) => names,
                    Err(refusal) => {
                        self.stale = Stale::Some(BTreeSet::new());
                        return Ok(Found::Refused(refusal));
                    }
                }
            }
        };
        for names in changed.chunks(AT_ONCE) {
            self.read_children(session, names).await?;
        }
        if matches!(self.stale, Stale::All) {
            self.stale = Stale::Some(BTreeSet::new());
        }
        Ok(Found::Whole)
    }

    /// The names of its children; a node that is not there has none.
    async fn names(&mut self, session: &mut Session) -> Result<Result<Vec<String>, Refusal>, Failure> {
        let watch = self.each();
        loop {
            match session.ask(Request::Children(&self.path, watch)).await? {
                Answer::Children(mut names) => {
                    self.beyond = names.len().saturating_sub(MOST);
                    names.truncate(MOST);
                    return Ok(Ok(names));
                }
                Answer::Refused(Refusal::NoNode) if self.once => {
                    // This one tells when it is made, which may have been just now.
                    if session.ask(Request::Exists(&self.path, watch)).await? == Answer::Refused(Refusal::NoNode) {
                        return Ok(Ok(Vec::new()));
                    }
                }
                Answer::Refused(Refusal::NoNode) => return Ok(Ok(Vec::new())),
                Answer::Refused(refusal @ Refusal::NotAllowed) => return Ok(Err(refusal)),
                Answer::Refused(refusal) => return Err(self.trouble(session, refusal)),
                _ => return Err(session.failure(Kind::BadAnswer, "answers something else than was asked")),
            }
        }
    }

    async fn read_children(&mut self, session: &mut Session, names: &[String]) -> Result<(), Failure> {
        let paths: Vec<String> = names.iter().map(|name| format!("{}/{name}", self.path)).collect();
        let requests: Vec<Request<'_>> = paths.iter().map(|path| Request::Get(path, self.each())).collect();
        session.send(&requests).await?;
        for name in names {
            match session.answer().await? {
                Answer::Data(data) => {
                    self.children.insert(name.clone(), listing::instance(name.as_bytes(), &data));
                }
                // It went since.
                Answer::Refused(Refusal::NoNode) => drop(self.children.remove(name)),
                Answer::Refused(refusal) => drop(self.children.insert(name.clone(), Err(refusal.to_string()))),
                _ => return Err(session.failure(Kind::BadAnswer, "answers something else than was asked")),
            }
        }
        Ok(())
    }

    fn each(&self) -> Watch {
        if self.once { Watch::Once } else { Watch::No }
    }

    fn trouble(&self, session: &Session, refusal: Refusal) -> Failure {
        session.failure(Kind::BadAnswer, format!("{}: {refusal}", self.path))
    }

    /// What is known of it, of those that have all these tags.
    pub(super) fn observed(&self, tags: &[String]) -> Observed {
        let mut listing = Listing::default();
        for (name, entry) in &self.children {
            if !entry.as_ref().is_ok_and(|entry| !listing::has_tags(entry, tags)) {
                listing.add(name, entry.clone());
            }
        }
        for _ in 0..self.beyond {
            listing.add("more", Err(format!("there are more than {MOST} nodes")));
        }
        listing.observed("")
    }
}
