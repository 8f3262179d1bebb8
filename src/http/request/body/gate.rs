//! What holds a body back until the endpoint asks for it (RFC 9110 §10.1.1).

use crate::base::time::Alarm;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// A body goes all the same after this time, since not every endpoint knows what it was asked (RFC 9110 §10.1.1).
const PATIENCE: Duration = Duration::from_secs(1);

/// Holds a body back until the endpoint asks for it.
#[derive(Debug)]
pub struct Gate {
    until: Instant,
    alarm: Alarm,
}

impl Gate {
    pub(crate) fn closed() -> Self {
        Gate { until: Instant::now() + PATIENCE, alarm: Alarm::default() }
    }

    /// Ready once the body may go unasked.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.alarm.poll(cx, self.until)
    }
}
