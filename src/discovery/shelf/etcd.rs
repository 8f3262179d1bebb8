//! A shelf in etcd.

use super::{Seen, blob, missing};
use crate::discovery;
use crate::discovery::registry::etcd::messages::{Compare, Operation, PutRequest};
use crate::discovery::registry::etcd::{Client, Prefix, Session, Told};
use crate::discovery::registry::members;
use crate::discovery::registry::{Failure, Kind};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::timeout;

/// How long a change is waited for; then the manifest is read again.
const WAIT: Duration = Duration::from_secs(120);

#[derive(Debug)]
pub(super) struct Etcd {
    client: Client,
    /// With a slash at its end.
    prefix: String,
    session: Mutex<Option<Session>>,
}

impl Etcd {
    pub(super) fn new(table: toml::Table, path: &str) -> Result<Self, String> {
        let settings: members::Settings = discovery::settings(table)?;
        let prefix = format!("{}/", path.trim_end_matches('/'));
        Ok(Etcd { client: Client::new(settings), prefix, session: Mutex::default() })
    }

    fn key(&self, rest: &str) -> Vec<u8> {
        format!("{}{rest}", self.prefix).into_bytes()
    }

    /// A connection to work with; it is put back when the work went well.
    async fn session(&self) -> Result<Session, Failure> {
        let kept = self.session.lock().await.take();
        match kept {
            Some(session) => Ok(session),
            None => self.client.connect().await,
        }
    }

    async fn done<T>(&self, session: Session, outcome: Result<T, Failure>) -> Result<T, Failure> {
        match outcome {
            Ok(_) => *self.session.lock().await = Some(session),
            Err(_) => self.client.leave(),
        }
        outcome
    }

    async fn range(&self, prefix: Prefix) -> Result<(Vec<(Vec<u8>, Vec<u8>, i64)>, i64), Failure> {
        let mut session = self.session().await?;
        let ranges = session.ranges(std::slice::from_ref(&prefix)).await;
        let range = self.done(session, ranges).await?.pop();
        let range = range.ok_or_else(|| Failure::new(Kind::BadAnswer, "etcd answered nothing"))?;
        let kvs = range.kvs.into_iter().map(|kv| (kv.key, kv.value, kv.mod_revision)).collect();
        Ok((kvs, range.revision))
    }

    async fn transact(&self, compare: Vec<Compare>, operation: Operation) -> Result<bool, Failure> {
        let mut session = self.session().await?;
        let answer = session.transact(compare, vec![operation]).await;
        Ok(self.done(session, answer).await?.succeeded)
    }

    pub(super) async fn manifest(&self) -> Result<Seen, Failure> {
        let key = self.key("manifest");
        let (kvs, revision) = self.range(Prefix::new(key.clone())).await?;
        let index = u64::try_from(revision).unwrap_or(0);
        let found = kvs.into_iter().find(|(found, ..)| *found == key);
        let (bytes, version) = found.map_or((Vec::new(), 0), |(_, value, revision)| (value, revision));
        Ok(Seen { bytes, version: u64::try_from(version).unwrap_or(0), index })
    }

    pub(super) async fn next(&self, seen: &Seen) -> Result<Seen, Failure> {
        let session = self.session().await?;
        let from = i64::try_from(seen.index).unwrap_or(0) + 1;
        let mut watch = session.watch(&[(Prefix::new(self.key("manifest")), from)]).await?;
        let changed = async {
            while watch.next().await? == Told::Nothing {}
            Ok(())
        };
        let outcome = timeout(WAIT, changed).await.unwrap_or(Ok(()));
        self.done(session, outcome).await?;
        self.manifest().await
    }

    pub(super) async fn swap(&self, seen: &Seen, manifest: Vec<u8>) -> Result<bool, Failure> {
        let key = self.key("manifest");
        let mod_revision = Some(i64::try_from(seen.version).unwrap_or(i64::MAX));
        let same = Compare { result: 0, target: Compare::MOD, key: key.clone(), mod_revision };
        self.transact(vec![same], Operation::Put(PutRequest { key, value: manifest, lease: 0 })).await
    }

    pub(super) async fn chunk(&self, sha256: &str, number: u64) -> Result<Vec<u8>, Failure> {
        let (kvs, _) = self.range(Prefix::new(self.key(&format!("blobs/{sha256}/{number:04}")))).await?;
        kvs.into_iter().next().map(|(_, value, _)| value).ok_or_else(|| missing(sha256, number))
    }

    pub(super) async fn put(&self, sha256: &str, number: u64, bytes: Vec<u8>) -> Result<(), Failure> {
        let key = self.key(&format!("blobs/{sha256}/{number:04}"));
        self.transact(vec![], Operation::Put(PutRequest { key, value: bytes, lease: 0 })).await.map(drop)
    }

    pub(super) async fn there(&self) -> Result<BTreeMap<String, u64>, Failure> {
        let prefix = Prefix::new(self.key("blobs/"));
        let mut session = self.session().await?;
        let keys = session.keys(&prefix).await;
        let mut there = BTreeMap::new();
        for key in self.done(session, keys).await? {
            let rest = prefix.strip(&key).and_then(|rest| std::str::from_utf8(rest).ok());
            if let Some((digest, _)) = rest.and_then(blob) {
                *there.entry(digest.to_owned()).or_default() += 1;
            }
        }
        Ok(there)
    }

    pub(super) async fn forget(&self, sha256: &str) -> Result<(), Failure> {
        self.transact(vec![], Prefix::new(self.key(&format!("blobs/{sha256}/"))).delete()).await.map(drop)
    }
}
