//! Frames: what a record file is made of. Each stands for itself: `WSR1`, kind, flags, the payload's length, that of what is
//! stored, a count, the first time in it, a checksum of all that, and the payload (zstd). Numbers are little-endian.

use std::io;
use xxhash_rust::xxh64::xxh64;

/// Each frame begins with it; whoever is lost looks for the next one.
pub const MAGIC: [u8; 4] = *b"WSR1";
/// Bytes of a frame before its payload.
pub const HEAD: usize = 34;
/// Bytes of a payload that is read or written, at most.
pub const MOST: usize = 16 << 20;
/// Whoever does not know a frame's kind may pass it over.
const OPTIONAL: u8 = 1;
/// Higher levels take three times as long for a few percent.
const LEVEL: i32 = 3;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// What all that follows depends on; the first of each file.
    Opening,
    /// Services and endpoints, or what changed of them.
    Revision,
    /// Versions of policies.
    Versions,
    /// Decisions.
    Entries,
    /// What could not be recorded.
    Lost,
}

impl Kind {
    const ALL: [Kind; 5] = [Kind::Opening, Kind::Revision, Kind::Versions, Kind::Entries, Kind::Lost];

    fn code(self) -> u8 {
        match self {
            Kind::Opening => 1,
            Kind::Revision => 2,
            Kind::Versions => 3,
            Kind::Entries => 4,
            Kind::Lost => 5,
        }
    }
}

/// A frame's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// None: one that only a newer gateway knows, and that may be passed over.
    pub kind: Option<Kind>,
    /// Bytes of the payload.
    pub raw: usize,
    /// Bytes that it takes in the file.
    pub stored: usize,
    /// Of what it holds.
    pub count: u32,
    /// Of the first of those, ms since 1970-01-01 UTC.
    pub first_ms: u64,
    sum: u64,
}

/// Why bytes are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    /// They are none, or a broken one.
    Broken,
    /// One that a newer gateway wrote, and that must be understood.
    Newer,
}

impl Head {
    /// Of the first bytes of a frame.
    ///
    /// # Errors
    /// They are none.
    pub fn read(bytes: &[u8; HEAD]) -> Result<Self, Bad> {
        let (magic, rest) = bytes.split_at(MAGIC.len());
        let ([kind, flags], rest) =
            rest.split_at_checked(2).and_then(|(two, rest)| Some((array(two)?, rest))).ok_or(Bad::Broken)?;
        let number = |at: usize| rest.get(at..at + 4).and_then(array).map(u32::from_le_bytes);
        let long = |at: usize| rest.get(at..at + 8).and_then(array).map(u64::from_le_bytes);
        let (Some(raw), Some(stored), Some(count)) = (number(0), number(4), number(8)) else { return Err(Bad::Broken) };
        let (Some(first_ms), Some(sum)) = (long(12), long(20)) else { return Err(Bad::Broken) };
        let (raw, stored) = (raw as usize, stored as usize);
        // What zstd makes of something that cannot be made smaller is hardly longer.
        if magic != MAGIC || raw > MOST || stored > MOST + (MOST >> 6) {
            return Err(Bad::Broken);
        }
        let kind = Kind::ALL.into_iter().find(|known| known.code() == kind);
        if kind.is_none() && flags & OPTIONAL == 0 {
            return Err(Bad::Newer);
        }
        Ok(Head { kind, raw, stored, count, first_ms, sum })
    }

    /// Do these bytes of a head and what is stored belong together?
    pub fn fits(&self, head: &[u8; HEAD], stored: &[u8]) -> bool {
        stored.len() == self.stored && sum(&head[..HEAD - 8], stored) == self.sum
    }
}

/// What the checksum is of: all of a head before it, and what is stored.
fn sum(head: &[u8], stored: &[u8]) -> u64 {
    xxh64(stored, xxh64(head, 0))
}

fn array<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok()
}

/// Writes frames.
pub struct Packer(zstd::bulk::Compressor<'static>);

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packer").finish_non_exhaustive()
    }
}

impl Packer {
    /// # Errors
    /// There is no memory for it.
    pub fn new() -> io::Result<Self> {
        Ok(Packer(zstd::bulk::Compressor::new(LEVEL)?))
    }

    /// Adds a frame to `out`. False: it is too large for one.
    ///
    /// # Errors
    /// zstd failed.
    pub fn pack(
        &mut self,
        kind: Kind,
        payload: &[u8],
        count: u32,
        first_ms: u64,
        out: &mut Vec<u8>,
    ) -> io::Result<bool> {
        if payload.len() > MOST {
            return Ok(false);
        }
        let stored = self.0.compress(payload)?;
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
        let from = out.len();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[kind.code(), 0]);
        out.extend_from_slice(&length(payload));
        out.extend_from_slice(&length(&stored));
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(&first_ms.to_le_bytes());
        let sum = sum(out.get(from..).unwrap_or_default(), &stored);
        out.extend_from_slice(&sum.to_le_bytes());
        out.extend_from_slice(&stored);
        Ok(true)
    }
}

/// The payload of a frame whose checksum fits. None: it is none, whatever that says.
pub fn unpack(head: &Head, stored: &[u8]) -> Option<Vec<u8>> {
    zstd::bulk::decompress(stored, head.raw).ok().filter(|payload| payload.len() == head.raw)
}
