//! What is known of each policy's versions, on disk beside the compiled code: after a restart the same files mean what they
//! meant before, also those that were turned away, and one can still go back to the last good versions.

use super::found::{Found, read_component};
use crate::base::digest;
use crate::policy::conduct::Remembered;
use crate::policy::release::{Good, History};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is kept of one policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The directory that it belongs to.
    directory: PathBuf,
    /// The policy's name.
    name: Arc<str>,
    /// What answered last, its component beside the record; none: the policy is gone, and only what follows is left.
    good: Option<Good>,
    /// Its components that were suspended.
    pub(super) suspended: Vec<Remembered>,
    /// Its versions; their components lie beside the record.
    #[serde(default)]
    pub(super) history: History,
}

/// What must be kept of a policy.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// What answers.
    pub(super) good: Option<Good>,
    /// Its components that were suspended.
    pub(super) suspended: Vec<Remembered>,
    /// Its versions.
    pub(super) history: History,
}

impl Wanted {
    /// It says nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.good.is_none() && self.suspended.is_empty() && self.history.is_empty()
    }
}

/// The records of one directory.
#[derive(Debug, Default)]
pub(super) struct LastGood {
    /// Where they lie.
    folder: PathBuf,
    directory: PathBuf,
    on_disk: BTreeMap<Arc<str>, Record>,
    /// There may be components that no record names.
    untidy: bool,
}

/// Puts a component where records find it, before it answers: the file that it came from may be another one a moment later.
///
/// # Errors
/// It cannot be written.
pub(super) fn put_component(folder: &Path, component_digest: &str, bytes: &[u8]) -> io::Result<()> {
    let path = component(folder, component_digest);
    if path.exists() { Ok(()) } else { put(&path, bytes) }
}

fn component(folder: &Path, component_digest: &str) -> PathBuf {
    folder.join(format!("{component_digest}.wasm"))
}

impl LastGood {
    /// Reads what `folder` has of this directory. What cannot be read is as good as not there.
    pub(super) fn open(folder: PathBuf, directory: &Path) -> Self {
        let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
        let ours = records(&folder).filter(|record| record.directory == directory);
        let on_disk = ours.map(|record| (Arc::clone(&record.name), record)).collect();
        LastGood { folder, directory, on_disk, untidy: false }
    }

    /// What is known of each policy.
    pub(super) fn records(&self) -> impl Iterator<Item = (&Arc<str>, &Record)> {
        self.on_disk.iter()
    }

    /// The last good version of this policy, if there is one and it is what it was.
    pub(super) fn found(&self, name: &Arc<str>) -> Option<Found> {
        self.loadable(name, self.on_disk.get(name)?.good.clone()?)
    }

    /// This version of the policy, if its component is there and is what it was. Blocks.
    pub(super) fn loadable(&self, name: &Arc<str>, good: Good) -> Option<Found> {
        let component = component(&self.folder, &good.component);
        let intact = read_component(&component).is_ok_and(|bytes| digest::full(&bytes) == good.component);
        intact.then(|| Found::new(Arc::clone(name), component, good.component, good.sidecar))
    }

    /// Makes the disk say this, in `folder`, which may be another one by now. Components that are not there yet are read
    /// from the directory; those that nothing names are removed, unless one is being tried. Blocks.
    ///
    /// # Errors
    /// What could not be written; it is tried again the next time.
    pub(super) fn keep(&mut self, folder: PathBuf, wanted: BTreeMap<Arc<str>, Wanted>, trying: bool) -> io::Result<()> {
        if folder != self.folder {
            (self.folder, self.on_disk) = (folder, BTreeMap::new());
        }
        let mut failed = Ok(());
        for (name, Wanted { good, suspended, history }) in &wanted {
            let record = Record {
                directory: self.directory.clone(),
                name: Arc::clone(name),
                good: good.clone(),
                suspended: suspended.clone(),
                history: history.clone(),
            };
            if self.on_disk.get(name) == Some(&record) {
                continue;
            }
            match self.write(&record).and_then(|written| self.put_evidence(&record).map(|()| written)) {
                Ok(true) => {
                    self.untidy = true;
                    self.on_disk.insert(Arc::clone(name), record);
                }
                // Its file is another one by now; what becomes of that will be kept.
                Ok(false) => {}
                Err(error) => failed = Err(error),
            }
        }
        let gone: Vec<_> = self.on_disk.keys().filter(|name| !wanted.contains_key(*name)).cloned().collect();
        for name in gone {
            match std::fs::remove_file(self.record(&name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => failed = Err(error),
                _ => {
                    self.untidy = true;
                    self.on_disk.remove(&name);
                }
            }
        }
        if self.untidy && !trying {
            self.sweep();
            self.untidy = false;
        }
        failed
    }

    /// False: the component is not to be had any more.
    fn write(&self, record: &Record) -> io::Result<bool> {
        if let Some(good) = &record.good {
            let kept = component(&self.folder, &good.component);
            if !kept.exists() {
                let Ok(bytes) = read_component(&self.directory.join(format!("{}.wasm", record.name))) else {
                    return Ok(false);
                };
                if digest::full(&bytes) != good.component {
                    return Ok(false);
                }
                put(&kept, &bytes)?;
            }
        }
        put(&self.record(&record.name), &serde_json::to_vec_pretty(record)?)?;
        Ok(true)
    }

    /// What speaks against versions, for whoever looks for it with a pager: `policies/NAME/VERSION/evidence.json`.
    fn put_evidence(&self, record: &Record) -> io::Result<()> {
        for quarantined in &record.history.quarantined {
            let Some(evidence) = &quarantined.evidence else { continue };
            let folder = self.folder.join("policies").join(&*record.name).join(&*quarantined.version);
            let file = folder.join("evidence.json");
            if !file.exists() {
                std::fs::create_dir_all(&folder)?;
                std::fs::write(file, serde_json::to_vec_pretty(evidence)?)?;
            }
        }
        Ok(())
    }

    /// Removes components that no record names, of whichever directory.
    fn sweep(&self) {
        let of = |record: Record| {
            let versions = record.history.versions.into_iter().map(|kept| kept.good.component);
            versions.chain(record.good.map(|good| good.component))
        };
        let named: HashSet<String> = records(&self.folder).flat_map(of).collect();
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            if path.extension().is_some_and(|e| e == "wasm") && stem.is_some_and(|stem| !named.contains(stem)) {
                let _ = std::fs::remove_file(path);
            }
        }
    }

    fn record(&self, name: &str) -> PathBuf {
        let identity = format!("{}\0{name}", self.directory.display());
        self.folder.join(format!("{}.json", digest::full(identity.as_bytes())))
    }
}

fn records(folder: &Path) -> impl Iterator<Item = Record> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let files = entries.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.filter_map(|path| serde_json::from_slice(&std::fs::read(path).ok()?).ok())
}

/// Writes a file in one step.
fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // What a killed gateway leaves of these is forgotten with its other files.
    let aside = path.with_file_name(format!("{}-good.scratch", std::process::id()));
    let written = std::fs::write(&aside, bytes).and_then(|()| std::fs::rename(&aside, path));
    if written.is_err() {
        let _ = std::fs::remove_file(aside);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folders {
        directory: tempfile::TempDir,
        kept: tempfile::TempDir,
    }

    impl Folders {
        fn new() -> Self {
            Folders { directory: tempfile::tempdir().unwrap(), kept: tempfile::tempdir().unwrap() }
        }

        fn open(&self) -> LastGood {
            LastGood::open(self.kept.path().to_owned(), self.directory.path())
        }

        /// A policy's files; what of it is to be kept.
        fn put(&self, name: &str, component: &str, sidecar: Option<&str>) -> (Arc<str>, Wanted) {
            std::fs::write(self.directory.path().join(format!("{name}.wasm")), component).unwrap();
            let good = Good { component: digest::full(component.as_bytes()), sidecar: sidecar.map(str::to_owned) };
            (name.into(), Wanted { good: Some(good), suspended: Vec::new(), history: History::default() })
        }

        fn keep(&self, store: &mut LastGood, wanted: &[(Arc<str>, Wanted)]) {
            store.keep(self.kept.path().to_owned(), wanted.iter().cloned().collect(), false).unwrap();
        }

        fn components(&self) -> usize {
            let names = std::fs::read_dir(self.kept.path()).unwrap().map(|entry| entry.unwrap().path());
            names.filter(|path| path.extension().is_some_and(|e| e == "wasm")).count()
        }
    }

    #[test]
    fn what_was_kept_is_found_again_by_directory_and_name() {
        let folders = Folders::new();
        let wanted = folders.put("a", "one", Some("config = 'x'"));
        folders.keep(&mut folders.open(), &[wanted]);
        std::fs::write(folders.directory.path().join("a.wasm"), "two").unwrap();
        let found = folders.open().found(&"a".into()).unwrap();
        let candidate = found.candidate.unwrap();
        assert_eq!(std::fs::read(&candidate.component).unwrap(), b"one");
        assert_eq!((candidate.sidecar.config.as_str(), candidate.text.as_deref()), ("x", Some("config = 'x'")));
        assert!(folders.open().found(&"b".into()).is_none());
        let elsewhere = tempfile::tempdir().unwrap();
        let other = LastGood::open(folders.kept.path().to_owned(), elsewhere.path());
        assert!(other.found(&"a".into()).is_none(), "another directory's");
    }

    #[test]
    fn what_is_not_wanted_any_more_goes_with_its_component() {
        let folders = Folders::new();
        let mut store = folders.open();
        let (a, b) = (folders.put("a", "one", None), folders.put("b", "one", None));
        folders.keep(&mut store, &[a.clone(), b]);
        assert_eq!(folders.components(), 1, "they share it");
        folders.keep(&mut store, std::slice::from_ref(&a));
        assert_eq!(folders.components(), 1);
        let two = folders.put("a", "two", None);
        folders.keep(&mut store, std::slice::from_ref(&two));
        assert_eq!(folders.components(), 1);
        folders.keep(&mut store, &[]);
        assert_eq!((folders.components(), folders.open().records().count()), (0, 0));
    }

    #[test]
    fn a_component_that_was_put_in_time_needs_its_file_no_more() {
        let folders = Folders::new();
        let wanted = folders.put("a", "one", None);
        put_component(folders.kept.path(), &digest::full(b"one"), b"one").unwrap();
        folders.put("a", "two", None);
        folders.keep(&mut folders.open(), std::slice::from_ref(&wanted));
        assert!(folders.open().found(&"a".into()).is_some());
    }

    #[test]
    fn a_damaged_component_is_none() {
        let folders = Folders::new();
        let wanted = folders.put("a", "one", None);
        folders.keep(&mut folders.open(), std::slice::from_ref(&wanted));
        let kept = folders.kept.path().join(format!("{}.wasm", digest::full(b"one")));
        std::fs::write(kept, "oné").unwrap();
        assert!(folders.open().found(&"a".into()).is_none());
    }

    #[test]
    fn what_changed_before_it_could_be_kept_is_not_kept_as_something_else() {
        let folders = Folders::new();
        let wanted = folders.put("a", "one", None);
        folders.put("a", "two", None);
        let mut store = folders.open();
        folders.keep(&mut store, std::slice::from_ref(&wanted));
        assert_eq!((folders.components(), store.records().count()), (0, 0));
    }
}
