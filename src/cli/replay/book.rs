//! What the entries of a file refer to, as far as it was read.

use crate::service::catalog::Catalog;
use crate::service::record::taped::About;
use crate::telemetry::recording::reader::Frame;
use crate::telemetry::recording::world::{Lost, Opening};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Revisions that are known at a time: entries refer to the last few.
const KNOWN: usize = 5;
/// Versions of one file.
const MOST_VERSIONS: usize = 10_000;
/// Places where something is missing, that are told.
const MOST_LOST: usize = 100;

/// A policy's name and a version's id.
type Key = (Arc<str>, Arc<str>);

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Book {
    pages: Arc<Pages>,
    lost: Vec<Lost>,
}

/// What a block of entries needs. The next ones share what has not changed.
#[derive(Debug, Clone, Default)]
pub(super) struct Pages {
    opening: Option<Opening>,
    revisions: VecDeque<(u64, Arc<Catalog>)>,
    versions: Arc<HashMap<Key, Arc<About>>>,
}

impl Pages {
    /// What the seeds follow from.
    pub(super) fn seed(&self) -> Option<u64> {
        self.opening.as_ref().map(|opening| opening.seed)
    }

    /// The services of this number.
    pub(super) fn catalog(&self, number: u64) -> Option<&Arc<Catalog>> {
        self.revisions.iter().rev().find(|(known, _)| *known == number).map(|(_, catalog)| catalog)
    }

    /// What is known of a version.
    pub(super) fn about(&self, policy: &Arc<str>, version: &Arc<str>) -> Option<&Arc<About>> {
        self.versions.get(&(Arc::clone(policy), Arc::clone(version)))
    }
}

impl Book {
    /// Takes in what a frame says.
    pub(super) fn note(&mut self, frame: Frame) {
        let pages = Arc::make_mut(&mut self.pages);
        match frame {
            Frame::Opening(opening) => *pages = Pages { opening: Some(opening), ..Pages::default() },
            Frame::Revision(revision) => {
                let whole = Arc::default();
                let base = if revision.base == 0 { Some(&whole) } else { pages.catalog(revision.base) };
                // Where that is missing, so is this one, and entries that refer to it are not run.
                if let Some(catalog) = base.and_then(|base| revision.catalog(base)) {
                    pages.revisions.push_back((revision.number, Arc::new(catalog)));
                    if pages.revisions.len() > KNOWN {
                        pages.revisions.pop_front();
                    }
                }
            }
            Frame::Versions(versions) => {
                let known = Arc::make_mut(&mut pages.versions);
                for about in versions.into_iter().take(MOST_VERSIONS.saturating_sub(known.len())) {
                    known.insert((Arc::clone(&about.policy), Arc::clone(&about.version)), Arc::new(about));
                }
            }
            Frame::Lost(lost) if self.lost.len() < MOST_LOST => self.lost.push(lost),
            Frame::Lost(_) | Frame::Entries(_) => {}
        }
    }

    /// What the next entries need.
    pub(super) fn pages(&self) -> Arc<Pages> {
        Arc::clone(&self.pages)
    }

    pub(super) fn is_opened(&self) -> bool {
        self.pages.opening.is_some()
    }

    pub(super) fn lost(&self) -> &[Lost] {
        &self.lost
    }
}
