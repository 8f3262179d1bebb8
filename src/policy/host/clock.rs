//! `clock`: the exchange's start, which does not move during a call.

use crate::policy::bindings::wayside::policy::clock::Host;
use crate::policy::context::Context;

impl Host for Context {
    fn now_ms(&mut self) -> u64 {
        self.question("clock.now-ms").map_or(0, |question| question.now_ms)
    }
}
