//! A folder is put on a shelf.

use super::{CHUNK, Content, Manifest, Shelf};
use crate::discovery::registry::{Failure, Kind};
use std::collections::{BTreeMap, BTreeSet};

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pushed {
    /// Files of which content was written.
    pub written: usize,
    /// Files in all.
    pub files: usize,
    /// It was just that already.
    pub same: bool,
}

/// Puts these files on the shelf, in the place of those that are there. `told`: bytes written so far, and in all.
///
/// # Errors
/// What the store says; or that somebody else has pushed meanwhile, and nothing has changed.
pub async fn push(
    shelf: &Shelf,
    files: &BTreeMap<String, Vec<u8>>,
    mut told: impl FnMut(u64, u64),
) -> Result<Pushed, Failure> {
    let manifest = Manifest { files: files.iter().map(|(name, bytes)| (name.clone(), Content::of(bytes))).collect() };
    manifest.check().map_err(|problem| Failure::new(Kind::BadAnswer, problem))?;
    let seen = shelf.manifest().await?;
    // One that cannot be read is replaced.
    let before = Manifest::parse(&seen.bytes).unwrap_or_default();
    let there = shelf.there().await?;
    let is_there = |content: &Content| there.get(&content.sha256).is_some_and(|chunks| *chunks >= content.chunks());
    let lacks = |(name, bytes)| Some((manifest.files.get(name)?, bytes)).filter(|(content, _)| !is_there(content));
    let lacking: BTreeMap<&Content, &Vec<u8>> = files.iter().filter_map(lacks).collect();
    let all = lacking.keys().map(|content| content.size).sum();
    let mut written = 0;
    for (content, bytes) in &lacking {
        for (number, chunk) in (0..).zip(bytes.chunks(CHUNK)) {
            shelf.put(&content.sha256, number, chunk.to_vec()).await?;
            written += chunk.len() as u64;
            told(written, all);
        }
    }
    let pushed = Pushed { written: lacking.len(), files: files.len(), same: manifest == before && seen.version > 0 };
    if !pushed.same {
        let bytes = serde_json::to_vec(&manifest).map_err(|error| Failure::new(Kind::BadAnswer, error.to_string()))?;
        if !shelf.swap(&seen, bytes).await? {
            return Err(Failure::new(Kind::BadAnswer, "somebody else has pushed meanwhile; look, and push again"));
        }
    }
    let named = |manifest: &Manifest| manifest.files.values().map(|content| content.sha256.clone()).collect::<Vec<_>>();
    // Those of the manifest before may still be read.
    let kept: BTreeSet<String> = named(&manifest).into_iter().chain(named(&before)).collect();
    for sha256 in there.keys().filter(|sha256| !kept.contains(*sha256)) {
        shelf.forget(sha256).await?;
    }
    Ok(pushed)
}
