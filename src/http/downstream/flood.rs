//! Bounds on what an HTTP/2 client can make us do for nothing: frames that carry nothing, and requests that it takes
//! back. hyper and h2 bound resets before a request is accepted, CONTINUATION and small DATA, but not these.

use crate::http::malformed::Malformed;
use std::time::{Duration, Instant};

/// Counts begin anew after this time.
const WINDOW: Duration = Duration::from_secs(10);
/// Frames without a request's or a body's bytes in a window, beside those that are earned.
const CONTROL: u64 = 2_000;
/// So many more for each request: its windows, its priority, its end.
const FOR_A_REQUEST: u64 = 10;
/// One more for so many bytes that the client was sent, each of which it may account for in two windows.
const BYTES_FOR_ONE: u64 = 1024;
/// Requests taken back in a window, beside as many as were not: a page that is left takes back all of its own.
const CANCELLED: u64 = 500;

/// What one connection has done in its window.
#[derive(Debug)]
pub(crate) struct Flood {
    since: Instant,
    requests: u64,
    control: u64,
    written: u64,
    ended: u64,
    cancelled: u64,
}

impl Flood {
    /// A connection that began then.
    pub(crate) fn new(since: Instant) -> Self {
        Flood { since, requests: 0, control: 0, written: 0, ended: 0, cancelled: 0 }
    }

    /// Frames have come: so many requests' heads, and so many that belong to no head and no body.
    pub(crate) fn frames(&mut self, requests: u64, control: u64, now: impl FnOnce() -> Instant) -> Option<Malformed> {
        self.requests += requests;
        self.control += control;
        let earned = self.requests * FOR_A_REQUEST + self.written / BYTES_FOR_ONE;
        (self.control > CONTROL + earned && !self.is_over(now())).then_some(Malformed::ControlFlood)
    }

    /// Bytes were sent.
    pub(crate) fn wrote(&mut self, bytes: usize) {
        self.written += bytes as u64;
    }

    /// An exchange is over; `cancelled`: its client took it back.
    pub(crate) fn exchange(&mut self, cancelled: bool, now: impl FnOnce() -> Instant) -> Option<Malformed> {
        if !cancelled {
            self.ended += 1;
            return None;
        }
        self.cancelled += 1;
        (self.cancelled > CANCELLED + self.ended && !self.is_over(now())).then_some(Malformed::CancelFlood)
    }

    /// A bound was crossed; was that in more than a window? Then it begins anew. The clock is looked at only then.
    fn is_over(&mut self, now: Instant) -> bool {
        let over = now.saturating_duration_since(self.since) >= WINDOW;
        if over {
            *self = Flood::new(now);
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_requests_and_responses_need_is_no_flood() {
        let began = Instant::now();
        let mut flood = Flood::new(began);
        for _ in 0..100_000 {
            flood.wrote(100);
            assert_eq!(flood.frames(1, FOR_A_REQUEST, || began), None);
            assert_eq!(flood.exchange(false, || began), None);
            assert_eq!(flood.exchange(true, || began), None);
        }
        // A long download, accounted for piece by piece in both windows.
        let mut flood = Flood::new(began);
        for _ in 0..100_000 {
            flood.wrote(16 << 10);
            assert_eq!(flood.frames(0, 2, || began), None);
        }
    }

    #[test]
    fn what_nothing_needs_is_one_unless_it_comes_slowly() {
        let began = Instant::now();
        let mut flood = Flood::new(began);
        assert_eq!(flood.frames(0, CONTROL, || began), None);
        assert_eq!(flood.frames(0, 1, || began), Some(Malformed::ControlFlood));
        let mut flood = Flood::new(began);
        assert!((0..CANCELLED).all(|_| flood.exchange(true, || began).is_none()));
        assert_eq!(flood.exchange(true, || began), Some(Malformed::CancelFlood));
        let mut flood = Flood::new(began);
        for window in 1..100 {
            assert_eq!(flood.frames(0, CONTROL, || began + WINDOW * window), None);
        }
    }
}
