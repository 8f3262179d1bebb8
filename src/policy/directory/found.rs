//! What lies in the policy directory right now: each `NAME.wasm` with its `NAME.toml`, read and hashed.

use crate::base::digest;
use crate::base::watch::{Stamp, is_hidden, stamp};
use crate::policy::compile::{MAX_COMPONENT, too_big};
use crate::policy::sidecar::{self, Sidecar};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// No sidecar is longer.
const MAX_SIDECAR: u64 = 1 << 20;
/// A file that changed less than this before it was read may change again within the same tick of the file system's
/// clock, so its stamp says nothing about its content.
const GRAIN: Duration = Duration::from_secs(2);

/// One policy's files.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// The file name without `.wasm`.
    pub(super) name: Arc<str>,
    /// Equal for equal content. A version's id, where there is one.
    pub(super) key: Arc<str>,
    /// The version that the files make, or why they make none.
    pub(super) candidate: Result<Candidate, String>,
    /// The files as they were when they were read.
    stamps: [Stamp; 2],
}

/// A version that was not tried yet.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) component: PathBuf,
    pub(super) component_digest: String,
    pub(super) sidecar: Sidecar,
}

impl Found {
    /// Are the files still those that were read?
    pub(super) fn is_unchanged(&self, folder: &Path) -> bool {
        self.stamps == stamps(folder, &self.name)
    }

    /// Time since one of the files changed last.
    pub(super) fn age(&self) -> Duration {
        let [component, sidecar] = &self.stamps;
        component.age().min(sidecar.age())
    }
}

/// Digests of components that need not be read again.
#[derive(Debug, Default)]
pub(super) struct Digests(HashMap<Arc<str>, (Stamp, String)>);

/// Reads the directory. Blocks.
///
/// # Errors
/// The directory itself cannot be read. What is wrong with one policy is that policy's error.
pub(super) fn scan(folder: &Path, digests: &mut Digests) -> io::Result<Vec<Found>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = PathBuf::from(entry?.file_name());
        if is_hidden(path.as_os_str()) || path.extension().is_none_or(|e| e != "wasm") {
            continue;
        }
        match path.file_stem().and_then(|stem| stem.to_str()) {
            Some(name) => names.push(Arc::from(name)),
            None => tracing::warn!(file = %path.display(), "ignored: its name is not UTF-8"),
        }
    }
    names.sort();
    digests.0.retain(|name, _| names.contains(name));
    Ok(names.into_iter().filter_map(|name| read(folder, name, digests)).collect())
}

/// None: gone since the directory was listed.
fn read(folder: &Path, name: Arc<str>, digests: &mut Digests) -> Option<Found> {
    let stamps = stamps(folder, &name);
    let component = folder.join(format!("{name}.wasm"));
    let component_digest = match digests.0.get(&name) {
        Some((stamp, digest)) if *stamp == stamps[0] => Ok(digest.clone()),
        _ => match read_component(&component) {
            Ok(bytes) => Ok(digest::full(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => Err(format!("{name}.wasm: {error}")),
        },
    };
    digests.0.remove(&name);
    if let Ok(digest) = &component_digest
        && stamps[0].age() > GRAIN
    {
        digests.0.insert(name.clone(), (stamps[0].clone(), digest.clone()));
    }
    let sidecar = read_sidecar(&folder.join(format!("{name}.toml")));
    let (key, candidate) = match (component_digest, sidecar) {
        (Ok(component_digest), (_, Ok(sidecar))) => {
            (sidecar.version(&component_digest), Ok(Candidate { component, component_digest, sidecar }))
        }
        // The stamp stands in for what could not be read.
        (Err(error), (text, _)) => (key(&[&error, &format!("{:?}", stamps[0]), &text]), Err(error)),
        (Ok(digest), (text, Err(error))) => (key(&[&digest, &text]), Err(format!("{name}.toml: {error}"))),
    };
    Some(Found { name, key, candidate, stamps })
}

fn stamps(folder: &Path, name: &str) -> [Stamp; 2] {
    ["wasm", "toml"].map(|extension| stamp(&folder.join(format!("{name}.{extension}"))))
}

/// Never equal to a version's id, which has 12 digits.
fn key(parts: &[&str]) -> Arc<str> {
    format!("bad {}", digest::full(parts.join("\0").as_bytes())).into()
}

/// Reads a component, up to the size that is allowed.
///
/// # Errors
/// The file's, or that it is too large.
pub(super) fn read_component(path: &Path) -> io::Result<Vec<u8>> {
    read_bounded(path, MAX_COMPONENT)?.ok_or_else(|| io::Error::other(too_big()))
}

/// The text as far as it could be read, and what it says.
fn read_sidecar(path: &Path) -> (String, Result<Sidecar, String>) {
    let bytes = match read_bounded(path, MAX_SIDECAR) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return (String::new(), Err(format!("larger than {} KiB", MAX_SIDECAR >> 10))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return (String::new(), Ok(Sidecar::default())),
        Err(error) => return (String::new(), Err(error.to_string())),
    };
    match String::from_utf8(bytes) {
        Ok(text) => {
            let sidecar = sidecar::parse(&text);
            (text, sidecar)
        }
        Err(error) => (digest::full(error.as_bytes()), Err("not UTF-8 text".into())),
    }
}

/// None: the file is longer than `limit`.
fn read_bounded(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= limit).then_some(bytes))
}
