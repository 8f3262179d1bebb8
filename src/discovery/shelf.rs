//! A shelf: files in a registry's key-value store, for many gateways. A manifest names each file with its length and digest;
//! their content lies in chunks under their digests. The manifest is written last and at once, so that half an upload is
//! never seen; what no manifest names any more is taken away by the push after the next, since a slow gateway may still read.

mod consul;
mod etcd;
mod mirror;
mod push;

pub use mirror::Mirror;
pub use push::{Pushed, push};

use super::registry::place::Place;
use super::registry::{Failure, Kind};
use crate::base::digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Of a file's content, bytes: Consul takes 512 KiB in one value, etcd 1.5 MiB.
const CHUNK: usize = 256 << 10;
/// The largest file, and all of them together, bytes.
const LARGEST: u64 = 64 << 20;
const ALL: u64 = 256 << 20;
/// Files of one shelf.
const FILES: usize = 4096;

/// What is on a shelf: content by file name, with `/` between folders.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// By name.
    pub files: BTreeMap<String, Content>,
}

/// The content of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// SHA-256, 64 hex digits.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
}

impl Content {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Content { sha256: digest::full(bytes), size: bytes.len() as u64 }
    }

    fn chunks(&self) -> u64 {
        self.size.div_ceil(CHUNK as u64)
    }
}

impl Manifest {
    /// Reads one that anybody may have written.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(|error| format!("the manifest: {error}"))?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Are names, digests and sizes such as can be written to a folder?
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), String> {
        if self.files.len() > FILES {
            return Err(format!("there are {} files; a shelf takes {FILES}", self.files.len()));
        }
        let mut all = 0u64;
        for (name, content) in &self.files {
            check_name(name)?;
            if content.sha256.len() != 64 || !content.sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(format!("the digest of `{}` is none", name.escape_debug()));
            }
            if content.size > LARGEST {
                return Err(format!("`{name}` has {} bytes; a shelf takes {LARGEST} of a file", content.size));
            }
            all = all.saturating_add(content.size);
        }
        if all > ALL { Err(format!("the files have {all} bytes; a shelf takes {ALL}")) } else { Ok(()) }
    }
}

/// A name stays within its folder, and no part of it begins with a dot: those are ours.
fn check_name(name: &str) -> Result<(), String> {
    let good = |part: &str| {
        let letters = |char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_' | '.' | '+' | '@' | ' ');
        !part.is_empty() && !part.starts_with('.') && part.len() <= 200 && part.chars().all(letters)
    };
    let parts = name.split('/').count();
    if parts <= 8 && name.split('/').all(good) {
        return Ok(());
    }
    Err(format!(
        "`{}` cannot be a file's name here: letters, digits and `-_.+@` with `/` between, no part beginning with a dot",
        name.escape_debug()
    ))
}

/// A manifest as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    bytes: Vec<u8>,
    /// Of the manifest; 0: there is none.
    version: u64,
    /// From where on a change is waited for.
    index: u64,
}

/// A shelf in a registry.
#[derive(Debug)]
pub struct Shelf {
    at: At,
}

#[derive(Debug)]
enum At {
    Consul(Box<consul::Consul>),
    Etcd(Box<etcd::Etcd>),
}

impl Shelf {
    /// At this place: `consul://HOST:PORT/PREFIX`, `etcd://HOST:PORT/PREFIX`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn at(place: &Place) -> Result<Self, String> {
        let prefix = place.path.trim_matches('/');
        if prefix.is_empty() {
            return Err("the URL names no place in the store: write one behind the port, like `/wayside`".to_owned());
        }
        let at = match place.kind() {
            "consul" => At::Consul(Box::new(consul::Consul::new(place.with_agent()?, prefix)?)),
            "etcd" => At::Etcd(Box::new(etcd::Etcd::new(place.with_members()?, &place.path)?)),
            kind => return Err(format!("`{kind}` holds no files: use `consul` or `etcd`")),
        };
        Ok(Shelf { at })
    }

    async fn manifest(&self) -> Result<Seen, Failure> {
        match &self.at {
            At::Consul(consul) => consul.manifest(0).await,
            At::Etcd(etcd) => etcd.manifest().await,
        }
    }

    /// The manifest when it is another one, or after a while.
    async fn next(&self, seen: &Seen) -> Result<Seen, Failure> {
        match &self.at {
            At::Consul(consul) => consul.manifest(seen.index).await,
            At::Etcd(etcd) => etcd.next(seen).await,
        }
    }

    /// False: it is no longer the one that was seen.
    async fn swap(&self, seen: &Seen, manifest: Vec<u8>) -> Result<bool, Failure> {
        match &self.at {
            At::Consul(consul) => consul.swap(seen, manifest).await,
            At::Etcd(etcd) => etcd.swap(seen, manifest).await,
        }
    }

    async fn chunk(&self, sha256: &str, number: u64) -> Result<Vec<u8>, Failure> {
        match &self.at {
            At::Consul(consul) => consul.chunk(sha256, number).await,
            At::Etcd(etcd) => etcd.chunk(sha256, number).await,
        }
    }

    async fn put(&self, sha256: &str, number: u64, bytes: Vec<u8>) -> Result<(), Failure> {
        match &self.at {
            At::Consul(consul) => consul.put(sha256, number, bytes).await,
            At::Etcd(etcd) => etcd.put(sha256, number, bytes).await,
        }
    }

    /// Digests of what lies there, and how many chunks of each.
    async fn there(&self) -> Result<BTreeMap<String, u64>, Failure> {
        match &self.at {
            At::Consul(consul) => consul.there().await,
            At::Etcd(etcd) => etcd.there().await,
        }
    }

    async fn forget(&self, sha256: &str) -> Result<(), Failure> {
        match &self.at {
            At::Consul(consul) => consul.forget(sha256).await,
            At::Etcd(etcd) => etcd.forget(sha256).await,
        }
    }

    /// The whole content, which is what its digest says.
    async fn content(&self, content: &Content) -> Result<Vec<u8>, Failure> {
        let bad = |problem: &str| Failure::new(Kind::BadAnswer, format!("{}: {problem}", content.sha256));
        let mut bytes = Vec::new();
        for number in 0..content.chunks() {
            bytes.extend_from_slice(&self.chunk(&content.sha256, number).await?);
            if bytes.len() as u64 > content.size {
                return Err(bad("there is more of it than the manifest says"));
            }
        }
        if Content::of(&bytes) == *content { Ok(bytes) } else { Err(bad("its content is not what its digest says")) }
    }
}

/// Digest and number of a chunk's key behind `blobs/`.
fn blob(key: &str) -> Option<(&str, u64)> {
    let (digest, number) = key.split_once('/')?;
    Some((digest, number.parse().ok()?))
}

fn missing(sha256: &str, number: u64) -> Failure {
    Failure::new(Kind::BadAnswer, format!("{sha256}: chunk {number} is not there"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_folder() {
        for name in ["wayside.toml", "policies/canary.wasm", "a/b/c.d_e+f@1 2"] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for name in ["", "/a", "a/", "../a", "a/../b", ".a", "a/.cache/b", "a//b", "a\\b", "a\0b", "é", &"a/".repeat(9)]
        {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_manifest_of_anybody_is_bounded() {
        let good = Content::of(b"x");
        let with = |name: &str, content: Content| Manifest { files: [(name.to_owned(), content)].into() };
        let read = |manifest: &Manifest| Manifest::parse(&serde_json::to_vec(manifest).unwrap());
        assert_eq!(read(&with("a", good.clone())), Ok(with("a", good.clone())));
        for (bad, problem) in [
            (with("../a", good.clone()), "cannot be a file's name"),
            (with("a", Content { size: LARGEST + 1, ..good.clone() }), "a shelf takes"),
            (with("a", Content { sha256: "../../x".to_owned(), ..good }), "the digest of `a` is none"),
        ] {
            assert!(read(&bad).unwrap_err().contains(problem), "{bad:?}");
        }
        for bytes in [&b""[..], b"[]", b"{\"files\":{},\"more\":1}", b"\xff"] {
            assert!(Manifest::parse(bytes).is_err());
        }
    }
}
