//! Whether an endpoint may take traffic: who has put it aside, and since when nobody does.

use super::group::Group;
use super::ramp;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

/// Who puts endpoints aside, each for itself: one who has done so is the only one who can take it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::service) enum By {
    /// Active checks.
    Checks = 1,
    /// Connects that failed.
    Connects = 2,
    /// What its answers were like.
    Ejection = 4,
}

/// One endpoint's.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// Bits of [`By`].
    aside: AtomicU8,
    /// Nobody puts it aside since then, in ms since the process started.
    since_ms: AtomicU64,
    /// None: it is in no list yet.
    group: OnceLock<Arc<Group>>,
}

impl Standing {
    /// Of one that has come at `now_ms`; `by`: who puts it aside.
    pub(super) fn new(by: Option<By>, now_ms: u64) -> Self {
        let aside = by.map_or(0, |by| by as u8).into();
        Standing { aside, since_ms: now_ms.into(), group: OnceLock::new() }
    }

    /// Nobody puts it aside.
    pub(super) fn is_healthy(&self) -> bool {
        self.aside.load(Relaxed) == 0
    }

    /// Is it put aside by this one?
    pub(super) fn is_aside(&self, by: By) -> bool {
        self.aside.load(Acquire) & by as u8 != 0
    }

    /// Puts it aside. True: nobody did before.
    pub(super) fn put_aside(&self, by: By) -> bool {
        let before = self.aside.fetch_or(by as u8, AcqRel);
        if before & by as u8 == 0 {
            self.changed();
        }
        before == 0
    }

    /// The same if its service had so many changes until now; else nothing. None: this one has put it aside already.
    pub(super) fn put_aside_after(&self, seen: u64, by: By) -> Option<bool> {
        let before = self.aside.fetch_or(by as u8, AcqRel);
        if before & by as u8 != 0 {
            return None;
        }
        // First put aside and then counted: of two who do so at a time, one sees the other's or is too late.
        let done = self.group.get().is_none_or(|group| group.changed_after(seen));
        if !done {
            self.aside.fetch_and(!(by as u8), AcqRel);
            self.changed();
        }
        Some(done)
    }

    /// These put it aside no longer. Where nobody else does, it is healthy since `now_ms`.
    pub(super) fn take_back(&self, by: &[By], now_ms: u64) {
        let mask = by.iter().fold(0, |mask, by| mask | *by as u8);
        let before = self.aside.load(Acquire);
        if before & mask == 0 {
            return;
        }
        if before & !mask == 0 {
            self.since_ms.store(now_ms, Relaxed);
        }
        self.aside.fetch_and(!mask, AcqRel);
        self.changed();
    }

    /// When it became healthy last, in ms since the process started.
    pub(super) fn since_ms(&self) -> u64 {
        self.since_ms.load(Relaxed)
    }

    /// Its share of its weight, in thousandths.
    pub(super) fn ramp_permille(&self, now_ms: u64) -> u32 {
        let window_ms = self.group.get().map_or(0, |group| group.slow_start_ms());
        ramp::permille(self.since_ms(), window_ms, now_ms)
    }

    /// What it shares with the others of its service.
    pub(super) fn group(&self) -> Option<&Arc<Group>> {
        self.group.get()
    }

    /// It belongs to this one. Once only: it belongs to one service as long as it lives.
    pub(super) fn join(&self, group: &Arc<Group>) {
        let joined = self.group.get_or_init(|| Arc::clone(group));
        debug_assert!(Arc::ptr_eq(joined, group), "an endpoint belongs to one service");
    }

    fn changed(&self) {
        if let Some(group) = self.group.get() {
            group.changed();
        }
    }
}
