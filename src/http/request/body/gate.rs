//! What holds a body back until the endpoint asks for it (RFC 9110 §10.1.1).

use crate::base::time::Alarm;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// A body goes all the same after this time, since not every endpoint knows what it was asked (RFC 9110 §10.1.1).
const PATIENCE: Duration = Duration::from_secs(1);

/// Holds a body back until the endpoint asks for it.
#[derive(Debug)]
pub struct Gate {
    asked: Arc<Asked>,
    until: Instant,
    alarm: Alarm,
}

/// hyper wants to be able to share it, so this cannot be the worker's own; only bodies that are held back have one.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    yes: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Gate {
    pub(crate) fn closed() -> Self {
        Gate { asked: Arc::default(), until: Instant::now() + PATIENCE, alarm: Alarm::default() }
    }

    /// Who can open it.
    pub(crate) fn asked(&self) -> Arc<Asked> {
        Arc::clone(&self.asked)
    }

    /// Ready once the body may go.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        *self.asked.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        if self.asked.yes.load(Relaxed) { Poll::Ready(()) } else { self.alarm.poll(cx, self.until) }
    }
}

impl Asked {
    pub(crate) fn go_on(&self) {
        self.yes.store(true, Relaxed);
        if let Some(waker) = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take() {
            waker.wake();
        }
    }
}
