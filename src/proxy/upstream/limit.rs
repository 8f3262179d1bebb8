//! How long a response's body may take once its head is here.

use crate::http::request::body::Upload;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

/// The time that is left for a body. A whole time that somebody named holds to the last byte. Where nobody did, a stream
/// may flow for as long as it likes, and it is silence that has a limit: neither side has sent a piece. What the client
/// does not take is not asked of the endpoint, so its slowness is no silence (`stall_timeout` sees to that).
#[derive(Debug)]
pub struct Limit {
    /// When the whole exchange must be over.
    pub whole: Option<Instant>,
    /// How long neither side may send anything.
    pub silence: Option<Duration>,
    /// The request's body, which may still be on its way up.
    up: Weak<Upload>,
    /// Since when the next piece of the response is waited for.
    waiting: Option<Instant>,
}

impl Limit {
    /// Of an exchange with this request's body.
    pub fn new(whole: Option<Instant>, silence: Option<Duration>, up: &Rc<Upload>) -> Self {
        Limit { whole, silence, up: Rc::downgrade(up), waiting: None }
    }

    /// The request's body has broken off on the client's side.
    pub fn client_failed(&self) -> bool {
        self.up.upgrade().is_some_and(|up| up.failed().is_some())
    }

    /// The next piece has come.
    pub fn came(&mut self) {
        self.waiting = None;
    }

    /// Nothing is here at `now`: until when that may be so.
    pub fn deadline(&mut self, now: impl FnOnce() -> Instant) -> Option<Instant> {
        let Some(silence) = self.silence else { return self.whole };
        let waiting = *self.waiting.get_or_insert_with(now);
        let up = self.up.upgrade().and_then(|up| up.last_piece());
        let quiet = up.map_or(waiting, |up| up.max(waiting)) + silence;
        Some(self.whole.map_or(quiet, |whole| whole.min(quiet)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(whole: Option<Instant>, silence: Option<Duration>) -> Limit {
        Limit { whole, silence, up: Weak::new(), waiting: None }
    }

    #[test]
    fn silence_begins_anew_with_each_piece_and_a_whole_time_does_not() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let minutes = Duration::from_secs(300);
        let mut flowing = limit(None, Some(minutes));
        for second in [0, 299, 598, 100_000] {
            assert_eq!(flowing.deadline(|| at(second)), Some(at(second + 300)));
            // Asked again, it waits since the first time.
            assert_eq!(flowing.deadline(|| at(second + 10)), Some(at(second + 300)));
            flowing.came();
        }
        let mut named = limit(Some(at(60)), None);
        let mut both = limit(Some(at(1000)), Some(minutes));
        for (second, expected) in [(0, 300), (500, 800), (900, 1000)] {
            assert_eq!(named.deadline(|| at(second)), Some(at(60)));
            assert_eq!(both.deadline(|| at(second)), Some(at(expected)));
            named.came();
            both.came();
        }
        assert_eq!(limit(None, None).deadline(|| start), None);
    }
}
