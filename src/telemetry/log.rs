//! The process log: lines on standard error. Whatever becomes of that stream, nobody waits for it or ends because of it.

use super::LAST_LINES;
use super::safe::OneLine;
use crate::base::lines;
use std::fmt::Write as _;
use std::io;
use std::time::{Duration, SystemTime};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// After a panic, which may be the last that this process does.
const AFTER_PANIC: Duration = Duration::from_millis(10);

/// Begins it, at what `RUST_LOG` says, else at `default`; panics are told in it as well. Colours where a person reads,
/// unless `NO_COLOR` is set.
pub fn start(default: &str) {
    use std::io::IsTerminal;
    let given = std::env::var("RUST_LOG").ok().filter(|given| !given.is_empty());
    let filter = given.as_ref().map(EnvFilter::try_new);
    let wrong = filter.as_ref().and_then(|filter| filter.as_ref().err()).map(ToString::to_string);
    let filter = filter.and_then(Result::ok).unwrap_or_else(|| default.into());
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours);
    // An error: somebody has begun one already.
    let _ = log.with_writer(ToStandardError).log_internal_errors(false).try_init();
    std::panic::set_hook(Box::new(panicked));
    if let Some(problem) = wrong {
        tracing::warn!(problem, "RUST_LOG: cannot be read, so it is not looked at");
    }
}

/// Waits until its lines are written, but not for long. For the process' end.
pub fn finish() {
    lines::error().flush(LAST_LINES);
}

/// Lines that were not written.
pub(super) fn dropped() -> u64 {
    lines::error().dropped()
}

/// Without the log's own machinery, in which the panic may have been.
fn panicked(panic: &std::panic::PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let mut line = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
    // Writing into a string does not fail.
    let _ = write!(line, " ERROR wayside: thread {} panicked", thread.name().unwrap_or("without a name"));
    if let Some(place) = panic.location() {
        let _ = write!(line, " at {place}");
    }
    let _ = writeln!(line, ": {}", OneLine(panic.payload_as_str().unwrap_or("no message")));
    lines::error().push(|| line);
    lines::error().flush(AFTER_PANIC);
}

/// Takes each event in one piece.
struct ToStandardError;

impl<'a> MakeWriter<'a> for ToStandardError {
    type Writer = ToStandardError;

    fn make_writer(&'a self) -> ToStandardError {
        ToStandardError
    }
}

impl io::Write for ToStandardError {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        lines::error().push(|| String::from_utf8_lossy(event).into_owned());
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
