//! What commands say to whoever typed them. A reader that has gone away changes nothing: the exit code is the answer.

use std::fmt::Display;
use std::io::{IsTerminal, Write};

/// A line on standard output.
pub(super) fn say(text: impl Display) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// A line on standard error.
pub(super) fn complain(text: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// How far it has come: one line on standard error that is written over until the `last` one, where somebody looks.
pub(super) fn progress(text: impl Display, last: bool) {
    let mut error = std::io::stderr().lock();
    if error.is_terminal() {
        let _ = write!(error, "\r{text}{}", if last { "\n" } else { "" });
        let _ = error.flush();
    }
}
