//! A shelf's copy in a folder of our own: whoever reads the folder needs to know nothing of shelves, and what was there last
//! is there after a restart, whether or not the store is.

use super::{Manifest, Seen, Shelf};
use crate::base::{digest, files};
use crate::discovery::backoff::Backoff;
use crate::discovery::keeper::longest_wait;
use crate::discovery::registry::{Failure, Kind};
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// What the copy is of, in its folder.
const COPIED: &str = ".manifest";
/// A manifest is no larger, bytes.
const MANIFEST: u64 = 4 << 20;
/// Two looks never follow closer, whatever the store says.
const LEAST: Duration = Duration::from_millis(50);

/// Keeps a folder as a shelf is.
#[derive(Debug)]
pub struct Mirror {
    shelf: Arc<Shelf>,
    folder: PathBuf,
    copied: Option<Manifest>,
    seen: Option<Seen>,
}

impl Mirror {
    /// In this folder, which is made if need be and must belong to us alone.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(shelf: Shelf, folder: &Path) -> Result<Self, String> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|error| format!("{} cannot be made: {error}", folder.display()))?;
        let copied = files::read(&folder.join(COPIED), MANIFEST).ok();
        let copied = copied.and_then(|bytes| Manifest::parse(&bytes).ok());
        Ok(Mirror { shelf: Arc::new(shelf), folder: folder.to_owned(), copied, seen: None })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A whole shelf was copied, now or by an earlier process.
    pub fn has_copy(&self) -> bool {
        self.copied.is_some()
    }

    /// Copies the shelf as it is now, or at its next change.
    ///
    /// # Errors
    /// What the store says, or what is wrong with what it holds. The copy stays as it was.
    pub async fn copy(&mut self) -> Result<(), Failure> {
        let seen = match &self.seen {
            None => self.shelf.manifest().await?,
            Some(seen) => self.shelf.next(seen).await?,
        };
        let before = self.seen.replace(seen.clone());
        if seen.version == 0 {
            let problem = "nothing was pushed there yet; use `wayside push`";
            // Which may be soon.
            return Err(Failure::new(Kind::Unreachable, problem));
        }
        if before.is_some_and(|before| before.bytes == seen.bytes) {
            return Ok(());
        }
        let copied = self.take(&seen).await;
        if copied.is_err() {
            // Looked at again at once, not at the next change.
            self.seen = None;
        }
        copied
    }

    async fn take(&mut self, seen: &Seen) -> Result<(), Failure> {
        let bad = |problem: String| Failure::new(Kind::BadAnswer, problem);
        let manifest = Manifest::parse(&seen.bytes).map_err(bad)?;
        if manifest.files.is_empty() {
            return Err(bad("the manifest names no file; the copy stays".to_owned()));
        }
        let before = self.copied.clone().unwrap_or_default();
        let mut written = Vec::new();
        for (name, content) in &manifest.files {
            if before.files.get(name) != Some(content) || !self.is_there(name, &content.sha256).await {
                written.push((name.clone(), self.shelf.content(content).await?));
            }
        }
        if written.is_empty() && before == manifest {
            return Ok(());
        }
        let gone = before.files.keys().filter(|name| !manifest.files.contains_key(*name)).cloned().collect();
        // What names the others comes last.
        written.sort_by_key(|(name, _)| !name.contains('/'));
        let (folder, bytes, count) = (self.folder.clone(), seen.bytes.clone(), written.len());
        let put = tokio::task::spawn_blocking(move || put_all(&folder, written, gone, &bytes)).await;
        let put = put.map_err(io::Error::other).flatten();
        put.map_err(|error| bad(format!("{}: {error}", self.folder.display())))?;
        tracing::info!(folder = %self.folder.display(), files = manifest.files.len(), written = count, "copied from its shelf");
        self.copied = Some(manifest);
        Ok(())
    }

    async fn is_there(&self, name: &str, sha256: &str) -> bool {
        let file = self.folder.join(name);
        let read = tokio::task::spawn_blocking(move || files::read(&file, super::LARGEST)).await;
        read.is_ok_and(|read| read.is_ok_and(|bytes| digest::full(&bytes) == sha256))
    }

    /// The first copy: waits for the store for this long at most, a tenth of it where there is a copy of an earlier process.
    ///
    /// # Errors
    /// There is none.
    pub async fn begin(&mut self, within: Duration) -> Result<(), String> {
        let within = if self.has_copy() { within / 10 } else { within };
        let mut backoff = Backoff::seeded();
        let mut last = "the store does not answer".to_owned();
        let copied = async {
            while let Err(failure) = self.copy().await {
                last.clone_from(&failure.problem);
                sleep(backoff.wait_within(longest_wait(&failure))).await;
            }
        };
        let copied = timeout(within, copied).await.is_ok();
        match copied {
            true => Ok(()),
            false if self.has_copy() => {
                tracing::warn!(folder = %self.folder.display(), problem = last, "beginning with what was copied last");
                Ok(())
            }
            false => Err(last),
        }
    }

    /// Copies it, and goes on with each change, for ever.
    pub async fn follow(mut self) {
        let (mut backoff, mut failed) = (Backoff::seeded(), None::<String>);
        loop {
            let begun = Instant::now();
            match self.copy().await {
                Ok(()) => {
                    backoff.reset();
                    if failed.take().is_some() {
                        tracing::info!(folder = %self.folder.display(), "the shelf is followed again");
                    }
                    sleep(LEAST.saturating_sub(begun.elapsed())).await;
                }
                Err(failure) => {
                    if failed.as_ref() != Some(&failure.problem) {
                        let folder = self.folder.display();
                        tracing::warn!(%folder, problem = failure.problem, "the shelf cannot be copied; what was copied stays");
                        failed = Some(failure.problem.clone());
                    }
                    sleep(backoff.wait_within(longest_wait(&failure))).await;
                }
            }
        }
    }
}

/// All new content first, beside; then it is renamed, and the manifest last.
fn put_all(folder: &Path, written: Vec<(String, Vec<u8>)>, gone: Vec<String>, manifest: &[u8]) -> io::Result<()> {
    let private = |file: &Path, bytes: &[u8]| {
        let mut opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file)?;
        opened.write_all(bytes)
    };
    let beside = folder.join(".new");
    let _ = std::fs::remove_dir_all(&beside);
    DirBuilder::new().mode(0o700).create(&beside)?;
    for (number, (_, bytes)) in written.iter().enumerate() {
        private(&beside.join(number.to_string()), bytes)?;
    }
    for (number, (name, _)) in written.iter().enumerate() {
        let file = folder.join(name);
        if let Some(parent) = file.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        }
        std::fs::rename(beside.join(number.to_string()), file)?;
    }
    for name in gone {
        match std::fs::remove_file(folder.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    private(&beside.join("manifest"), manifest)?;
    std::fs::rename(beside.join("manifest"), folder.join(COPIED))?;
    std::fs::remove_dir(&beside)
}
