//! A shelf in Consul's key-value store: developer.hashicorp.com/consul/api-docs/kv.

use super::{Seen, blob, missing};
use crate::discovery;
use crate::discovery::registry::consul::{Client, Query, Settings};
use crate::discovery::registry::{Failure, Kind};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Debug)]
pub(super) struct Consul {
    client: Client,
    /// Without slashes around it.
    prefix: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    modify_index: u64,
    value: Option<String>,
}

impl Consul {
    pub(super) fn new(table: toml::Table, prefix: &str) -> Result<Self, String> {
        let settings: Settings = discovery::settings(table)?;
        Ok(Consul { client: Client::new(settings)?, prefix: prefix.to_owned() })
    }

    /// Segments of a key's path.
    fn path<'a>(&'a self, rest: &[&'a str]) -> Vec<&'a str> {
        let prefix = self.prefix.split('/').filter(|part| !part.is_empty());
        std::iter::once("kv").chain(prefix).chain(rest.iter().copied()).collect()
    }

    pub(super) async fn manifest(&self, index: u64) -> Result<Seen, Failure> {
        let path = self.path(&["manifest"]);
        let reply = self.client.find(&Query { path: &path, parameters: &[], index }).await?;
        // One below 1 would not wait.
        let index = if reply.index < index { 0 } else { reply.index.max(1) };
        if !reply.found {
            return Ok(Seen { bytes: Vec::new(), version: 0, index });
        }
        let entries: Vec<Entry> = serde_json::from_slice(&reply.body)
            .map_err(|error| reply.failure(Kind::BadAnswer, &format!("the manifest's entry: {error}")))?;
        let [entry] = entries.as_slice() else {
            return Err(reply.failure(Kind::BadAnswer, "another number of manifests than one"));
        };
        let bytes = STANDARD.decode(entry.value.as_deref().unwrap_or_default());
        let bytes = bytes.map_err(|_| reply.failure(Kind::BadAnswer, "the manifest is no base64"))?;
        Ok(Seen { bytes, version: entry.modify_index, index })
    }

    pub(super) async fn swap(&self, seen: &Seen, manifest: Vec<u8>) -> Result<bool, Failure> {
        let expected = seen.version.to_string();
        let reply = self.client.put(&self.path(&["manifest"]), &[("cas", &expected)], manifest).await?;
        // A race that was lost is a 200, too.
        Ok(reply.body.trim_ascii() == b"true")
    }

    pub(super) async fn chunk(&self, sha256: &str, number: u64) -> Result<Vec<u8>, Failure> {
        let number = format!("{number:04}");
        let path = self.path(&["blobs", sha256, &number]);
        let reply = self.client.find(&Query { path: &path, parameters: &[("raw", "true")], index: 0 }).await?;
        if reply.found { Ok(reply.body) } else { Err(missing(sha256, number.parse().unwrap_or_default())) }
    }

    pub(super) async fn put(&self, sha256: &str, number: u64, bytes: Vec<u8>) -> Result<(), Failure> {
        let number = format!("{number:04}");
        self.client.put(&self.path(&["blobs", sha256, &number]), &[], bytes).await.map(drop)
    }

    pub(super) async fn there(&self) -> Result<BTreeMap<String, u64>, Failure> {
        let path = self.path(&["blobs", ""]);
        let reply = self.client.find(&Query { path: &path, parameters: &[("keys", "true")], index: 0 }).await?;
        let mut there = BTreeMap::new();
        if reply.found {
            let keys: Vec<String> = serde_json::from_slice(&reply.body)
                .map_err(|error| reply.failure(Kind::BadAnswer, &format!("the keys: {error}")))?;
            let prefix = format!("{}/blobs/", self.path(&[])[1..].join("/"));
            for (digest, _) in keys.iter().filter_map(|key| blob(key.strip_prefix(&prefix)?)) {
                *there.entry(digest.to_owned()).or_default() += 1;
            }
        }
        Ok(there)
    }

    pub(super) async fn forget(&self, sha256: &str) -> Result<(), Failure> {
        self.client.delete(&self.path(&["blobs", sha256, ""]), &[("recurse", "true")]).await
    }
}
