//! Clocks and timers that are cheap enough for every request.

use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::time::Sleep;

/// Milliseconds since the process first asked; monotonic.
pub fn process_ms() -> u64 {
    process_ms_at(Instant::now())
}

/// The same at a time that is known already: reading the clock costs more than most of what is done meanwhile.
pub fn process_ms_at(now: Instant) -> u64 {
    u64::try_from(since_start(now).as_millis()).unwrap_or(u64::MAX)
}

/// A time in both of the forms that the request path asks for: working out one from the other costs more than to carry both.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// For deadlines and spans.
    pub at: Instant,
    /// Milliseconds since the process first asked.
    pub ms: u64,
}

impl Moment {
    /// This time.
    pub fn at(at: Instant) -> Self {
        Moment { at, ms: process_ms_at(at) }
    }

    /// The time that it is.
    pub fn now() -> Self {
        Self::at(Instant::now())
    }
}

/// The same in nanoseconds.
pub fn process_ns() -> u64 {
    process_ns_at(Instant::now())
}

/// The same in nanoseconds, at a time that is known already.
pub fn process_ns_at(now: Instant) -> u64 {
    u64::try_from(since_start(now).as_nanos()).unwrap_or(u64::MAX)
}

fn since_start(now: Instant) -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    now.saturating_duration_since(*START.get_or_init(|| now))
}

/// The calendar, as it was looked at some time ago: what happens a moment later is told without another look. Whoever
/// holds one looks again each second or so, since somebody may set the clock.
#[derive(Debug, Clone, Copy)]
pub struct Calendar {
    at: Instant,
    time: SystemTime,
}

impl Calendar {
    /// Looks at it now.
    pub fn look() -> Self {
        Calendar { at: Instant::now(), time: SystemTime::now() }
    }

    /// What it said, or will say, at this instant.
    pub fn at(self, instant: Instant) -> SystemTime {
        match instant.checked_duration_since(self.at) {
            Some(after) => self.time + after,
            None => self.time - self.at.saturating_duration_since(instant),
        }
    }
}

impl Default for Calendar {
    fn default() -> Self {
        Self::look()
    }
}

/// Milliseconds since 1970-01-01 UTC.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The end of the last year that RFC 3339 can write, ms since 1970-01-01 UTC.
const LAST_MS: u64 = 253_402_300_799_000;

/// A time by the calendar, ms since 1970-01-01 UTC, as RFC 3339 has it, to the second. One that is too late, as a damaged file
/// may say, is the last one.
pub fn date(unix_ms: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(unix_ms.min(LAST_MS))).to_string()
}

/// A timer for deadlines that nearly always move on before they are reached. It is set for the earliest one asked for,
/// and a later one is set only when that has passed, so that a busy connection touches the runtime's timers once in a
/// deadline's length and not with each request.
#[derive(Debug, Default)]
pub struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
    /// Whom it wakes.
    waker: Option<Waker>,
}

impl Alarm {
    /// Ready when the deadline has passed; until then the task is woken at the deadline or before.
    pub fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let deadline = tokio::time::Instant::from_std(deadline);
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
            self.waker = None;
        }
        if self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) && !sleep.is_elapsed() {
            return Poll::Pending;
        }
        self.waker = Some(cx.waker().clone());
        while sleep.as_mut().poll(cx).is_ready() {
            if tokio::time::Instant::now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }

    /// What the future comes to. None: the deadline was there first.
    pub async fn before<T>(&mut self, deadline: Instant, future: impl Future<Output = T>) -> Option<T> {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending => self.poll(cx, deadline).map(|()| None),
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_is_a_date() {
        assert_eq!(date(1_000_000_000_999), "2001-09-09T01:46:40Z");
        assert_eq!(date(u64::MAX), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn the_calendar_goes_on_after_it_was_looked_at() {
        let calendar = Calendar::look();
        for ms in [0, 1, 5000] {
            let span = Duration::from_millis(ms);
            assert_eq!(calendar.at(calendar.at + span), calendar.time + span);
            assert_eq!(calendar.at(calendar.at - span), calendar.time - span);
        }
    }

    #[tokio::test]
    async fn an_alarm_that_is_used_again_rings_at_the_new_deadline() {
        let after = |ms| Instant::now() + Duration::from_millis(ms);
        let mut alarm = Alarm::default();
        assert_eq!(alarm.before(after(60_000), std::future::ready(7)).await, Some(7));
        assert!(poll_once(&mut alarm, after(60_000)).await.is_pending());
        // Set for much later than the first of these, and for earlier than the second.
        for ms in [1, 20] {
            let deadline = after(ms);
            assert_eq!(alarm.before(deadline, std::future::pending::<()>()).await, None);
            assert!(Instant::now() >= deadline);
            assert!(poll_once(&mut alarm, after(60_000)).await.is_pending());
        }
    }

    async fn poll_once(alarm: &mut Alarm, deadline: Instant) -> Poll<()> {
        std::future::poll_fn(|cx| Poll::Ready(alarm.poll(cx, deadline))).await
    }
}
