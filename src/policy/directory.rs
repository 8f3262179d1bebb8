//! The watched directory: a component that is dropped into it is compiled, loaded and live, or turned away with a
//! reason while its last good version goes on answering.

mod found;
mod table;

use super::compile::{Cache, Error};
use super::{Engine, Scope, Version};
use crate::digest;
use crate::watch::{self, Changes};
use found::{Candidate, Digests, Found};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use table::Table;
use tokio::sync::mpsc;

/// A file that is still being written is not turned away: it must have been quiet for so long.
const SETTLED: Duration = Duration::from_millis(500);
/// How often to look whether workers have let go of replaced versions.
const BURY: Duration = Duration::from_secs(1);

/// The directory that holds the policies, and what was made of it.
#[derive(Debug)]
pub struct Directory {
    folder: PathBuf,
    cache: Cache,
    engine: Engine,
    changes: Changes,
    digests: Digests,
    table: Table,
}

impl Directory {
    /// Begins to watch `folder`. Nothing is read yet. `cache` is the folder for compiled code, `program` the `wayside`
    /// binary to compile with (see [`Cache::open`]).
    ///
    /// # Errors
    /// There is no such directory, or the cache's folder is not for us alone.
    pub fn open(folder: &Path, cache: &Path, program: &Path, engine: Engine) -> Result<Directory, String> {
        let shown = folder.display();
        // Before the cache, which may lie inside and is made if need be.
        if let Err(error) = std::fs::read_dir(folder) {
            return Err(format!("policies.directory: {shown} cannot be read: {error}; create it or name another one"));
        }
        let cache = Cache::open(cache, program)?;
        let changes = watch::directory(folder);
        let (digests, table) = (Digests::default(), Table::default());
        Ok(Directory { folder: folder.to_owned(), cache, engine, changes, digests, table })
    }

    /// Sends the complete list of policies, in name order: once everything that is there at first has been tried, and
    /// then each time that something changes. Ends when nobody receives any more.
    pub async fn watch(mut self, out: mpsc::Sender<Vec<Arc<Scope>>>) {
        let closed = out.clone();
        tokio::select! {
            () = closed.closed() => {}
            () = self.run(&out) => {}
        }
    }

    async fn run(&mut self, out: &mpsc::Sender<Vec<Arc<Scope>>>) {
        self.refresh(None).await;
        self.table.started();
        while out.send(self.table.scopes()).await.is_ok() {
            self.change().await;
            self.refresh(Some(out)).await;
        }
    }

    /// Waits for a change, tearing down replaced versions meanwhile.
    async fn change(&mut self) {
        let mut change = pin!(self.changes.next());
        while self.table.bury() {
            // The wait for a change goes on where it was: what it has noticed already must not be lost.
            if tokio::time::timeout(BURY, &mut change).await.is_ok() {
                return;
            }
        }
        change.await;
    }

    /// Reads the directory and tries what is new, one after the other.
    async fn refresh(&mut self, out: Option<&mpsc::Sender<Vec<Arc<Scope>>>>) {
        let to_try = match self.scan().await {
            Ok(found) => self.table.found(&found),
            Err(error) => {
                if self.table.lost(error.clone()) {
                    tracing::warn!(%error, "policies stay as they are");
                }
                return;
            }
        };
        for found in to_try {
            if let Some(out) = out {
                // Says that it is loading, and what came of the one before. A closed channel ends the watch above.
                let _ = out.send(self.table.scopes()).await;
            }
            match self.load(&found).await {
                Ok((version, candidate)) => self.table.accepted(&found.name, version, &candidate.sidecar),
                Err(error) if self.is_settled(&found).await => self.table.rejected(&found, &error),
                // Somebody is writing it: the change that wakes us is on its way.
                Err(error) => tracing::debug!(policy = %found.name, %error, "changed while it was being tried"),
            }
        }
    }

    async fn scan(&mut self) -> Result<Vec<Found>, String> {
        let mut digests = std::mem::take(&mut self.digests);
        let folder = self.folder.clone();
        let scan = move || (found::scan(&folder, &mut digests), digests);
        let shown = self.folder.display();
        let (found, digests) =
            tokio::task::spawn_blocking(scan).await.map_err(|e| format!("{shown}: cannot be read: {e}"))?;
        self.digests = digests;
        found.map_err(|e| format!("policies.directory: {shown} cannot be read: {e}"))
    }

    /// Compiles and readies a candidate.
    async fn load<'a>(&self, found: &'a Found) -> Result<(Arc<Version>, &'a Candidate), Error> {
        let candidate = found.candidate.as_ref().map_err(|e| Error::Component(e.clone()))?;
        let path = candidate.component.clone();
        let read = move || found::read_component(&path).map(|bytes| (digest::full(&bytes), bytes));
        let read = tokio::task::spawn_blocking(read).await.map_err(|e| Error::System(e.to_string()))?;
        let (read_digest, bytes) = read.map_err(|e| Error::System(format!("{}.wasm: {e}", found.name)))?;
        if read_digest != candidate.component_digest {
            return Err(Error::System("the file changed while it was read".into()));
        }
        let compiled = self.cache.compiled(&bytes, &read_digest).await?;
        let (engine, live) = (self.engine.clone(), self.table.live(&found.name));
        let (id, name, sidecar) = (found.key.clone(), found.name.clone(), candidate.sidecar.clone());
        let load = move || engine.load(&compiled, id, name, sidecar.config, sidecar.limits, live);
        let version =
            tokio::task::spawn_blocking(load).await.map_err(|e| Error::System(format!("loading failed: {e}")))?;
        Ok((version.map_err(Error::Component)?, candidate))
    }

    /// Were the files left alone since they were read, and for long enough?
    async fn is_settled(&self, found: &Found) -> bool {
        let remaining = SETTLED.saturating_sub(found.age());
        tokio::time::sleep(remaining).await;
        found.is_unchanged(&self.folder)
    }
}
