//! What an endpoint says before its response: 100, upon which a body goes that was held back, and 103, which is counted
//! and dropped, since hyper cannot send it on.

use http::{HeaderMap, Request, StatusCode, Version, header};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::time::Alarm;

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
struct Asked {
    yes: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Gate {
    pub(super) fn closed() -> Self {
        Gate { asked: Arc::default(), until: Instant::now() + PATIENCE, alarm: Alarm::default() }
    }

    /// Ready once the body may go.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        *self.asked.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        if self.asked.yes.load(Relaxed) { Poll::Ready(()) } else { self.alarm.poll(cx, self.until) }
    }
}

impl Asked {
    fn go_on(&self) {
        self.yes.store(true, Relaxed);
        if let Some(waker) = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take() {
            waker.wake();
        }
    }
}

/// Listens for what comes before the response to this request.
pub(super) fn listen<B>(request: &mut Request<B>, gate: Option<&Gate>, early_hints: &Arc<AtomicU64>) {
    let (asked, early_hints) = (gate.map(|gate| Arc::clone(&gate.asked)), Arc::clone(early_hints));
    hyper::ext::on_informational(request, move |response| match (response.status(), &asked) {
        (StatusCode::CONTINUE, Some(asked)) => asked.go_on(),
        (StatusCode::EARLY_HINTS, _) => drop(early_hints.fetch_add(1, Relaxed)),
        _ => {}
    });
}

/// The client waits with its body until it is asked for it. HTTP/1.0 does not know that (RFC 9110 §10.1.1), and hyper
/// does not ask in HTTP/2.
pub(super) fn waits(version: Version, headers: &HeaderMap) -> bool {
    let expect = headers.get(header::EXPECT);
    version == Version::HTTP_11 && expect.is_some_and(|expect| expect.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}
