//! Watching files: one change signal from notify, from a look at the clock where notify sees nothing, and debounced.

use notify::Watcher as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;

/// Changes that come within this time of each other are one.
const QUIET: Duration = Duration::from_millis(100);
/// Network file systems and full event queues say nothing: look anyway, this often.
const RESCAN: Duration = Duration::from_secs(5);

/// A stream of "something may have changed".
#[derive(Debug)]
pub struct Changes {
    events: mpsc::Receiver<()>,
    file: PathBuf,
    seen: Option<Stamp>,
    /// Ends the watch when dropped. None: the folder cannot be watched, so only the clock is left.
    _watcher: Option<notify::RecommendedWatcher>,
}

#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    len: u64,
}

/// Watches one file through its folder, so that a file renamed into its place is seen as well.
pub fn file(path: &Path) -> Changes {
    let (signal, events) = mpsc::channel(1);
    let name = path.file_name().map(ToOwned::to_owned);
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    let handler = move |event: notify::Result<notify::Event>| {
        let ours = match &event {
            Ok(event) if event.kind.is_access() => false,
            Ok(event) => {
                event.need_rescan()
                    || event.paths.is_empty()
                    || event.paths.iter().any(|path| {
                        // Kubernetes swaps a mounted file by renaming a `..data` link beside it.
                        path.file_name() == name.as_deref() || path.file_name().is_some_and(|name| name == "..data")
                    })
            }
            Err(_) => true,
        };
        if ours {
            // Full: a change is already waiting to be looked at.
            let _ = signal.try_send(());
        }
    };
    let watcher = notify::recommended_watcher(handler).and_then(|mut watcher| {
        watcher.watch(&folder, notify::RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    if let Err(error) = &watcher {
        tracing::warn!(folder = %folder.display(), %error, "cannot be watched; looking every 5 s instead");
    }
    Changes { events, seen: stamp(path), file: path.to_owned(), _watcher: watcher.ok() }
}

impl Changes {
    /// Waits until the file may have changed and has been quiet for 100 ms.
    pub async fn next(&mut self) {
        loop {
            match tokio::time::timeout(RESCAN, self.events.recv()).await {
                Ok(Some(())) => {
                    while let Ok(Some(())) = tokio::time::timeout(QUIET, self.events.recv()).await {}
                    self.seen = stamp(&self.file);
                    return;
                }
                // The watcher is gone: only the clock is left.
                Ok(None) => tokio::time::sleep(RESCAN).await,
                Err(_) => {}
            }
            let now = stamp(&self.file);
            if now != self.seen {
                self.seen = now;
                return;
            }
        }
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some(Stamp { modified: metadata.modified().ok(), len: metadata.len() })
}
