//! Files of one compilation, and what dead processes left of theirs.

use rustix::process::{Pid, test_kill_process};
use std::fs::{Metadata, remove_dir_all, remove_file};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

/// No compilation takes so long: what is older belongs to a process that only has the number of the one that made it.
const TOO_OLD: Duration = Duration::from_secs(600);
/// Clocks of file systems lag behind by a few ms.
const GRAIN: Duration = Duration::from_millis(100);

/// File names of one compilation; whatever is still there in the end is removed.
pub(super) struct Scratch {
    pub(super) input: PathBuf,
    pub(super) output: PathBuf,
    pub(super) digest: PathBuf,
}

impl Scratch {
    pub(super) fn new(folder: &Path) -> Scratch {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let stem = format!("{}{}", prefix(), COUNT.fetch_add(1, Relaxed));
        let path = |what: &str| folder.join(format!("{stem}-{what}.scratch"));
        Scratch { input: path("in"), output: path("out"), digest: path("digest") }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for path in [&self.input, &self.output, &self.digest] {
            let _ = remove_file(path);
        }
    }
}

/// What the names of this process' files begin with.
pub(super) fn prefix() -> String {
    format!("{}-", std::process::id())
}

/// Removes scratch files that nobody will come back for.
pub(super) fn forget(folder: &Path) {
    for (path, metadata) in left_behind(folder, "") {
        if path.extension().is_some_and(|extension| extension == "scratch") && metadata.is_file() {
            let _ = remove_file(path);
        }
    }
}

/// The same with whole folders whose names begin so.
pub(super) fn forget_folders(place: &Path, prefix: &str) {
    for (path, metadata) in left_behind(place, prefix) {
        if metadata.is_dir() {
            let _ = remove_dir_all(path);
        }
    }
}

/// What is named after a process that is not, with this before its number.
fn left_behind(folder: &Path, prefix: &str) -> Vec<(PathBuf, Metadata)> {
    static STARTED: OnceLock<SystemTime> = OnceLock::new();
    let started = *STARTED.get_or_init(|| SystemTime::now() - GRAIN);
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let dead = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let owner = name.strip_prefix(prefix)?.split('-').next()?.parse::<u32>().ok()?;
        let metadata = entry.metadata().ok()?;
        let changed = metadata.modified().ok()?;
        // In a container, processes have the same number time and again.
        let alive = match owner == std::process::id() {
            true => changed >= started,
            false => is_alive(owner) && (!prefix.is_empty() || changed.elapsed().is_ok_and(|age| age < TOO_OLD)),
        };
        (!alive).then(|| (entry.path(), metadata))
    });
    dead.collect()
}

fn is_alive(process: u32) -> bool {
    let process = i32::try_from(process).ok().and_then(Pid::from_raw);
    process.is_some_and(|process| test_kill_process(process) != Err(rustix::io::Errno::SRCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dead_processes_left_is_removed_at_once_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: String, old: bool| {
            let path = folder.path().join(name);
            let file = std::fs::File::create(&path).unwrap();
            if old {
                file.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
            }
            path
        };
        let us = std::process::id();
        let dead = [
            put("4199999-0-in.scratch".into(), false),
            put(format!("{us}-7-out.scratch"), true),
            put("1-0-in.scratch".into(), true),
        ];
        forget(folder.path());
        assert!(dead.iter().all(|path| !path.exists()), "{dead:?}");

        let kept = [
            put(format!("{us}-1-in.scratch"), false),
            put("1-0-out.scratch".into(), false),
            put("4199999-0-in.cwasm".into(), false),
            put("notes.scratch".into(), true),
        ];
        forget(folder.path());
        assert!(kept.iter().all(|path| path.exists()), "{kept:?}");

        let gone = folder.path().join("wayside-cache-4199999-Xy");
        let ours = folder.path().join(format!("wayside-cache-{us}-Xy"));
        std::fs::create_dir(&gone).unwrap();
        std::fs::create_dir(&ours).unwrap();
        std::fs::write(gone.join("a.cwasm"), "x").unwrap();
        forget_folders(folder.path(), "wayside-cache-");
        assert!(!gone.exists() && ours.exists());
    }
}
