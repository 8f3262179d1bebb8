//! What the endpoints of one service share, whichever of its lists they are in.

use crate::service::admission::Lobby;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::time::Duration;

/// Belongs to a service's name and survives every snapshot.
#[derive(Debug, Default)]
pub struct Group {
    /// Changes of health of any of them, so that those which are ready to be picked are looked for again after each.
    changes: AtomicU64,
    slow_start_ms: AtomicU64,
    panic_percent: AtomicU32,
    /// Who waits until one of some of them has room.
    pub lobby: Arc<Lobby>,
}

impl Group {
    /// What its service's settings say now of `slow_start` and `panic`.
    pub fn declare(&self, slow_start: Option<Duration>, panic: Option<u32>) {
        let ms = slow_start.map_or(0, |window| u64::try_from(window.as_millis()).unwrap_or(u64::MAX));
        let before = (self.slow_start_ms.swap(ms, Relaxed), self.panic_percent.swap(panic.unwrap_or(0), Relaxed));
        if before != (ms, panic.unwrap_or(0)) {
            self.changed();
        }
    }

    /// Changes so far. Whoever sees the number sees what has changed.
    pub(in crate::service) fn changes(&self) -> u64 {
        self.changes.load(Acquire)
    }

    pub(super) fn changed(&self) {
        self.changes.fetch_add(1, Release);
    }

    /// One more change, if there were so many until now. False: there were others.
    pub(super) fn changed_after(&self, seen: u64) -> bool {
        self.changes.compare_exchange(seen, seen + 1, Release, Relaxed).is_ok()
    }

    /// How long an endpoint that has come needs until it takes its whole share, ms; 0: no time.
    pub(in crate::service) fn slow_start_ms(&self) -> u64 {
        self.slow_start_ms.load(Relaxed)
    }

    /// Where fewer of a hundred endpoints are usable, all count as usable; 0: they never do.
    pub(in crate::service) fn panic_percent(&self) -> u32 {
        self.panic_percent.load(Relaxed)
    }
}
