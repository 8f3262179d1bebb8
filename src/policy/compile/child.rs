//! The compiler's process: started, bounded, and what its end means.

use crate::policy::engine::Engine;
use crate::policy::refusal::Error;
use crate::policy::rooms::Space;
use rustix::process::{Resource, Rlimit, Signal, getrlimit};
use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

/// The hidden subcommand of `wayside` that runs [`child_main`].
pub const SUBCOMMAND: &str = "compile-policy";
/// JavaScript and Python components take 5 to 11 s, small ones 30 ms.
const MAX_TIME: Duration = Duration::from_secs(60);
/// Address space of the child. JavaScript and Python components need about 400 MiB of real memory, and twice that is
/// mapped along the way.
const MAX_MEMORY: u64 = 2 << 30;
/// What the child's exit code says.
const COMPONENT: i32 = 1;
const SYSTEM: i32 = 3;
/// The code of a process that panicked.
const PANICKED: i32 = 101;

/// Runs the compiler to its end, or ends it.
pub(super) async fn run(program: &Path, input: &Path, output: &Path) -> Result<(), Error> {
    let shown = program.display();
    let mut child = Command::new(program)
        .arg0("wayside")
        .arg(SUBCOMMAND)
        .args([input, output])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| Error::system(format!("{shown}: the compiler cannot be started"), &e))?;
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
        return Err(Error::System(too_slow()));
    };
    let status = status.map_err(|e| Error::system(format!("{shown}: the compiler cannot be waited for"), &e))?;
    judge(status, String::from_utf8_lossy(&said).trim())
}

fn too_slow() -> String {
    format!("compiling took longer than {} s and was ended", MAX_TIME.as_secs())
}

/// What the compiler's end means: is the component to blame, or the system?
fn judge(status: ExitStatus, said: &str) -> Result<(), Error> {
    let system = |what: String| Err(Error::System(if said.is_empty() { what } else { format!("{what}: {said}") }));
    let crashed = || {
        let limit = MAX_MEMORY >> 20;
        Err(Error::Component(format!("the compiler crashed ({status}; it has {limit} MiB of address space): {said}")))
    };
    match (status.code(), status.signal().and_then(Signal::from_named_raw)) {
        (Some(0), _) => Ok(()),
        (Some(COMPONENT), _) if !said.is_empty() => Err(Error::Component(said.to_owned())),
        (Some(SYSTEM), _) if !said.is_empty() => Err(Error::System(said.to_owned())),
        (Some(PANICKED), _) => crashed(),
        // The loader of programs, or a shell in its place.
        (Some(_), _) => system(format!("the compiler could not do its work ({status})")),
        (None, Some(Signal::KILL)) => system(
            "the compiler was killed (signal 9), as the system does when memory runs out: give the gateway's container or \
             machine more memory"
                .into(),
        ),
        (None, Some(Signal::XCPU)) => Err(Error::System(too_slow())),
        (None, Some(Signal::ABORT)) if said.contains("memory allocation of") && is_short_of_memory() => {
            system("the compiler ran out of memory: raise `ulimit -v`".into())
        }
        // A stack that overflows, an access that is none, an allocation that fails.
        (None, Some(Signal::ABORT | Signal::SEGV | Signal::ILL | Signal::FPE | Signal::TRAP)) => crashed(),
        (None, _) => system(format!("the compiler was ended ({status})")),
    }
}

/// The child has less address space than it would be given.
fn is_short_of_memory() -> bool {
    getrlimit(Resource::As).maximum.is_some_and(|limit| limit < MAX_MEMORY)
}

/// The child: compiles `input` into `output` within limits that it sets itself. What is wrong goes to standard error.
pub fn child_main(input: &Path, output: &Path) -> ExitCode {
    // Before it has less than the gateway.
    let space = Space::here();
    let limit = |limit: u64, grace: u64| Rlimit { current: Some(limit), maximum: Some(limit + grace) };
    // Where the system refuses a limit, the time limit of the parent is left.
    let _ = rustix::process::setrlimit(Resource::As, limit(MAX_MEMORY, 0));
    // At the first of these it is told, at the second it is killed, which would look like a lack of memory.
    let _ = rustix::process::setrlimit(Resource::Cpu, limit(MAX_TIME.as_secs(), 5));
    let _ = rustix::process::setrlimit(Resource::Core, limit(0, 0));
    // Traffic first; but a quarter of a busy core must be left, or a large component takes longer than it may.
    let _ = rustix::process::nice(5);
    match compile(space, input, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may be listening any more.
            let _ = writeln!(std::io::stderr(), "{error}");
            ExitCode::from(match error {
                Error::Component(_) => COMPONENT as u8,
                Error::System(_) => SYSTEM as u8,
            })
        }
    }
}

fn compile(space: Space, input: &Path, output: &Path) -> Result<(), Error> {
    let read = std::fs::read(input).map_err(|e| Error::system(input.display(), &e))?;
    let code = Engine::precompile_for(space, &read).map_err(Error::Component)?;
    let written =
        std::fs::write(output, code).and_then(|()| std::fs::set_permissions(output, Permissions::from_mode(0o600)));
    written.map_err(|e| Error::system(output.display(), &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_is_told_from_a_crash() {
        let code = |code: i32| ExitStatus::from_raw(code << 8);
        let signal = ExitStatus::from_raw;
        let component = [(code(1), "no policy"), (code(101), "panicked"), (signal(11), ""), (signal(6), "overflowed")];
        let system = [
            (code(3), "No space left on device"),
            (code(1), ""),
            (code(127), "error while loading shared libraries"),
            (code(2), "unrecognized subcommand"),
            (signal(9), ""),
            (signal(15), ""),
            (signal(24), ""),
            (signal(7), ""),
        ];
        for (status, said) in component {
            assert!(matches!(judge(status, said), Err(Error::Component(_))), "{status} {said}");
        }
        for (status, said) in system {
            assert!(matches!(judge(status, said), Err(Error::System(_))), "{status} {said}");
        }
        let killed = judge(signal(9), "").unwrap_err().to_string();
        assert!(killed.contains("killed") && killed.contains("memory"), "{killed}");
        assert_eq!(judge(code(0), "a warning"), Ok(()));
    }
}
