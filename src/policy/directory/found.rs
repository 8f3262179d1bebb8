//! What lies in the policy directory right now: each `NAME.wasm` with its `NAME.toml`, read and hashed.

use crate::base::watch::{Stamp, is_hidden, stamp};
use crate::base::{digest, files};
use crate::policy::compile::{Error, MAX_COMPONENT, too_big};
use crate::policy::release::{Good, Lying, Pair};
use crate::policy::sidecar::{self, Sidecar};
use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// No sidecar is longer.
const MAX_SIDECAR: u64 = 1 << 20;
/// A file is waited for so long: a slow disk may need seconds for the largest component.
const WITHIN: Duration = Duration::from_secs(10);
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
    pub(super) candidate: Result<Candidate, Error>,
    /// What it consists of.
    pub(super) pair: Pair,
    /// The files as they were when they were read.
    stamps: [Stamp; 2],
}

/// A version that was not tried yet.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) component: PathBuf,
    pub(super) component_digest: String,
    pub(super) sidecar: Sidecar,
    /// The sidecar as it is written; none: there is none.
    pub(super) text: Option<String>,
}

/// What a directory held.
#[derive(Debug)]
pub(super) struct Scan {
    /// In name order.
    pub(super) found: Vec<Found>,
    /// Which directory that was: device and number. Another one may have its name by now.
    pub(super) directory: (u64, u64),
}

impl Candidate {
    /// What is kept of it once it answers.
    pub(super) fn good(&self) -> Good {
        Good { component: self.component_digest.clone(), sidecar: self.text.clone() }
    }
}

impl Found {
    /// What these make, wherever they lie.
    pub(super) fn new(name: Arc<str>, component: PathBuf, component_digest: String, text: Option<String>) -> Found {
        let stamps = [stamp(&component), stamp(&component)];
        let sidecar = match &text {
            Some(text) => sidecar::parse(text).map_err(|error| Error::Component(format!("{name}.toml: {error}"))),
            None => Ok(Sidecar::default()),
        };
        let pair =
            Pair { component: component_digest.clone(), sidecar: text.as_ref().map(|t| digest::full(t.as_bytes())) };
        let (key, candidate) = match sidecar {
            Ok(sidecar) => {
                let key = sidecar.version(&component_digest);
                (key, Ok(Candidate { component, component_digest, sidecar, text }))
            }
            Err(error) => (key(&[&component_digest, text.as_deref().unwrap_or("")]), Err(error)),
        };
        Found { name, key, candidate, pair, stamps }
    }

    /// What it is known by when it is not there any more.
    pub(super) fn lying(&self) -> Lying {
        Lying { key: Arc::clone(&self.key), pair: self.pair.clone() }
    }

    /// Nothing can be made of them.
    fn bad(name: Arc<str>, pair: Pair, error: Error, stamps: [Stamp; 2]) -> Found {
        let sidecar = pair.sidecar.as_deref().unwrap_or("");
        let key = key(&[&pair.component, sidecar, &error.to_string()]);
        Found { name, key, candidate: Err(error), pair, stamps }
    }

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
pub(super) fn scan(folder: &Path, digests: &mut Digests) -> io::Result<Scan> {
    let directory = identity(folder)?;
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
    let found = names.into_iter().filter_map(|name| read(folder, name, digests)).collect();
    if identity(folder)? != directory {
        return Err(io::Error::other("another directory took its place while it was read"));
    }
    Ok(Scan { found, directory })
}

fn identity(folder: &Path) -> io::Result<(u64, u64)> {
    std::fs::metadata(folder).map(|metadata| (metadata.dev(), metadata.ino()))
}

/// None: gone since the directory was listed.
fn read(folder: &Path, name: Arc<str>, digests: &mut Digests) -> Option<Found> {
    let stamps = stamps(folder, &name);
    let component = folder.join(format!("{name}.wasm"));
    let component_digest = match digests.0.get(&name) {
        Some((stamp, digest)) if *stamp == stamps[0] => Ok(digest.clone()),
        _ => match read_component(&component) {
            Ok(bytes) => Ok(digest::full(&bytes)),
            Err(Problem::Gone) => return None,
            Err(Problem::Bad(error)) => Err(error),
        },
    };
    digests.0.remove(&name);
    if let Ok(digest) = &component_digest
        && stamps[0].age() > GRAIN
    {
        digests.0.insert(name.clone(), (stamps[0].clone(), digest.clone()));
    }
    // The stamp stands in for what could not be read.
    let unread = |index: usize, error: &Error| format!("{error} {:?}", stamps[index]);
    let (sidecar, text) = match read_sidecar(&folder.join(format!("{name}.toml"))) {
        Ok(text) => (text.as_ref().map(|text| digest::full(text.as_bytes())), Ok(text)),
        Err(error) => (Some(unread(1, &error)), Err(error)),
    };
    match (component_digest, text) {
        (Ok(component_digest), Ok(text)) => {
            Some(Found { stamps, ..Found::new(name, component, component_digest, text) })
        }
        (Err(error), _) => Some(Found::bad(name, Pair { component: unread(0, &error), sidecar }, error, stamps)),
        (Ok(component), Err(error)) => Some(Found::bad(name, Pair { component, sidecar }, error, stamps)),
    }
}

fn stamps(folder: &Path, name: &str) -> [Stamp; 2] {
    ["wasm", "toml"].map(|extension| stamp(&folder.join(format!("{name}.{extension}"))))
}

/// Never equal to a version's id, which has 12 digits.
fn key(parts: &[&str]) -> Arc<str> {
    format!("bad {}", digest::full(parts.join("\0").as_bytes())).into()
}

/// Why a file was not read.
#[derive(Debug)]
pub(super) enum Problem {
    /// It is not there.
    Gone,
    /// It is there, and this is wrong with it.
    Bad(Error),
}

/// Reads a component, up to the size that is allowed.
///
/// # Errors
/// The file's, or that it is too large.
pub(super) fn read_component(path: &Path) -> Result<Vec<u8>, Problem> {
    let too_long = || Error::Component(format!("{}: {}", shown(path), too_big()));
    read_bounded(path, MAX_COMPONENT)?.ok_or_else(|| Problem::Bad(too_long()))
}

/// The text. None: there is no such file.
fn read_sidecar(path: &Path) -> Result<Option<String>, Error> {
    let bytes = match read_bounded(path, MAX_SIDECAR) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Err(Error::Component(format!("{}: larger than {} KiB", shown(path), MAX_SIDECAR >> 10))),
        Err(Problem::Gone) => return Ok(None),
        Err(Problem::Bad(error)) => return Err(error),
    };
    let text = String::from_utf8(bytes).map_err(|_| Error::Component(format!("{}: not UTF-8 text", shown(path))))?;
    Ok(Some(text))
}

/// None: the file is longer than `limit`.
fn read_bounded(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, Problem> {
    let is_link = || std::fs::symlink_metadata(path).is_ok_and(|link| link.is_symlink());
    match files::read_within(path, limit, WITHIN) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::FileTooLarge => Ok(None),
        // A link whose target is gone is not a file that somebody deleted.
        Err(error) if error.kind() == ErrorKind::NotFound && is_link() => {
            Err(Problem::Bad(Error::System(format!("{}: a link to a file that is not there", shown(path)))))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Err(Problem::Gone),
        Err(error) => Err(Problem::Bad(Error::system(shown(path), &error))),
    }
}

fn shown(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
