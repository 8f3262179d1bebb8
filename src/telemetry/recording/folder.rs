//! The folder that record files are kept in: a new file when one is large or old, and the oldest goes when there is too much.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A file is closed when it has so many bytes...
const LARGE: u64 = 64 << 20;
/// ...or is so old, ms.
const OLD: u64 = 3_600_000;
/// How the name of a file of ours ends.
pub const EXTENSION: &str = "wsr";
const BEGINS: &str = "wayside-";

/// Files in a folder, one of which is being written.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    max_size: u64,
    max_age: Duration,
    file: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    path: PathBuf,
    written: u64,
    begun_ms: u64,
}

impl Folder {
    pub(super) fn new(path: &Path, max_size: u64, max_age: Duration) -> Self {
        Folder { path: path.to_owned(), max_size, max_age, file: None }
    }

    /// The next frame begins a file.
    pub(super) fn is_due(&self, now_ms: u64) -> bool {
        let most = LARGE.min(self.max_size / 4);
        self.file.as_ref().is_none_or(|open| open.written >= most || now_ms.saturating_sub(open.begun_ms) >= OLD)
    }

    /// Begins a file, which only we may read: it holds what clients have sent.
    ///
    /// # Errors
    /// It cannot be made.
    pub(super) fn begin(&mut self, now_ms: u64) -> io::Result<()> {
        self.file = None;
        DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
        let mut number = now_ms;
        let (file, path) = loop {
            let path = self.path.join(format!("{BEGINS}{number:013}.{EXTENSION}"));
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => break (file, path),
                // Another gateway's, or one of this very moment.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < now_ms + 1000 => number += 1,
                Err(error) => return Err(error),
            }
        };
        self.file = Some(Open { file, path, written: 0, begun_ms: now_ms });
        self.sweep(SystemTime::now());
        Ok(())
    }

    /// Adds whole frames to the file.
    ///
    /// # Errors
    /// They could not be written, or not all of them; the file is closed.
    pub(super) fn write(&mut self, frames: &[u8]) -> io::Result<()> {
        let Some(open) = &mut self.file else { return Err(io::Error::other("no file is open")) };
        let written = open.file.write_all(frames);
        open.written += frames.len() as u64;
        if written.is_err() {
            self.file = None;
        }
        written
    }

    /// Removes what is too old, and the oldest while there is too much. The one that is being written stays.
    pub(super) fn sweep(&self, now: SystemTime) {
        let mut files: Vec<(PathBuf, u64, SystemTime)> = Vec::new();
        for entry in std::fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let ours = name.to_str().is_some_and(|name| name.starts_with(BEGINS) && name.ends_with(EXTENSION));
            if let Some(meta) = entry.metadata().ok().filter(|meta| ours && meta.is_file()) {
                files.push((entry.path(), meta.len(), meta.modified().unwrap_or(now)));
            }
        }
        files.sort();
        let mut all: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        let room = LARGE.min(self.max_size / 4);
        for (path, bytes, modified) in files {
            let open = self.file.as_ref().is_some_and(|open| open.path == path);
            let old = now.duration_since(modified).is_ok_and(|age| age > self.max_age);
            if !open && (old || all.saturating_add(room) > self.max_size) && std::fs::remove_file(&path).is_ok() {
                all -= bytes;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn files_follow_each_other_and_the_oldest_go() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("records");
        let mut folder = Folder::new(&path, 4 << 20, Duration::from_secs(3600));
        assert!(folder.is_due(0));
        for now_ms in 0..10 {
            folder.begin(now_ms).unwrap();
            assert!(!folder.is_due(now_ms) && folder.is_due(now_ms + OLD));
            folder.write(&vec![0; 1 << 20]).unwrap();
            assert!(folder.is_due(now_ms));
        }
        let left = names(&path);
        assert!(left.len() <= 4 && left.last().is_some_and(|name| name == "wayside-0000000000009.wsr"), "{left:?}");
        let mode = std::fs::metadata(path.join(&left[0])).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(path.join("other.wsr"), "").unwrap();
        folder.sweep(SystemTime::now() + Duration::from_secs(7200));
        assert_eq!(names(&path), ["other.wsr", "wayside-0000000000009.wsr"], "what is not ours stays");
    }

    #[test]
    fn two_that_begin_at_once_have_a_file_each() {
        let temporary = tempfile::tempdir().unwrap();
        let make = || Folder::new(temporary.path(), 1 << 30, Duration::from_secs(3600));
        let (mut one, mut two) = (make(), make());
        one.begin(7).unwrap();
        two.begin(7).unwrap();
        assert_eq!(names(temporary.path()).len(), 2);
    }
}
