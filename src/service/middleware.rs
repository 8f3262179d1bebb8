//! Middleware, `[[middleware]]`: what happens to requests on their way, and to their responses, before anybody is asked
//! where they go. Each table says which requests it fits, as `[[routes]]` do, and has one kind, in a file of its own.

pub mod api_key;
pub mod basic;
pub mod compress;
pub mod cors;
pub mod forward_auth;
pub mod jwt;
mod kind;
mod live;
pub mod mirror;
pub mod redirect_https;
pub mod request_id;
mod written;

use super::record::By;
use super::route::{Index, Match};
use crate::http::request::Head;
use jwt::KeySet;
pub use kind::Kind;
pub use live::{Live, Outcome, UnderWay};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
pub use written::{Read, Written};

/// The most tables. A request looks only at those whose host and path it has.
const MOST: usize = 1000;

/// One table that was checked.
#[derive(Debug, Clone)]
pub struct Middleware {
    /// For people.
    pub name: Arc<str>,
    /// Which requests it fits.
    pub matcher: Match,
    /// What is done to them.
    pub kind: Kind,
    /// What came of it.
    pub live: Arc<Live>,
}

/// All of it, in the order of the file.
#[derive(Debug, Default)]
pub struct Chain {
    /// One after the other.
    pub all: Vec<Middleware>,
    /// Of their rules.
    index: Index,
    /// Headers in which the gateway tells endpoints what it has verified: no client's request keeps them, whichever
    /// middleware fits it. In lower case, with dashes for underscores.
    pub facts: Vec<String>,
    /// All that was read beside the configuration itself.
    pub files: Vec<PathBuf>,
    /// Of what stood in them.
    pub digest: String,
}

impl Chain {
    /// Checks all tables, and reads the files that they name, which are relative to `folder`. `is_service`: there is a
    /// service of this name, or may be.
    ///
    /// # Errors
    /// The first that is wrong: its number and key, and what to do.
    pub fn check(written: Vec<Written>, folder: &Path, is_service: impl Fn(&str) -> bool) -> Result<Self, String> {
        if written.len() > MOST {
            return Err(format!("there are {} tables, and {MOST} are the most", written.len()));
        }
        let mut chain = Chain::default();
        let (mut read, mut names) = (Read::default(), HashSet::new());
        for (index, written) in written.into_iter().enumerate() {
            let at = |problem: String| format!("number {}: {problem}", index + 1);
            let is_named = written.name.is_some();
            let mut middleware = written.check(folder, &mut read, &mut chain.facts, &is_service).map_err(at)?;
            if is_named && names.contains(&middleware.name) {
                return Err(at(format!(
                    "there is another one named `{}`; give this one another `name`",
                    middleware.name
                )));
            }
            let plain = Arc::clone(&middleware.name);
            for number in 2.. {
                if names.insert(Arc::clone(&middleware.name)) {
                    break;
                }
                middleware.name = format!("{plain} ({number})").into();
            }
            chain.all.push(middleware);
        }
        (chain.files, chain.digest) = (read.files, read.digest);
        chain.index = Index::of(chain.all.iter().map(|middleware| &middleware.matcher));
        Ok(chain)
    }

    /// The same, which goes on with what `before` has counted under the same names, and with the keys that it fetched.
    #[must_use]
    pub fn after(&self, before: &Chain) -> Self {
        let lives: HashMap<&str, &Middleware> = before.all.iter().map(|one| (&*one.name, one)).collect();
        let mut sets: Vec<Arc<KeySet>> = before.key_sets().cloned().collect();
        let goes_on = |one: &Middleware| {
            let before = lives.get(&*one.name).filter(|before| before.kind.is_like(&one.kind));
            let live = Arc::clone(&before.unwrap_or(&one).live);
            let mut kind = one.kind.clone();
            if let Kind::Jwt(jwt) = &mut kind
                && jwt.keys.remote.is_some()
            {
                match sets.iter().find(|set| set.remote == jwt.keys.remote) {
                    Some(same) => *jwt = Arc::new(jwt.with(Arc::clone(same))),
                    None => sets.push(Arc::clone(&jwt.keys)),
                }
            }
            Middleware { kind, live, ..one.clone() }
        };
        let all: Vec<Middleware> = self.all.iter().map(goes_on).collect();
        let index = Index::of(all.iter().map(|middleware| &middleware.matcher));
        Chain { all, index, facts: self.facts.clone(), files: self.files.clone(), digest: self.digest.clone() }
    }

    /// Keys that are fetched by URL.
    pub fn key_sets(&self) -> impl Iterator<Item = &Arc<KeySet>> {
        self.all.iter().filter_map(|one| one.kind.key_set())
    }

    /// In order, those that can be about a request of this host and path.
    pub fn about<'a>(&'a self, head: &Head) -> impl Iterator<Item = &'a Middleware> + use<'a> {
        self.index.candidates(head).filter_map(|number| self.all.get(number))
    }

    /// There is nothing to do for any request.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// A client's header of this name would pass for the gateway's own word.
    pub fn is_fact(&self, name: &[u8]) -> bool {
        let same = |(fact, byte): (u8, &u8)| fact == *byte || (fact, *byte) == (b'-', b'_');
        self.facts.iter().any(|fact| fact.len() == name.len() && fact.bytes().zip(name).all(same))
    }
}

impl Middleware {
    /// As records name it.
    pub fn by(&self) -> By {
        By { name: Arc::clone(&self.name), kind: self.kind.name() }
    }
}

#[cfg(test)]
mod tests;
