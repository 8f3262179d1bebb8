//! What registries said last, on disk: a gateway that starts while a registry is down goes on where the last one stood. One
//! file for each service of each source, private to us, written beside and renamed; its age is the time of its last
//! confirmation. What cannot be read is as good as not there, and what cannot be written is told once.

use crate::base::{digest, files};
use crate::discovery::{Lookup, Observed};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, SystemTime};
use tokio::task::JoinHandle;

/// No file is larger, bytes.
const LARGEST: u64 = 64 << 20;
/// How often changes are written.
pub(super) const WRITE: Duration = Duration::from_secs(1);
/// How often the time of confirmation is.
pub(super) const CONFIRM: Duration = Duration::from_secs(30);

/// One service as one source reported it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Record {
    source: Arc<str>,
    /// Of the source's settings without their secrets: of another registry, nothing is known.
    settings: String,
    service: Arc<str>,
    registered_as: String,
    tags: Vec<String>,
    observed: Observed,
}

/// What is kept of a service: by whom, what it is, and how long ago it was confirmed.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    /// Who reported it.
    pub(super) source: Arc<str>,
    /// Of the source's settings without their secrets.
    pub(super) settings: String,
    /// What was looked up.
    pub(super) lookup: Lookup,
    /// What was found.
    pub(super) observed: Arc<Observed>,
    /// When it was confirmed.
    pub(super) confirmed: SystemTime,
}

/// The folder, and what is in it.
#[derive(Debug)]
pub(super) struct LastKnown {
    folder: PathBuf,
    /// As far as we know, by file.
    on_disk: BTreeMap<PathBuf, Arc<Observed>>,
    writing: Option<JoinHandle<()>>,
    /// The last time, it could not be written; and that was told.
    failed: Arc<AtomicBool>,
    told: Arc<AtomicBool>,
}

impl LastKnown {
    /// This folder, which is made when there is something to keep.
    pub(super) fn new(folder: PathBuf) -> Self {
        LastKnown { folder, on_disk: BTreeMap::new(), writing: None, failed: Arc::default(), told: Arc::default() }
    }

    /// What was kept of these lookups: of a source by its name and settings.
    pub(super) fn read(&mut self, lookups: impl Iterator<Item = (Arc<str>, String, Lookup)>) -> Vec<Kept> {
        let mut all = Vec::new();
        for (source, settings, lookup) in lookups {
            let file = self.file(&source, &lookup.service);
            let Ok(bytes) = files::read(&file, LARGEST) else { continue };
            let Ok(record) = serde_json::from_slice::<Record>(&bytes) else { continue };
            let Record { source: by, settings: of, service, registered_as, tags, observed } = record;
            let same = (&by, &of, &service, &registered_as, &tags)
                == (&source, &settings, &lookup.service, &lookup.registered_as, &lookup.tags);
            let confirmed = std::fs::metadata(&file).and_then(|metadata| metadata.modified());
            let (true, Ok(confirmed)) = (same, confirmed) else { continue };
            let observed = Arc::new(observed);
            self.on_disk.insert(file, Arc::clone(&observed));
            all.push(Kept { source, settings, lookup, observed, confirmed });
        }
        all
    }

    /// Writes what is another one than on disk, beside. `all`: this is all that there is; then it is also written when each was
    /// confirmed, and files of what is no longer there go.
    pub(super) fn write(&mut self, kept: Vec<Kept>, all: bool) {
        if self.writing.as_ref().is_some_and(|writing| !writing.is_finished()) {
            return;
        }
        if self.failed.swap(false, Relaxed) {
            // Whatever is there, all of it is written.
            self.on_disk.clear();
        }
        let mut jobs = Vec::new();
        let mut files = BTreeSet::new();
        for kept in kept {
            let file = self.file(&kept.source, &kept.lookup.service);
            files.insert(file.clone());
            let is_there = self.on_disk.get(&file).is_some_and(|there| same(there, &kept.observed));
            if !is_there {
                self.on_disk.insert(file.clone(), Arc::clone(&kept.observed));
            }
            if all || !is_there {
                jobs.push((file, kept, !is_there));
            }
        }
        let is_gone = |file: &&PathBuf| all && !files.contains(*file);
        let gone: Vec<PathBuf> = self.on_disk.keys().filter(is_gone).cloned().collect();
        gone.iter().for_each(|file| drop(self.on_disk.remove(file)));
        if jobs.is_empty() && gone.is_empty() {
            return;
        }
        let (folder, failed, told) = (self.folder.clone(), Arc::clone(&self.failed), Arc::clone(&self.told));
        self.writing = Some(tokio::task::spawn_blocking(move || match put_all(&folder, &gone, jobs) {
            Ok(()) => told.store(false, Relaxed),
            Err(problem) => {
                failed.store(true, Relaxed);
                if !told.swap(true, Relaxed) {
                    let folder = folder.display();
                    tracing::warn!(
                        %folder,
                        %problem,
                        "what registries say cannot be kept for the next start; see `gateway.state_directory`"
                    );
                }
            }
        }));
    }

    fn file(&self, source: &str, service: &str) -> PathBuf {
        self.folder.join(format!("{}.json", digest::short(format!("{source}\0{service}").as_bytes())))
    }
}

fn same(one: &Observed, two: &Observed) -> bool {
    one.endpoints == two.endpoints
}

fn put_all(folder: &Path, gone: &[PathBuf], jobs: Vec<(PathBuf, Kept, bool)>) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    gone.iter().for_each(|file| drop(std::fs::remove_file(file)));
    jobs.into_iter().try_for_each(|(file, kept, whole)| put(&file, kept, whole))
}

fn put(file: &Path, kept: Kept, whole: bool) -> io::Result<()> {
    let Kept { source, settings, lookup, observed, confirmed } = kept;
    if whole {
        let Lookup { service, registered_as, tags, .. } = lookup;
        let observed = Observed { held: None, ..Observed::clone(&observed) };
        let record = Record { source, settings, service, registered_as, tags, observed };
        return files::put(file, &serde_json::to_vec(&record).map_err(io::Error::other)?, confirmed);
    }
    files::confirm(file, confirmed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::Entry;
    use std::os::unix::fs::PermissionsExt;

    fn kept(service: &str, port: u16, confirmed: SystemTime) -> Kept {
        let lookup =
            Lookup { service: service.into(), registered_as: service.to_owned(), tags: vec![], allow_empty: false };
        let address = ([127, 0, 0, 1], port).into();
        let entry = Entry { address, weight: 2, healthy: true, metadata: [("zone".to_owned(), "a".to_owned())].into() };
        let observed = Observed { endpoints: vec![entry], revision: "7".to_owned(), ..Observed::default() };
        Kept { source: "prod".into(), settings: "s".to_owned(), lookup, observed: Arc::new(observed), confirmed }
    }

    async fn write(last: &mut LastKnown, kept: &[Kept], all: bool) {
        last.write(kept.to_vec(), all);
        if let Some(writing) = last.writing.take() {
            writing.await.unwrap();
        }
        assert!(!last.failed.load(Relaxed));
    }

    #[tokio::test]
    async fn what_was_written_is_read_and_what_is_not_ours_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("state");
        let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let mut last = LastKnown::new(folder.clone());
        let mut all = vec![kept("users", 1, then), kept("orders", 2, then)];
        write(&mut last, &all, false).await;
        let read = |settings: &str| {
            let lookups = all.iter().map(|kept| (Arc::clone(&kept.source), settings.to_owned(), kept.lookup.clone()));
            let read = LastKnown::new(folder.clone()).read(lookups);
            read.into_iter().map(|kept| (kept.observed, kept.confirmed)).collect::<Vec<_>>()
        };
        let expected =
            |all: &[Kept]| all.iter().map(|kept| (Arc::clone(&kept.observed), kept.confirmed)).collect::<Vec<_>>();
        assert_eq!(read("s"), expected(&all));
        assert_eq!(read("another registry"), []);
        let mode = std::fs::metadata(last.file("prod", "users")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // Confirmed later; one is another, one is gone.
        let later = then + Duration::from_secs(60);
        let before = std::mem::replace(&mut all, vec![kept("users", 3, later)]);
        write(&mut last, &all, true).await;
        assert!(!last.file("prod", "orders").exists());
        let read_now = |all: &[Kept]| {
            let lookups = all.iter().map(|kept| (Arc::clone(&kept.source), "s".to_owned(), kept.lookup.clone()));
            let read = LastKnown::new(folder.clone()).read(lookups);
            read.into_iter().map(|kept| (kept.observed, kept.confirmed)).collect::<Vec<_>>()
        };
        assert_eq!(read_now(&before), expected(&all));
        let latest = [kept("users", 3, later + Duration::from_secs(1))];
        write(&mut last, &latest, false).await;
        assert_eq!(read_now(&all), expected(&all));
        write(&mut last, &latest, true).await;
        assert_eq!(read_now(&all), expected(&latest));
        std::fs::write(last.file("prod", "users"), b"{").unwrap();
        assert_eq!(read_now(&all), []);
    }
}
