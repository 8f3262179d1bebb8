//! From a component to compiled code, in a child process: a component that makes the compiler crash, hang or eat
//! memory costs that child. What comes out is kept in a private folder, since loading compiled code is trusting it.

use super::Engine;
use crate::base::digest;
use rustix::process::{Resource, Rlimit};
use std::fs::{DirBuilder, File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};
use tokio::io::AsyncReadExt;
use tokio::process::Command;

/// The hidden subcommand of `wayside` that runs [`child_main`].
pub const SUBCOMMAND: &str = "compile-policy";
/// A longer component is refused before it is read. Python's are 18 MB.
pub const MAX_COMPONENT: u64 = 64 << 20;
/// JavaScript and Python components take 5 to 11 s, small ones 30 ms.
const MAX_TIME: Duration = Duration::from_secs(60);
/// Address space of the child. JavaScript and Python components need about 400 MiB of real memory, and twice that is
/// mapped along the way.
const MAX_MEMORY: u64 = 2 << 30;
/// An entry that was not used for so long is thrown away.
const MAX_AGE: Duration = Duration::from_secs(30 * 24 * 3600);

/// Why there is no compiled code.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The component is bad, and will be the next time.
    #[error("{0}")]
    Component(String),
    /// The system refused something, or was too slow. The next time may be better.
    #[error("{0}")]
    System(String),
}

/// Compiled components, by content.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    program: PathBuf,
    /// Of compiler and machine: code compiled by another one is not found.
    fingerprint: String,
}

impl Cache {
    /// Opens the cache in `folder`, which is made if need be. `program` is the `wayside` binary to compile with.
    ///
    /// # Errors
    /// The folder can't be made, or somebody else could write to it.
    pub fn open(folder: &Path, program: &Path) -> Result<Cache, String> {
        // Links are followed once, here: what is checked below is what is used.
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder).and_then(|()| folder.canonicalize());
        let folder = made.map_err(|e| {
            format!("policies.cache: {} cannot be made: {e}; make it or name another folder", folder.display())
        })?;
        let cache = Cache { folder, program: program.to_owned(), fingerprint: Engine::fingerprint()? };
        cache.check_owner()?;
        cache.forget_old();
        Ok(cache)
    }

    /// The file with the compiled code of this component. Compiles it where there is none yet.
    ///
    /// # Errors
    /// Why it does not compile, or what the system refused, in a sentence.
    pub async fn compiled(&self, component: &[u8], component_digest: &str) -> Result<PathBuf, Error> {
        if component.len() as u64 > MAX_COMPONENT {
            return Err(Error::Component(too_big()));
        }
        // It may have gone, with the directory that it lies in. What goes wrong here is told below.
        let _ = DirBuilder::new().mode(0o700).create(&self.folder);
        self.check_owner().map_err(Error::System)?;
        let key = digest::full(format!("{component_digest} {}", self.fingerprint).as_bytes());
        let compiled = self.folder.join(format!("{key}.cwasm"));
        if is_intact(&compiled).await {
            return Ok(compiled);
        }
        let scratch = Scratch::new(&self.folder);
        let written = tokio::fs::write(&scratch.input, component).await;
        written.map_err(|e| Error::System(format!("{}: cannot be written: {e}", scratch.input.display())))?;
        self.run_child(&scratch).await?;
        let kept = self.keep(&scratch, &compiled).await;
        kept.map_err(|e| Error::System(format!("{}: cannot be written: {e}", compiled.display())))?;
        Ok(compiled)
    }

    /// Runs the compiler to its end, or ends it.
    async fn run_child(&self, scratch: &Scratch) -> Result<(), Error> {
        let program = self.program.display();
        let mut child = Command::new(&self.program)
            .arg(SUBCOMMAND)
            .args([&scratch.input, &scratch.output])
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| Error::System(format!("{program}: the compiler cannot be started: {e}")))?;
        let stderr = child.stderr.take();
        let run = async {
            let mut said = Vec::new();
            if let Some(stderr) = stderr {
                // Read first, wait then: a child that says more than this gets a broken pipe, not a full one.
                let _ = stderr.take(16 << 10).read_to_end(&mut said).await;
            }
            (child.wait().await, said)
        };
        let Ok((status, said)) = tokio::time::timeout(MAX_TIME, run).await else {
            let _ = child.kill().await;
            return Err(Error::System(format!("compiling took longer than {} s and was ended", MAX_TIME.as_secs())));
        };
        let status = status.map_err(|e| Error::System(format!("{program}: the compiler cannot be waited for: {e}")))?;
        if status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&said);
        Err(Error::Component(match status.code() {
            Some(1) if !said.trim().is_empty() => said.trim().to_owned(),
            // An allocation that fails aborts, and so does a stack that overflows.
            _ => format!(
                "the compiler crashed ({status}; it has {} MiB of address space): {}",
                MAX_MEMORY >> 20,
                said.trim()
            ),
        }))
    }

    /// Moves what the child wrote into its place, the digest first: code without a digest is never loaded.
    async fn keep(&self, scratch: &Scratch, compiled: &Path) -> io::Result<()> {
        let code = tokio::fs::read(&scratch.output).await?;
        tokio::fs::write(&scratch.digest, digest::full(&code)).await?;
        tokio::fs::rename(&scratch.digest, digest_path(compiled)).await?;
        tokio::fs::rename(&scratch.output, compiled).await
    }

    /// Only we may write here: whoever can put a file here, or another folder in its place, runs code in the gateway.
    fn check_owner(&self) -> Result<(), String> {
        let us = rustix::process::geteuid().as_raw();
        let look = |folder: &Path| {
            std::fs::metadata(folder).map_err(|e| format!("policies.cache: {} cannot be read: {e}", folder.display()))
        };
        let folder = self.folder.display();
        let metadata = look(&self.folder)?;
        if metadata.uid() != us {
            return Err(format!("policies.cache: {folder} belongs to another user; name another folder"));
        }
        if metadata.mode() & 0o022 != 0 {
            return Err(format!("policies.cache: other users may write to {folder}; run: chmod 700 {folder}"));
        }
        if let Some(parent) = self.folder.parent() {
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
        Ok(())
    }

    /// Throws away what nobody has used for a month, and what a killed gateway left behind.
    fn forget_old(&self) {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return };
        for entry in entries.flatten() {
            let ours = entry.path().extension().is_some_and(|e| e == "cwasm" || e == "sha256" || e == "scratch");
            let age = entry.metadata().and_then(|m: Metadata| m.modified()).ok().and_then(|t| t.elapsed().ok());
            if ours && age.is_some_and(|age| age > MAX_AGE) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
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
    matches!(tokio::task::spawn_blocking(check).await, Ok(Ok(true)))
}

/// File names of one compilation; whatever is still there in the end is removed.
struct Scratch {
    input: PathBuf,
    output: PathBuf,
    digest: PathBuf,
}

impl Scratch {
    fn new(folder: &Path) -> Scratch {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let stem = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let path = |what: &str| folder.join(format!("{stem}-{what}.scratch"));
        Scratch { input: path("in"), output: path("out"), digest: path("digest") }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for path in [&self.input, &self.output, &self.digest] {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The child: compiles `input` into `output` within limits that it sets itself. What is wrong goes to standard error.
pub fn child_main(input: &Path, output: &Path) -> ExitCode {
    let limit = |limit: u64| Rlimit { current: Some(limit), maximum: Some(limit) };
    // Where the system refuses a limit, the time limit of the parent is left.
    let _ = rustix::process::setrlimit(Resource::As, limit(MAX_MEMORY));
    let _ = rustix::process::setrlimit(Resource::Cpu, limit(MAX_TIME.as_secs()));
    let _ = rustix::process::setrlimit(Resource::Core, limit(0));
    // Traffic first; but a quarter of a busy core must be left, or a large component takes longer than it may.
    let _ = rustix::process::nice(5);
    let compile = || -> Result<(), String> {
        let read = std::fs::read(input).map_err(|e| format!("{}: {e}", input.display()))?;
        let code = Engine::precompile(&read)?;
        let write =
            std::fs::write(output, code).and_then(|()| std::fs::set_permissions(output, Permissions::from_mode(0o600)));
        write.map_err(|e| format!("{}: {e}", output.display()))
    };
    match compile() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
