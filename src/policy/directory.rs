//! The watched directory: a component that is dropped into it is compiled, loaded and live, or turned away with a
//! reason while its last good version goes on answering.

mod found;
mod table;
mod trial;

use super::compile::{Cache, Error};
use super::{Engine, Scope, Version};
use crate::base::watch::{self, Changes};
use found::{Digests, Found};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use table::Table;
use tokio::sync::mpsc;
use trial::Trial;

/// A file that is still being written is not turned away: it must have been quiet for so long.
const SETTLED: Duration = Duration::from_millis(500);
/// How often to look whether workers have let go of replaced versions.
const BURY: Duration = Duration::from_secs(1);

/// The directory that holds the policies, and what was made of it.
#[derive(Debug)]
pub struct Directory {
    folder: PathBuf,
    cache: Arc<Cache>,
    engine: Engine,
    changes: Changes,
    digests: Digests,
    table: Table,
    /// What is being tried. One at a time: compiling takes memory and a core.
    trial: Option<Trial>,
    /// What is tried after that.
    queue: VecDeque<Found>,
}

/// What the watch waits for.
enum Event {
    /// Something may have changed in the directory.
    Changed,
    /// The trial has ended.
    Tried(Result<Arc<Version>, Error>),
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
        Ok(Directory {
            folder: folder.to_owned(),
            cache: Arc::new(Cache::open(cache, program)?),
            engine,
            changes: watch::directory(folder),
            digests: Digests::default(),
            table: Table::default(),
            trial: None,
            queue: VecDeque::new(),
        })
    }

    /// Opens `folder`, with this very program as the compiler, and watches it on the current runtime for as long as
    /// somebody holds the receiver.
    ///
    /// # Errors
    /// As [`Directory::open`]'s, or the program cannot find itself.
    pub fn follow(folder: &Path, cache: &Path, engine: Engine) -> Result<mpsc::Receiver<Vec<Arc<Scope>>>, String> {
        let program = std::env::current_exe().map_err(|e| format!("the program cannot find itself: {e}"))?;
        let directory = Directory::open(folder, cache, &program, engine)?;
        let (to, lists) = mpsc::channel(1);
        tokio::spawn(directory.watch(to));
        Ok(lists)
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
        self.scan().await;
        while self.begin() {
            if let Some(trial) = &mut self.trial {
                let tried = trial.end().await;
                self.conclude(tried);
            }
        }
        self.table.started();
        while out.send(self.table.scopes()).await.is_ok() {
            self.begin();
            match self.event().await {
                Event::Changed => self.scan().await,
                Event::Tried(tried) => self.conclude(tried),
            }
        }
    }

    /// Waits for what comes next, tearing down replaced versions meanwhile.
    async fn event(&mut self) -> Event {
        loop {
            let graves = self.table.bury();
            let trial = async {
                match &mut self.trial {
                    Some(trial) => trial.end().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.changes.next() => return Event::Changed,
                tried = trial => return Event::Tried(tried),
                () = tokio::time::sleep(BURY), if graves => {}
            }
        }
    }

    /// Reads the directory: forgets what is gone, and notes what is to be tried.
    async fn scan(&mut self) {
        let mut digests = std::mem::take(&mut self.digests);
        let folder = self.folder.clone();
        let scan = move || (found::scan(&folder, &mut digests), digests);
        let found = match tokio::task::spawn_blocking(scan).await {
            Ok((found, digests)) => {
                self.digests = digests;
                found.map_err(|e| e.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        match found {
            Ok(found) => {
                let to_try = self.table.found(&found);
                self.plan(to_try);
            }
            Err(error) => {
                let error = format!("policies.directory: {} cannot be read: {error}", self.folder.display());
                if self.table.lost(error.clone()) {
                    tracing::warn!(%error, "policies stay as they are");
                }
            }
        }
    }

    /// What is being tried goes on if its content is still there; else it is given up, which ends its compiler, and
    /// the others come first, so that a file that changes without end keeps nobody waiting.
    fn plan(&mut self, mut to_try: Vec<Found>) {
        if let Some(mut trial) = self.trial.take() {
            match to_try.iter().position(|found| found.name == trial.found.name) {
                Some(index) if to_try[index].key == trial.found.key => {
                    trial.found = to_try.remove(index);
                    self.trial = Some(trial);
                }
                Some(index) => to_try[index..].rotate_left(1),
                None => {}
            }
        }
        self.queue = to_try.into();
    }

    /// Begins the next trial unless one is under way. False: there is nothing to try.
    fn begin(&mut self) -> bool {
        if self.trial.is_none() {
            self.trial = self.queue.pop_front().map(|found| {
                let live = self.table.live(&found.name);
                Trial::new(Arc::clone(&self.cache), self.engine.clone(), found, live)
            });
        }
        self.trial.is_some()
    }

    /// The trial has ended.
    fn conclude(&mut self, tried: Result<Arc<Version>, Error>) {
        let Some(Trial { found, .. }) = self.trial.take() else { return };
        match (tried, &found.candidate) {
            (Ok(version), Ok(candidate)) => self.table.accepted(&found.name, version, &candidate.sidecar),
            (Err(error), _) if found.is_unchanged(&self.folder) => self.table.rejected(&found, &error),
            // Somebody is writing it: the change that wakes us is on its way.
            (Err(error), _) => tracing::debug!(policy = %found.name, %error, "changed while it was being tried"),
            // Without a candidate, there is nothing to load.
            (Ok(_), Err(_)) => {}
        }
    }
}
