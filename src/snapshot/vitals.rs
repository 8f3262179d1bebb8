//! How the gateway itself is doing: which part of its life it is in, and whether control is alive.

use crate::base::time::process_ms;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Control beats at least this often while it is alive and no event keeps it.
pub const BEAT: Duration = Duration::from_millis(250);
/// Control that did not beat for so long is stuck.
pub const STUCK: Duration = Duration::from_secs(10);

/// A part of the gateway's life, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not all sources have answered, and no port listens.
    Starting,
    /// It serves.
    Serving,
    /// It serves, and asks its clients to go: others shall take its place.
    Leaving,
    /// It accepts nothing, and ends what is in flight.
    Draining,
}

/// Written by the gateway and by control, read by whoever is asked.
#[derive(Debug)]
pub struct Vitals {
    phase: AtomicU8,
    beat_ms: AtomicU64,
    /// Events that control could not handle, since the start.
    panics: AtomicU64,
}

impl Default for Vitals {
    fn default() -> Self {
        Vitals {
            phase: AtomicU8::new(Phase::Starting as u8),
            beat_ms: AtomicU64::new(process_ms()),
            panics: AtomicU64::new(0),
        }
    }
}

impl Vitals {
    /// From now on.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
    }

    /// Now.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            0 => Phase::Starting,
            1 => Phase::Serving,
            2 => Phase::Leaving,
            _ => Phase::Draining,
        }
    }

    /// Clients shall go: each response is the last of its connection.
    pub fn leaving(&self) -> bool {
        self.phase.load(Relaxed) >= Phase::Leaving as u8
    }

    /// Control is alive.
    pub fn beat(&self) {
        self.beat_ms.store(process_ms(), Relaxed);
    }

    /// Time since control was last alive.
    pub fn control_age(&self) -> Duration {
        Duration::from_millis(process_ms().saturating_sub(self.beat_ms.load(Relaxed)))
    }

    /// Control was alive for the last [`STUCK`].
    pub fn control_is_alive(&self) -> bool {
        self.control_age() < STUCK
    }

    /// Control could not handle an event, and goes on with the next.
    pub fn panicked(&self) {
        self.panics.fetch_add(1, Relaxed);
    }

    /// How often that was so.
    pub fn panics(&self) -> u64 {
        self.panics.load(Relaxed)
    }
}
