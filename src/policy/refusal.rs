//! Why a component is not live: its own fault, or trouble of the system that the next try may not have.

use rustix::io::Errno;
use std::io;

/// Why there is no compiled code, or no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The component or its sidecar is bad, and will be the next time.
    #[error("{0}")]
    Component(String),
    /// The system refused something, or was too slow. The next time may be better.
    #[error("{0}")]
    System(String),
}

impl Error {
    /// What the system refused, with what can be done about it where that is known.
    pub(super) fn system(what: impl std::fmt::Display, error: &io::Error) -> Error {
        let advice = error.raw_os_error().map(Errno::from_raw_os_error).and_then(advice);
        Error::System(match advice {
            Some(advice) => format!("{what}: {error}; {advice}"),
            None => format!("{what}: {error}"),
        })
    }

    /// The same of what wasmtime says, if the system is behind that. None: it is not.
    pub(super) fn of_wasmtime(what: &str, error: &wasmtime::Error) -> Option<Error> {
        if error.is::<wasmtime::PoolConcurrencyLimitError>() {
            return Some(Error::System(format!("{what}: no room for another instance: {error}")));
        }
        error.chain().find_map(|cause| {
            let errno = cause.downcast_ref::<Errno>().map(|errno| io::Error::from_raw_os_error(errno.raw_os_error()));
            match (errno, cause.downcast_ref::<io::Error>()) {
                (Some(error), _) => Some(Error::system(what, &error)),
                (None, Some(error)) => Some(Error::system(what, error)),
                (None, None) => None,
            }
        })
    }
}

fn advice(errno: Errno) -> Option<&'static str> {
    Some(match errno {
        Errno::NOSPC | Errno::DQUOT => "the disk is full: make room there",
        Errno::MFILE => "no file descriptors are left: raise `ulimit -n`",
        Errno::NFILE => "the system has no file descriptors left: raise `fs.file-max`",
        Errno::AGAIN => "no process can be started: raise `ulimit -u`, or the container's limit on processes",
        Errno::NOMEM => "no memory is left: raise `ulimit -v`, or the container's limit on memory",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_refuses_comes_with_advice() {
        for (errno, expected) in [
            (Errno::NOSPC, "disk is full"),
            (Errno::MFILE, "ulimit -n"),
            (Errno::AGAIN, "ulimit -u"),
            (Errno::NOMEM, "ulimit -v"),
            (Errno::IO, "canary.wasm: "),
        ] {
            let error = Error::system("canary.wasm", &io::Error::from_raw_os_error(errno.raw_os_error()));
            assert!(matches!(&error, Error::System(said) if said.contains(expected)), "{error}");
        }
    }

    #[test]
    fn what_wasmtime_says_of_the_system_is_told_from_what_it_says_of_a_guest() {
        let mmap = wasmtime::Error::from(Errno::NOMEM).context("mmap failed").context("failed to instantiate");
        let error = Error::of_wasmtime("an instance", &mmap);
        assert!(matches!(&error, Some(Error::System(said)) if said.contains("memory")), "{error:?}");
        assert_eq!(Error::of_wasmtime("an instance", &wasmtime::Error::from(wasmtime::Trap::StackOverflow)), None);
        assert_eq!(Error::of_wasmtime("an instance", &wasmtime::format_err!("memory minimum size exceeds")), None);
    }
}
