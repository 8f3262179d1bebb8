//! The files that a configuration consists of: its own, and those of TLS with endpoints that it names.

use crate::base::watch;
use crate::control::config::Config;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// Watched files.
#[derive(Debug)]
pub(super) struct Files {
    watched: HashMap<PathBuf, AbortHandle>,
    signal: mpsc::Sender<()>,
    changes: mpsc::Receiver<()>,
}

impl Files {
    /// None yet.
    pub(super) fn new() -> Self {
        let (signal, changes) = mpsc::channel(1);
        Files { watched: HashMap::new(), signal, changes }
    }

    /// From now on these, those that are watched already without a gap.
    pub(super) fn follow(&mut self, config: &Config) {
        let connectors = config.services.values().filter_map(|declared| declared.tls.as_ref());
        let files: HashSet<_> = connectors.flat_map(|connector| &connector.files).chain([&config.file]).collect();
        self.watched.retain(|file, task| {
            let wanted = files.contains(file);
            if !wanted {
                task.abort();
            }
            wanted
        });
        for file in files {
            if self.watched.contains_key(file) {
                continue;
            }
            let signal = self.signal.clone();
            let watch = watch::each_change(file, move || {
                // Full: a change is already waiting to be looked at.
                let _ = signal.try_send(());
            });
            self.watched.insert(file.clone(), watch);
        }
    }

    /// One of them may have changed.
    pub(super) async fn next(&mut self) {
        // It has a sender itself, so this never ends without one.
        let _ = self.changes.recv().await;
    }
}
