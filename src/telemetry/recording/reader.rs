//! Reads record files, also those whose end is missing or whose middle is damaged: what is no frame is passed over, and
//! counted.

use super::entry::{Entry, MOST};
use super::frame::{Bad, HEAD, Head, Kind, MAGIC, unpack};
use super::world::{Lost, Opening, Revision};
use crate::service::record::taped::About;
use memchr::memmem;
use std::io::{self, ErrorKind, Read};

/// Places in a file that are damaged, at most; more is no record file.
const MOST_DAMAGES: u32 = 1000;
/// Versions that one frame names, at most.
const MOST_VERSIONS: usize = 10_000;
/// Bytes that are read at once.
const STEP: usize = 256 << 10;

/// Reads one file, frame by frame.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    buffer: Vec<u8>,
    /// Where the next frame begins in there.
    at: usize,
    ended: bool,
    /// Bytes that were looked at.
    pub position: u64,
    /// Bytes that are no frame.
    pub passed_over: u64,
    damages: u32,
}

/// What a frame says.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    /// Where the file comes from.
    Opening(Opening),
    /// Services.
    Revision(Revision),
    /// Versions of policies.
    Versions(Vec<About>),
    /// Decisions.
    Entries(Entries),
    /// What is missing here.
    Lost(Lost),
}

/// A block of entries.
#[derive(Debug, Clone, PartialEq)]
pub struct Entries {
    bytes: Vec<u8>,
    /// How many there are.
    pub count: u32,
}

impl Entries {
    /// Each with the number of the services that it saw. What comes after one that cannot be read is left out, and so is
    /// what is more than the frame's count.
    pub fn iter(&self) -> impl Iterator<Item = (u64, Entry<'_>)> {
        let mut rest = &self.bytes[..];
        let next = move || {
            let ((revision, length), after): ((u64, u32), _) = postcard::take_from_bytes(rest).ok()?;
            let (entry, after) = after.split_at_checked(length as usize).filter(|(entry, _)| entry.len() <= MOST)?;
            rest = after;
            Entry::read(entry).ok().map(|entry| (revision, entry))
        };
        std::iter::from_fn(next).take(self.count as usize)
    }
}

impl<R: Read> Reader<R> {
    /// From its beginning.
    pub fn new(from: R) -> Self {
        Reader { from, buffer: Vec::new(), at: 0, ended: false, position: 0, passed_over: 0, damages: 0 }
    }

    /// The next frame. None: that was the last one.
    ///
    /// # Errors
    /// The file cannot be read, is none of ours, or is of a newer gateway.
    pub fn frame(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if !self.fill(HEAD)? {
                let left = self.left().len();
                self.passed_over += left as u64;
                self.advance(left);
                return Ok(None);
            }
            let Some(bytes) = self.left().first_chunk::<HEAD>().copied() else { return Ok(None) };
            let head = match Head::read(&bytes) {
                Ok(head) => head,
                Err(Bad::Newer) if self.whole_newer(&bytes)? => {
                    return Err(io::Error::new(
                        ErrorKind::InvalidData,
                        "it was written by a newer gateway, and needs its `wayside replay`",
                    ));
                }
                Err(_) => {
                    self.pass_over()?;
                    continue;
                }
            };
            let whole = self.fill(HEAD + head.stored)?;
            let stored = self.left().get(HEAD..HEAD + head.stored).unwrap_or_default();
            if !whole || !head.fits(&bytes, stored) {
                self.pass_over()?;
                continue;
            }
            let frame = head.kind.and_then(|kind| read(kind, &head, unpack(&head, stored)?));
            let known = head.kind.is_some();
            self.advance(HEAD + head.stored);
            match frame {
                Some(frame) => return Ok(Some(frame)),
                None if known => self.damaged((HEAD + head.stored) as u64)?,
                None => {}
            }
        }
    }

    fn advance(&mut self, bytes: usize) {
        self.at += bytes;
        self.position += bytes as u64;
    }

    fn left(&self) -> &[u8] {
        self.buffer.get(self.at..).unwrap_or_default()
    }

    /// Is this of a kind that is unknown here, or just damaged?
    fn whole_newer(&mut self, bytes: &[u8; HEAD]) -> io::Result<bool> {
        let mut known = *bytes;
        // As if it could be passed over: all else of it is read as any other.
        known[MAGIC.len() + 1] |= 1;
        let Ok(head) = Head::read(&known) else { return Ok(false) };
        let whole = self.fill(HEAD + head.stored)?;
        let stored = self.left().get(HEAD..HEAD + head.stored).unwrap_or_default();
        Ok(whole && head.fits(bytes, stored))
    }

    /// Has so many bytes in the buffer, if there are so many.
    fn fill(&mut self, wanted: usize) -> io::Result<bool> {
        while self.left().len() < wanted && !self.ended {
            self.buffer.drain(..self.at);
            self.at = 0;
            let missing = wanted.saturating_sub(self.buffer.len()).max(STEP);
            let read = (&mut self.from).take(missing as u64).read_to_end(&mut self.buffer)?;
            self.ended = read < missing;
        }
        Ok(self.left().len() >= wanted)
    }

    /// Looks for the next place where a frame could begin.
    fn pass_over(&mut self) -> io::Result<()> {
        self.damaged(0)?;
        let mut from = 1;
        loop {
            if let Some(found) = memmem::find(self.left().get(from..).unwrap_or_default(), &MAGIC) {
                self.passed_over += (from + found) as u64;
                self.advance(from + found);
                return Ok(());
            }
            // Its first bytes may stand at the end of what was read.
            let keep = self.left().len().min(MAGIC.len() - 1);
            let gone = self.left().len() - keep;
            self.passed_over += gone as u64;
            self.advance(gone);
            from = 0;
            if !self.fill(keep + 1)? {
                return Ok(());
            }
        }
    }

    fn damaged(&mut self, bytes: u64) -> io::Result<()> {
        self.damages += 1;
        self.passed_over += bytes;
        if self.damages > MOST_DAMAGES {
            let problem = format!("it is damaged in more than {MOST_DAMAGES} places, or no record file");
            return Err(io::Error::new(ErrorKind::InvalidData, problem));
        }
        Ok(())
    }
}

fn read(kind: Kind, head: &Head, payload: Vec<u8>) -> Option<Frame> {
    Some(match kind {
        Kind::Opening => Frame::Opening(postcard::take_from_bytes(&payload).ok()?.0),
        Kind::Revision => {
            let revision: Revision = postcard::take_from_bytes(&payload).ok()?.0;
            Frame::Revision(revision.within_bounds()?)
        }
        Kind::Versions => {
            let versions: Vec<About> = postcard::take_from_bytes(&payload).ok()?.0;
            if versions.len() > MOST_VERSIONS {
                return None;
            }
            Frame::Versions(versions)
        }
        Kind::Entries => Frame::Entries(Entries { bytes: payload, count: head.count }),
        Kind::Lost => Frame::Lost(postcard::take_from_bytes(&payload).ok()?.0),
    })
}
