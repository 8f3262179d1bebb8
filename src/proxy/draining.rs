//! The drain, as a connection sees it.

use std::pin::Pin;
use std::task::{Context, Waker};
use tokio::sync::watch;

/// Whether the drain began, which a connection asks often and is told once.
pub(super) struct Draining {
    /// None: it began.
    began: Option<Pin<Box<dyn Future<Output = ()>>>>,
    seen: watch::Receiver<bool>,
    /// Whom the drain wakes.
    waker: Option<Waker>,
}

impl Draining {
    /// Of a connection that learns of it so.
    pub(super) fn new(drain: watch::Receiver<bool>) -> Self {
        let (seen, mut asked) = (drain.clone(), drain);
        // A lock, so once for each connection.
        let has_begun = *seen.borrow();
        let began = async move { drop(asked.wait_for(|draining| *draining).await) };
        Draining { began: (!has_begun).then(|| Box::pin(began) as Pin<Box<_>>), seen, waker: None }
    }

    /// It did.
    pub(super) fn has_begun(&self) -> bool {
        self.began.is_none() || !matches!(self.seen.has_changed(), Ok(false))
    }

    /// The same, and whoever asks is woken when it does.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(began) = &mut self.began else { return true };
        // Once asked, the drain knows whom to wake.
        let asked = self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if asked && matches!(self.seen.has_changed(), Ok(false)) {
            return false;
        }
        self.waker = Some(cx.waker().clone());
        let ready = began.as_mut().poll(cx).is_ready();
        if ready {
            self.began = None;
        }
        ready
    }
}
