//! One file that is being written: which frames what is recorded becomes. Writes nothing itself, and takes the time as it is
//! given.

use super::Item;
use super::frame::{Kind, MOST, Packer};
use super::world::{Lost, Opening, Revision, fits};
use crate::service::catalog::Catalog;
use crate::service::record::taped::About;
use crate::service::tape::redaction::MARK;
use std::collections::{HashSet, VecDeque};
use std::io;
use std::sync::Arc;

/// A block of entries is closed when it has so many bytes...
const BLOCK: usize = 256 << 10;
/// ...or is so old, ms.
const WAITS: u64 = 1000;
/// Snapshots whose services are known by number: workers may still be at an earlier one.
const KNOWN: usize = 4;

/// One file that is being written.
#[derive(Debug)]
pub(super) struct Sheet {
    packer: Packer,
    block: Vec<u8>,
    count: u32,
    first_ms: u64,
    /// When the first of the block came here, ms.
    since_ms: u64,
    revisions: VecDeque<(u64, Arc<Catalog>)>,
    last_revision: u64,
    versions: HashSet<(Arc<str>, Arc<str>)>,
    hides_config: bool,
}

impl Sheet {
    /// Begins one. `out` gets its first frame.
    ///
    /// # Errors
    /// zstd failed.
    pub(super) fn begin(opening: &Opening, hides_config: bool, now_ms: u64, out: &mut Vec<u8>) -> io::Result<Self> {
        let mut packer = Packer::new()?;
        packer.pack(Kind::Opening, &postcard(opening)?, 1, now_ms, out)?;
        Ok(Sheet {
            packer,
            block: Vec::with_capacity(BLOCK + (BLOCK >> 3)),
            count: 0,
            first_ms: 0,
            since_ms: 0,
            revisions: VecDeque::new(),
            last_revision: 0,
            versions: HashSet::new(),
            hides_config,
        })
    }

    /// Takes in one exchange. `out` gets what is to be written before it, and the block, once it is full. False: it cannot be
    /// recorded, since there are too many endpoints.
    ///
    /// # Errors
    /// zstd failed.
    pub(super) fn put(&mut self, item: &Item, now_ms: u64, out: &mut Vec<u8>) -> io::Result<bool> {
        let Some(revision) = self.revision(item, out)? else { return Ok(false) };
        for about in &item.versions {
            self.version(about, item.at_ms, out)?;
        }
        if self.count == 0 {
            (self.first_ms, self.since_ms) = (item.at_ms, now_ms);
        }
        let before = postcard(&(revision, u32::try_from(item.bytes.len()).unwrap_or(u32::MAX)))?;
        self.block.extend_from_slice(&before);
        self.block.extend_from_slice(&item.bytes);
        self.count += 1;
        if self.block.len() >= BLOCK {
            self.flush(out)?;
        }
        Ok(true)
    }

    /// Closes the block, if it is old enough.
    ///
    /// # Errors
    /// zstd failed.
    pub(super) fn tick(&mut self, now_ms: u64, out: &mut Vec<u8>) -> io::Result<()> {
        let due = self.count > 0 && now_ms.saturating_sub(self.since_ms) >= WAITS;
        if due { self.flush(out) } else { Ok(()) }
    }

    /// Closes the block.
    ///
    /// # Errors
    /// zstd failed.
    pub(super) fn flush(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        if self.count > 0 {
            self.packer.pack(Kind::Entries, &self.block, self.count, self.first_ms, out)?;
            self.block.clear();
            self.count = 0;
        }
        Ok(())
    }

    /// Says what is missing here.
    ///
    /// # Errors
    /// zstd failed.
    pub(super) fn lost(&mut self, lost: &Lost, out: &mut Vec<u8>) -> io::Result<()> {
        self.packer.pack(Kind::Lost, &postcard(lost)?, 1, lost.since_ms, out)?;
        Ok(())
    }

    /// The number of the services that an exchange saw. None: they are too many.
    fn revision(&mut self, item: &Item, out: &mut Vec<u8>) -> io::Result<Option<u64>> {
        if let Some((number, _)) = self.revisions.iter().find(|(_, known)| Arc::ptr_eq(known, &item.catalog)) {
            return Ok(Some(*number));
        }
        if !fits(&item.catalog) {
            return Ok(None);
        }
        let base = self.revisions.back().map(|(number, known)| (*number, &**known));
        let number = self.last_revision + 1;
        let said = postcard(&Revision::between(base, &item.catalog, number))?;
        if said.len() > MOST {
            return Ok(None);
        }
        // What refers to revisions that a reader forgets next must come before.
        self.flush(out)?;
        self.packer.pack(Kind::Revision, &said, 1, item.at_ms, out)?;
        self.last_revision = number;
        if self.revisions.len() == KNOWN {
            self.revisions.pop_front();
        }
        self.revisions.push_back((number, Arc::clone(&item.catalog)));
        Ok(Some(number))
    }

    fn version(&mut self, about: &Arc<About>, at_ms: u64, out: &mut Vec<u8>) -> io::Result<()> {
        let key = (Arc::clone(&about.policy), Arc::clone(&about.version));
        if !self.versions.insert(key) {
            return Ok(());
        }
        let mut about = About::clone(about);
        if self.hides_config && !about.config.is_empty() {
            MARK.clone_into(&mut about.config);
        }
        self.packer.pack(Kind::Versions, &postcard(&vec![about])?, 1, at_ms, out)?;
        Ok(())
    }
}

fn postcard(value: &impl serde::Serialize) -> io::Result<Vec<u8>> {
    postcard::to_allocvec(value).map_err(io::Error::other)
}
