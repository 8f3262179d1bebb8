//! From a component to compiled code, in a child process: a component that makes the compiler crash, hang or eat
//! memory costs that child. What comes out is kept in a private folder, since loading compiled code is trusting it.

mod child;
mod folder;
mod program;
mod scratch;

pub use child::{SUBCOMMAND, child_main};
pub use program::this_program;

use super::aside::aside;
use super::engine::Engine;
pub use super::refusal::Error;
use crate::base::digest;
use folder::Folder;
use scratch::Scratch;
use std::fs::{File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A longer component is refused before it is read. Python's are 18 MB.
pub const MAX_COMPONENT: u64 = 64 << 20;
/// An entry that was not used for so long is thrown away.
const MAX_AGE: Duration = Duration::from_secs(30 * 24 * 3600);

/// Compiled components, by content.
#[derive(Debug)]
pub struct Cache {
    folder: Folder,
    program: PathBuf,
    /// Of compiler and machine: code compiled by another one is not found.
    fingerprint: String,
}

impl Cache {
    /// Opens the cache in `folder`, which is made if need be. `program` is the `wayside` binary to compile with.
    ///
    /// # Errors
    /// The folder can't be made or written to, or somebody else could write to it.
    pub fn open(folder: &Path, program: &Path) -> Result<Cache, String> {
        Cache::in_folder(Folder::open(folder)?, program)
    }

    /// The same; where `folder` cannot be used, one of our own for as long as this lives. The log says so.
    ///
    /// # Errors
    /// There is no place for that either.
    pub fn open_or_temporary(folder: &Path, program: &Path) -> Result<Cache, String> {
        let problem = match Folder::open(folder) {
            Ok(folder) => return Cache::in_folder(folder, program),
            Err(problem) => problem,
        };
        let temporary = Folder::temporary().map_err(|none| format!("{problem}; nor is there another place: {none}"))?;
        tracing::warn!(problem, temporary = %temporary.path().display(),
            "no cache for policies: after a restart they are compiled again, and their last good versions are gone");
        Cache::in_folder(temporary, program)
    }

    fn in_folder(folder: Folder, program: &Path) -> Result<Cache, String> {
        let cache = Cache { folder, program: program.to_owned(), fingerprint: Engine::fingerprint()? };
        cache.forget_old();
        Ok(cache)
    }

    /// The folder as it is now, which nobody but us can write to.
    ///
    /// # Errors
    /// It is gone, or somebody else could write to it.
    pub(super) fn folder(&self) -> Result<PathBuf, String> {
        self.folder.check()
    }

    /// The file with the compiled code of this component. Compiles it where there is none yet.
    ///
    /// # Errors
    /// Why it does not compile, or what the system refused, in a sentence.
    pub async fn compiled(&self, component: &[u8], component_digest: &str) -> Result<PathBuf, Error> {
        if component.len() as u64 > MAX_COMPONENT {
            return Err(Error::Component(too_big()));
        }
        let folder = self.folder().map_err(Error::System)?;
        let key = digest::full(format!("{component_digest} {}", self.fingerprint).as_bytes());
        let compiled = folder.join(format!("{key}.cwasm"));
        if is_intact(&compiled).await {
            return Ok(compiled);
        }
        let scratch = Arc::new(Scratch::new(&folder));
        let refused =
            |path: &Path, error: &io::Error| Error::system(format!("{}: cannot be written", path.display()), error);
        let (input, bytes) = (scratch.input.clone(), component.to_owned());
        let written = aside(move || std::fs::write(input, bytes)).await.and_then(|written| written);
        written.map_err(|e| refused(&scratch.input, &e))?;
        child::run(&self.program, &scratch.input, &scratch.output).await?;
        let (files, to) = (Arc::clone(&scratch), compiled.clone());
        let kept = aside(move || keep(&files, &to)).await.and_then(|kept| kept);
        kept.map_err(|e| refused(&compiled, &e))?;
        Ok(compiled)
    }

    /// Throws away what nobody has used for a month, and what a killed gateway left behind.
    fn forget_old(&self) {
        scratch::forget(self.folder.path());
        let Ok(entries) = std::fs::read_dir(self.folder.path()) else { return };
        for entry in entries.flatten() {
            let ours = entry.path().extension().is_some_and(|e| e == "cwasm" || e == "sha256");
            let age = entry.metadata().and_then(|m: Metadata| m.modified()).ok().and_then(|t| t.elapsed().ok());
            if ours && age.is_some_and(|age| age > MAX_AGE) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

/// Moves what the child wrote into its place, the digest first: code without a digest is never loaded.
fn keep(scratch: &Scratch, compiled: &Path) -> io::Result<()> {
    let code = std::fs::read(&scratch.output)?;
    std::fs::write(&scratch.digest, digest::full(&code))?;
    std::fs::rename(&scratch.digest, digest_path(compiled))?;
    std::fs::rename(&scratch.output, compiled)
}

/// What every reader of components says about one that is too big.
pub(super) fn too_big() -> String {
    format!("the component is larger than {} MiB", MAX_COMPONENT >> 20)
}

fn digest_path(compiled: &Path) -> PathBuf {
    compiled.with_extension("sha256")
}

/// Is the code there, and is it what the compiler wrote? If so, it counts as used now.
async fn is_intact(compiled: &Path) -> bool {
    let compiled = compiled.to_owned();
    let check = move || {
        let expected = std::fs::read_to_string(digest_path(&compiled))?;
        let code = std::fs::read(&compiled)?;
        let intact = digest::full(&code) == expected.trim();
        if intact {
            for path in [&compiled, &digest_path(&compiled)] {
                let _ = File::options().append(true).open(path).and_then(|file| file.set_modified(SystemTime::now()));
            }
        } else {
            tracing::warn!(file = %compiled.display(), "compiled policy was damaged; compiling it again");
        }
        io::Result::Ok(intact)
    };
    matches!(aside(check).await, Ok(Ok(true)))
}
