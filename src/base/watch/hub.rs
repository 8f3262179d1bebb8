//! The one instance of inotify, and who wants to hear of what. Instances are scarce: a user has 128 for all processes.

use super::places::Places;
use notify::{ErrorKind, RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::{BTreeSet, HashMap};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::mpsc;

/// Somebody who wants to hear of changes, as long as it lives.
#[derive(Debug)]
pub(super) struct Listener {
    signal: mpsc::Sender<()>,
    places: Mutex<Places>,
}

impl Listener {
    /// Wants to hear of nothing yet.
    pub(super) fn new(signal: mpsc::Sender<()>) -> Self {
        Listener { signal, places: Mutex::default() }
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // Full: a change is already waiting to be looked at.
        let _ = self.signal.try_send(());
    }
}

/// All listeners. Locked for a moment only; also by inotify's thread, so never while that is asked for something.
static LISTENERS: Mutex<Vec<Weak<Listener>>> = Mutex::new(Vec::new());
/// What inotify watches. Locked while it is asked, which a file system that does not answer can make long.
static WATCHES: LazyLock<Mutex<Watches>> = LazyLock::new(Mutex::default);

#[derive(Default)]
struct Watches {
    /// None: not needed yet, or not to be had.
    watcher: Option<RecommendedWatcher>,
    /// Each folder with its device and number when the watch began: one that was made anew is another one.
    folders: HashMap<PathBuf, (u64, u64)>,
}

/// Lets a listener hear of these places from now on, and of no others. False: inotify cannot tell of all of them, so
/// they have to be looked at. Blocks.
pub(super) fn follow(listener: &Arc<Listener>, places: Places) -> bool {
    *listener.places() = places;
    {
        let mut listeners = listeners();
        listeners.retain(|other| other.strong_count() > 0 && !std::ptr::eq(other.as_ptr(), Arc::as_ptr(listener)));
        listeners.push(Arc::downgrade(listener));
    }
    let told = WATCHES.lock().unwrap_or_else(PoisonError::into_inner).follow();
    if let Err(problem) = &told {
        static TOLD: AtomicBool = AtomicBool::new(false);
        if !TOLD.swap(true, Relaxed) {
            tracing::warn!(
                %problem,
                "files cannot be watched, so they are looked at each second; \
                 fs.inotify.max_user_watches and max_user_instances may be too low"
            );
        }
    }
    told.is_ok()
}

fn listeners() -> MutexGuard<'static, Vec<Weak<Listener>>> {
    LISTENERS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watches {
    /// Watches the folders that somebody wants to hear of, and no others.
    fn follow(&mut self) -> Result<(), notify::Error> {
        let alive: Vec<Arc<Listener>> = listeners().iter().filter_map(Weak::upgrade).collect();
        let folders: BTreeSet<PathBuf> =
            alive.iter().flat_map(|listener| listener.places().folders().cloned().collect::<Vec<_>>()).collect();
        let identity = |folder: &PathBuf| std::fs::metadata(folder).map(|found| (found.dev(), found.ino())).ok();
        let wanted: HashMap<PathBuf, Option<(u64, u64)>> =
            folders.into_iter().map(|folder| (folder.clone(), identity(&folder))).collect();
        let watcher = match &mut self.watcher {
            Some(watcher) => watcher,
            None => self.watcher.insert(notify::recommended_watcher(heard)?),
        };
        self.folders.retain(|folder, identity| {
            let same = wanted.get(folder) == Some(&Some(*identity));
            if !same {
                // It may be gone, and its watch with it.
                let _ = watcher.unwatch(folder);
            }
            same
        });
        let mut told = Ok(());
        for (folder, identity) in wanted {
            let Some(identity) = identity.filter(|_| !self.folders.contains_key(&folder)) else { continue };
            match watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => drop(self.folders.insert(folder, identity)),
                // Gone since a moment ago: the next look sees that.
                Err(error) if matches!(error.kind, ErrorKind::PathNotFound) => {}
                Err(error) => told = Err(error),
            }
        }
        told
    }
}

/// Called on inotify's thread.
fn heard(event: notify::Result<notify::Event>) {
    let all = match &event {
        Ok(event) if event.kind.is_access() => return,
        Ok(event) => event.need_rescan() || event.paths.is_empty(),
        Err(_) => true,
    };
    let paths = event.map(|event| event.paths).unwrap_or_default();
    for listener in listeners().iter().filter_map(Weak::upgrade) {
        if all || paths.iter().any(|path| listener.places().care(path)) {
            listener.wake();
        }
    }
}
