//! `log`: lines for people. Works during `init` too.

use crate::policy::bindings::wayside::policy::log::Host;
use crate::policy::context::Context;
use crate::policy::cut::cut;
use crate::service::decision::LogLine;
use tracing::Level;

/// Lines kept of one call.
const LINES: usize = 16;
/// Bytes of a line.
const LINE: usize = 4096;

impl Host for Context {
    fn error(&mut self, message: String) {
        self.log(Level::ERROR, message);
    }

    fn warn(&mut self, message: String) {
        self.log(Level::WARN, message);
    }

    fn info(&mut self, message: String) {
        self.log(Level::INFO, message);
    }

    fn debug(&mut self, message: String) {
        self.log(Level::DEBUG, message);
    }
}

impl Context {
    fn log(&mut self, level: Level, mut message: String) {
        if self.call.logs.len() < LINES {
            cut(&mut message, LINE);
            self.call.logs.push(LogLine { level, message });
        }
    }
}
