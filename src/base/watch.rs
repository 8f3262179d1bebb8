//! Watching files: one signal that something may have changed, from inotify, from a look at the clock where that sees
//! nothing, and debounced. One instance of inotify does for all, however many files there are.

mod hub;
mod places;

use hub::Listener;
use places::Places;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

/// Changes that come within this time of each other are one.
const QUIET: Duration = Duration::from_millis(100);
/// Files that change without end are looked at all the same, this often.
const PATIENCE: Duration = Duration::from_secs(1);
/// Network file systems and full event queues say nothing: look anyway, this often.
const RESCAN: Duration = Duration::from_secs(5);
/// The same where inotify cannot be had.
const POLL: Duration = Duration::from_secs(1);
/// A file system that has not answered after this time does not hold up the signal.
const LOOK: Duration = Duration::from_secs(2);

/// A stream of "something may have changed". Must be made and used on a tokio runtime.
#[derive(Debug)]
pub struct Changes {
    watched: Arc<Watched>,
    listener: Arc<Listener>,
    events: mpsc::Receiver<()>,
    /// As the files were when they were last looked at; none: that is still to come.
    seen: Option<Vec<Stamp>>,
    /// A look that has not ended, with what it looks at.
    look: Option<(Arc<Watched>, JoinHandle<Looked>)>,
    /// There was a signal that nobody has been told of.
    noticed: bool,
    /// When to look without a signal.
    look_at: Instant,
    patience: Duration,
}

/// What is looked at.
#[derive(Debug, PartialEq, Eq)]
enum Watched {
    Files(BTreeSet<PathBuf>),
    Directory(PathBuf),
}

/// What a look has found.
#[derive(Debug)]
struct Looked {
    stamps: Vec<Stamp>,
    /// inotify tells of changes.
    told: bool,
}

/// Watches one file, links on the way to it, and the place where it will be while it is missing.
pub fn file(path: &Path) -> Changes {
    files([path.to_owned()])
}

/// Watches these files as one: what changes together is one change.
pub fn files(paths: impl IntoIterator<Item = PathBuf>) -> Changes {
    Changes::new(Watched::Files(paths.into_iter().collect()))
}

/// Watches all files of a folder whose names do not start with a dot.
pub fn directory(path: &Path) -> Changes {
    Changes::new(Watched::Directory(path.to_owned()))
}

impl Changes {
    fn new(watched: Watched) -> Changes {
        let (signal, events) = mpsc::channel(1);
        let mut changes = Changes {
            watched: Arc::new(watched),
            listener: Arc::new(Listener::new(signal)),
            events,
            seen: None,
            look: None,
            noticed: false,
            look_at: Instant::now(),
            patience: PATIENCE,
        };
        changes.begin_look();
        changes
    }

    /// Lets files that change one after the other for so long be one change.
    #[must_use]
    pub fn patient(mut self, patience: Duration) -> Changes {
        self.patience = patience;
        self
    }

    /// Waits until the watch has begun: whoever reads the files after that misses no later change. Without it, the first
    /// [`Changes::next`] comes at once.
    pub async fn begun(&mut self) {
        self.looked().await;
    }

    /// Watches these files from now on. Those that were watched before stay so without a gap.
    pub fn follow(&mut self, paths: impl IntoIterator<Item = PathBuf>) {
        let watched = Watched::Files(paths.into_iter().collect());
        if *self.watched != watched {
            self.watched = Arc::new(watched);
            // What happened to a new one before the next look is not known, which counts as a change.
            self.look_at = Instant::now();
        }
    }

    /// Waits until something may have changed and has been quiet for 100 ms, or has not been quiet for a second. A wait
    /// that is broken off loses nothing: the next one goes on with what was noticed.
    pub async fn next(&mut self) {
        loop {
            if !self.noticed {
                let signal = timeout_at(self.look_at, self.events.recv()).await;
                self.noticed = matches!(signal, Ok(Some(())));
            }
            if self.noticed {
                let quiet = async { while let Ok(Some(())) = timeout(QUIET, self.events.recv()).await {} };
                let _ = timeout(self.patience, quiet).await;
            }
            if self.looked().await | std::mem::take(&mut self.noticed) {
                return;
            }
        }
    }

    /// Looks at the files themselves: are they others than the last time?
    async fn looked(&mut self) -> bool {
        if self.look.is_none() {
            self.begin_look();
        }
        // Should it not end, the signals that come meanwhile are passed on all the same.
        self.look_at = Instant::now() + RESCAN;
        let Some((watched, look)) = &mut self.look else { return false };
        let Ok(looked) = timeout(LOOK, look).await else { return false };
        let current = *watched == self.watched;
        self.look = None;
        // A look that panicked has seen nothing.
        let Ok(Looked { stamps, told }) = looked else { return true };
        self.look_at = Instant::now() + if told { RESCAN } else { POLL };
        if !current {
            self.look_at = Instant::now();
        }
        let changed = self.seen.as_ref() != Some(&stamps);
        self.seen = Some(stamps);
        changed
    }

    /// On a thread of its own, since a file system may not answer.
    fn begin_look(&mut self) {
        let (watched, listener) = (Arc::clone(&self.watched), Arc::clone(&self.listener));
        let look = move || {
            // First the watch, then the look: what changes in between is seen twice rather than never.
            let told = hub::follow(&listener, watched.places());
            Looked { stamps: watched.stamps(), told }
        };
        self.look = Some((Arc::clone(&self.watched), tokio::task::spawn_blocking(look)));
    }
}

impl Watched {
    fn places(&self) -> Places {
        let mut places = Places::default();
        match self {
            Watched::Files(files) => files.iter().for_each(|file| places.add(file)),
            Watched::Directory(folder) => places.add_all_in(folder),
        }
        places
    }

    /// A folder's own identity first, then each file.
    fn stamps(&self) -> Vec<Stamp> {
        match self {
            Watched::Files(files) => files.iter().map(|file| stamp(file)).collect(),
            Watched::Directory(folder) => {
                let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
                let mut paths: Vec<PathBuf> =
                    entries.filter(|entry| !is_hidden(&entry.file_name())).map(|entry| entry.path()).collect();
                paths.sort();
                let own = Stamp { len: 0, changed: (0, 0), ..stamp(folder) };
                std::iter::once(own).chain(paths.iter().map(|path| stamp(path))).collect()
            }
        }
    }
}

/// Names that start with a dot are for whoever writes files, not for us.
pub(crate) fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().first() == Some(&b'.')
}

/// Tells two states of a file apart, where the clock's grain allows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamp {
    path: PathBuf,
    /// Device and file number; none: not there.
    identity: Option<(u64, u64)>,
    len: u64,
    /// When content, name or rights changed last; nobody can set it back. Seconds and nanoseconds.
    changed: (i64, i64),
}

impl Stamp {
    /// Time since the last change.
    pub(crate) fn age(&self) -> Duration {
        let (seconds, nanoseconds) = self.changed;
        let since = Duration::new(seconds.try_into().unwrap_or(0), nanoseconds.try_into().unwrap_or(0));
        SystemTime::now().duration_since(UNIX_EPOCH + since).unwrap_or_default()
    }
}

/// The state of a file, links followed.
pub(crate) fn stamp(path: &Path) -> Stamp {
    let (identity, len, changed) = match std::fs::metadata(path) {
        Ok(m) => (Some((m.dev(), m.ino())), m.len(), (m.ctime(), m.ctime_nsec())),
        Err(_) => (None, 0, (0, 0)),
    };
    Stamp { path: path.to_owned(), identity, len, changed }
}

#[cfg(test)]
mod tests;
