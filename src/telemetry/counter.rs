//! What is counted beside exchanges: one row each.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Something that is counted, all workers together: no common thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counter {
    /// A connection was closed at once, since too many are open.
    TurnedAway,
    /// A client did not get through its TLS handshake.
    HandshakeFailed,
    /// An interim response with status 103 could not be passed on.
    EarlyHint,
    /// A request was refused, since a worker has more to do than it can.
    Shed,
    /// A request's decisions were recorded.
    Recorded,
    /// A request's decisions should have been recorded, and were not.
    NotRecorded,
}

impl Counter {
    /// Each once, in the order of their declaration: its name on the page, and what that says.
    pub(super) const ALL: [(Counter, &'static str, &'static str); 6] = [
        (
            Counter::TurnedAway,
            "wayside_connections_turned_away_total",
            "Connections that were closed at once, since as many as may be were open.",
        ),
        (
            Counter::HandshakeFailed,
            "wayside_tls_handshakes_failed_total",
            "Clients that did not get through their TLS handshake.",
        ),
        (
            Counter::EarlyHint,
            "wayside_early_hints_dropped_total",
            "Interim responses with status 103 from endpoints, to clients that could not be told of them.",
        ),
        (
            Counter::Shed,
            "wayside_shed_total",
            "Requests that were refused since a worker had more to do than it could; see shed_when_late.",
        ),
        (Counter::Recorded, "wayside_recorded_total", "Requests whose policies' decisions went into a record file."),
        (
            Counter::NotRecorded,
            "wayside_not_recorded_total",
            "Requests that were to be recorded and were not: the queue or the disk was full, or they were too large.",
        ),
    ];
}

/// How often each of them was.
#[derive(Debug, Default)]
pub struct Counters([AtomicU64; Counter::ALL.len()]);

impl Counters {
    /// Once more.
    pub fn count(&self, counter: Counter) {
        self.0[counter as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize].load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_own_place() {
        let counters = Counters::default();
        for (place, (counter, ..)) in Counter::ALL.into_iter().enumerate() {
            assert_eq!(counter as usize, place);
            (0..=place).for_each(|_| counters.count(counter));
        }
        for (place, (counter, ..)) in Counter::ALL.into_iter().enumerate() {
            assert_eq!(counters.get(counter), place as u64 + 1);
        }
    }
}
