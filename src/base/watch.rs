//! Watching files: one change signal from notify, from a look at the clock where notify sees nothing, and debounced.

use notify::Watcher as _;
use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// Changes that come within this time of each other are one.
const QUIET: Duration = Duration::from_millis(100);
/// Files that change without end are looked at all the same, this often.
const PATIENCE: Duration = Duration::from_secs(1);
/// Network file systems and full event queues say nothing: look anyway, this often.
const RESCAN: Duration = Duration::from_secs(5);

/// A stream of "something may have changed".
#[derive(Debug)]
pub struct Changes {
    events: mpsc::Receiver<()>,
    signal: mpsc::Sender<()>,
    watched: Watched,
    seen: Vec<Stamp>,
    /// There was a signal that nobody has been told of.
    noticed: bool,
    /// When to look without a signal.
    look_at: Instant,
    /// Ends the watch when dropped. None: the folder cannot be watched, so only the clock is left.
    watcher: Option<notify::RecommendedWatcher>,
}

/// What is looked at.
#[derive(Debug, Clone)]
enum Watched {
    File(PathBuf),
    Directory(PathBuf),
}

/// Watches one file through its folder, so that a file renamed into its place is seen as well.
pub fn file(path: &Path) -> Changes {
    Changes::new(Watched::File(path.to_owned()))
}

/// Calls `act` whenever the file may have changed, on a task of its own on the current runtime.
pub fn each_change(path: &Path, act: impl Fn() + Send + 'static) -> AbortHandle {
    let mut changes = file(path);
    let watch = tokio::spawn(async move {
        loop {
            changes.next().await;
            act();
        }
    });
    watch.abort_handle()
}

/// Watches all files of a folder whose names do not start with a dot.
pub fn directory(path: &Path) -> Changes {
    Changes::new(Watched::Directory(path.to_owned()))
}

impl Changes {
    fn new(watched: Watched) -> Changes {
        let (signal, events) = mpsc::channel(1);
        // Looked at before the watch begins: what changes in between is seen twice rather than never.
        let seen = watched.stamps();
        let watcher = watched.subscribe(signal.clone());
        if let Err(error) = &watcher {
            tracing::warn!(folder = %watched.folder().display(), %error, "cannot be watched; looking every 5 s instead");
        }
        let look_at = Instant::now() + RESCAN;
        Changes { events, signal, watched, seen, noticed: false, look_at, watcher: watcher.ok() }
    }

    /// Waits until something may have changed and has been quiet for 100 ms, or has not been quiet for a second. A wait
    /// that is broken off loses nothing: the next one goes on with what was noticed.
    pub async fn next(&mut self) {
        loop {
            if !self.noticed {
                let signal = tokio::time::timeout_at(self.look_at, self.events.recv()).await;
                self.noticed = matches!(signal, Ok(Some(())));
            }
            if self.noticed {
                let quiet = async { while let Ok(Some(())) = tokio::time::timeout(QUIET, self.events.recv()).await {} };
                let _ = tokio::time::timeout(PATIENCE, quiet).await;
            }
            self.look_at = Instant::now() + RESCAN;
            if self.look() | std::mem::take(&mut self.noticed) {
                return;
            }
        }
    }

    /// Looks at the files themselves: are they others than the last time?
    fn look(&mut self) -> bool {
        let now = self.watched.stamps();
        let changed = now != self.seen;
        // A folder that was made anew is not the one that is being watched.
        if self.watcher.is_none() || now.first() != self.seen.first() {
            self.watcher = self.watched.subscribe(self.signal.clone()).ok();
        }
        self.seen = now;
        changed
    }
}

impl Watched {
    fn folder(&self) -> &Path {
        match self {
            Watched::Directory(folder) => folder,
            Watched::File(file) => match file.parent() {
                Some(folder) if !folder.as_os_str().is_empty() => folder,
                _ => Path::new("."),
            },
        }
    }

    fn subscribe(&self, signal: mpsc::Sender<()>) -> notify::Result<notify::RecommendedWatcher> {
        let watched = self.clone();
        let handler = move |event: notify::Result<notify::Event>| {
            let ours = match &event {
                Ok(event) if event.kind.is_access() => false,
                Ok(event) => {
                    event.need_rescan() || event.paths.is_empty() || event.paths.iter().any(|path| watched.cares(path))
                }
                Err(_) => true,
            };
            if ours {
                // Full: a change is already waiting to be looked at.
                let _ = signal.try_send(());
            }
        };
        let mut watcher = notify::recommended_watcher(handler)?;
        watcher.watch(self.folder(), notify::RecursiveMode::NonRecursive)?;
        Ok(watcher)
    }

    fn cares(&self, path: &Path) -> bool {
        // Kubernetes swaps mounted files by renaming a `..data` link beside them.
        let Some(name) = path.file_name().filter(|name| *name != "..data") else { return true };
        match self {
            Watched::File(file) => file.file_name() == Some(name),
            Watched::Directory(folder) => path == folder || !is_hidden(name),
        }
    }

    /// First the folder's own identity, then each file.
    fn stamps(&self) -> Vec<Stamp> {
        let mut stamps = vec![Stamp { len: 0, changed: (0, 0), ..stamp(self.folder()) }];
        match self {
            Watched::File(file) => stamps.push(stamp(file)),
            Watched::Directory(folder) => {
                let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
                let mut paths: Vec<PathBuf> =
                    entries.filter(|entry| !is_hidden(&entry.file_name())).map(|entry| entry.path()).collect();
                paths.sort();
                stamps.extend(paths.iter().map(|path| stamp(path)));
            }
        }
        stamps
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
