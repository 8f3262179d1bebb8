//! What commands say to whoever typed them. A reader that has gone away changes nothing: the exit code is the answer.

use std::fmt::Display;
use std::io::Write;

/// A line on standard output.
pub(super) fn say(text: impl Display) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// A line on standard error.
pub(super) fn complain(text: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
