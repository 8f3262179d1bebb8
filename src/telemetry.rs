//! Telling: traces, metrics and the access log, fed by each exchange when it finishes.

mod context;

pub use context::Context;

use crate::exchange::Exchange;

/// A worker's way to tell what happened. It never waits: what does not fit is dropped and counted.
#[derive(Debug, Default)]
pub struct Recorder {}

impl Recorder {
    /// Takes in an exchange that is over.
    pub fn finish(&self, exchange: &Exchange) {
        tracing::trace!(status = exchange.status, "finished");
    }
}
