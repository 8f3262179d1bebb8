//! The private folder for compiled code: whoever can put a file there runs code in the gateway.

use super::scratch;
use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// How a folder's name begins that is ours for as long as the process lives; its process' number follows.
const TEMPORARY: &str = "wayside-cache-";

/// A folder that is ours alone.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// It goes when this goes.
    _temporary: Option<TempDir>,
}

impl Folder {
    /// Makes it if need be, and looks whether it can be used.
    ///
    /// # Errors
    /// It can't be made or written to, or somebody else could write to it.
    pub(super) fn open(path: &Path) -> Result<Folder, String> {
        let shown = path.display();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|e| format!("policies.cache: {shown} cannot be made: {e}; make it or name another folder"))?;
        let folder = Folder { path: path.to_owned(), _temporary: None };
        // The folder itself: what a test of its rights says is not what a file system that is read-only does.
        match tempfile::Builder::new().prefix(&scratch::prefix()).suffix(".scratch").tempfile_in(folder.check()?) {
            Err(error) if !is_full(&error) => {
                Err(format!("policies.cache: {shown} cannot be written to: {error}; name another folder"))
            }
            _ => Ok(folder),
        }
    }

    /// One that nobody else knows of, with what dead processes left of theirs taken away.
    ///
    /// # Errors
    /// There is no place for it.
    pub(super) fn temporary() -> Result<Folder, String> {
        let mut problem = String::new();
        // Where nothing else can be written to, memory often can.
        for place in [std::env::temp_dir(), "/var/tmp".into(), "/dev/shm".into(), "/run".into()] {
            scratch::forget_folders(&place, TEMPORARY);
            let prefix = format!("{TEMPORARY}{}", scratch::prefix());
            let private = Permissions::from_mode(0o700);
            match tempfile::Builder::new().prefix(&prefix).permissions(private).tempdir_in(&place) {
                Ok(temporary) => return Ok(Folder { path: temporary.path().to_owned(), _temporary: Some(temporary) }),
                Err(error) => problem = format!("{}: {error}; set TMPDIR to a folder to write to", place.display()),
            }
        }
        Err(problem)
    }

    /// As it was named.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where it is now, links followed; made again if it has gone with the directory that it lay in. Only we may write
    /// there.
    ///
    /// # Errors
    /// It is gone, or somebody else could put a file or another folder there.
    pub(super) fn check(&self) -> Result<PathBuf, String> {
        let us = rustix::process::geteuid().as_raw();
        let unreadable = |folder: &Path, error| format!("policies.cache: {} cannot be read: {error}", folder.display());
        let look = |folder: &Path| std::fs::metadata(folder).map_err(|error| unreadable(folder, error));
        // What goes wrong here is told by the next line.
        let _ = DirBuilder::new().mode(0o700).create(&self.path);
        // What is checked below is what is used.
        let path = self.path.canonicalize().map_err(|error| unreadable(&self.path, error))?;
        let folder = path.display();
        let metadata = look(&path)?;
        if metadata.uid() != us {
            return Err(format!("policies.cache: {folder} belongs to another user; name another folder"));
        }
        if metadata.mode() & 0o022 != 0 {
            return Err(format!("policies.cache: other users may write to {folder}; run: chmod 700 {folder}"));
        }
        if let Some(parent) = path.parent() {
            let metadata = look(parent)?;
            let sticky = metadata.mode() & 0o1000 != 0;
            if (metadata.uid() != us && metadata.uid() != 0) || (metadata.mode() & 0o002 != 0 && !sticky) {
                return Err(format!(
                    "policies.cache: other users may replace {folder}, since {} is theirs to write; name a folder \
                     elsewhere",
                    parent.display()
                ));
            }
        }
        Ok(path)
    }
}

/// Room may come back.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
