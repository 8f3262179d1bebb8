//! Whether another attempt follows, and what the client is told where none does. Pure: it is told what came of each attempt,
//! and what time it is.

use super::terms::Terms;
use crate::base::chance::Chance;
use crate::base::time::process_ms_at;
use crate::http::error::Error;
use crate::http::fields::Fields;
use crate::http::grpc;
use crate::http::malformed::Malformed;
use crate::http::request::body::Upload;
use crate::service::budget::{Budget, RetryBudget};
use crate::service::record::AttemptError;
use crate::service::retry::LONGEST;
use http::Method;
use std::time::{Duration, Instant, SystemTime};

/// The attempts of one exchange so far.
pub(super) struct Attempts<'a> {
    terms: &'a Terms<'a>,
    budget: &'a Budget,
    settings: RetryBudget,
    made: u32,
    /// Another one would have followed, but for the budget.
    pub(super) out_of_budget: bool,
    /// The endpoint says that nobody should try again.
    pub(super) told_to_stop: bool,
}

/// What follows an attempt.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum After {
    /// Its response is the client's.
    Take,
    /// Another endpoint may answer better, so much later; should there be none, its response is the client's.
    Better(Duration),
    /// Another endpoint is asked, so much later; should there be none, the client is told this.
    Elsewhere(Error, Duration),
    /// The client is told.
    GiveUp(Error),
}

/// What a response's head says about trying again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) status: u16,
    /// Of a call of gRPC that has no other answer.
    pub(super) grpc: Option<u8>,
    /// Not before (`Retry-After`, or gRPC's pushback).
    pub(super) later: Option<Duration>,
    /// Not at all: a gateway behind this one has spent its budget, or gRPC's server says so.
    pub(super) stop: bool,
}

/// What a gateway says to one before it: this answer is not worth another attempt, of which there were enough.
pub const NO_RETRY: (&str, &[u8]) = ("x-wayside-retry", b"no");

impl Said {
    /// `is_call`: of a call of gRPC. Of an answer that is good nothing more is looked at.
    pub(super) fn of(status: u16, headers: &Fields, is_call: bool) -> Self {
        let mut said = Said { status, ..Said::default() };
        if status >= 400 || is_call && headers.may_have(&["grpc-status"]) {
            said.stop = headers.only(NO_RETRY.0) == Some(NO_RETRY.1);
            said.later = headers.only("retry-after").and_then(later);
            if is_call {
                said.grpc = grpc::status_of(headers);
                match grpc::pushback_ms(headers) {
                    None => {}
                    Some(ms) => match u64::try_from(ms) {
                        Ok(ms) => said.later = Some(Duration::from_millis(ms)),
                        Err(_) => said.stop = true,
                    },
                }
            }
        }
        said
    }
}

/// `Retry-After` in seconds or as a date (RFC 9110 §10.2.3).
fn later(value: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Some(httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).unwrap_or_default()),
    }
}

/// Whether a request can be sent once more.
#[derive(Debug, Clone, Copy)]
pub(super) struct Again {
    /// All of it is still there.
    pub(super) possible: bool,
    /// Its method does no harm when it is done twice (RFC 9110 §9.2.2).
    pub(super) harmless: bool,
}

impl<'a> Attempts<'a> {
    /// None yet.
    pub(super) fn new(terms: &'a Terms<'a>, budget: &'a Budget, settings: RetryBudget) -> Self {
        budget.request(settings);
        Attempts { terms, budget, settings, made: 0, out_of_budget: false, told_to_stop: false }
    }

    /// May another one be made beside the one that is on its way? Then it counts as made.
    pub(super) fn beside(&mut self, now: Instant) -> bool {
        let may = self.made + 1 < self.terms.max_attempts && self.budget.retry(self.settings, process_ms_at(now));
        self.made += u32::from(may);
        may
    }

    /// One came to this.
    pub(super) fn after(
        &mut self,
        outcome: Result<Said, AttemptError>,
        again: Again,
        now: Instant,
        chance: &mut Chance,
    ) -> After {
        self.made += 1;
        let may_go_on = self.made < self.terms.max_attempts;
        let repeatable = again.is_safe();
        match outcome {
            Ok(said) => {
                self.told_to_stop = said.stop;
                // Whoever lists a status of gRPC's knows that the server has not done what it was asked.
                let of_call =
                    again.possible && said.grpc.is_some_and(|status| self.terms.retry_on.grpc.contains(&status));
                let listed = repeatable && self.terms.retries(said.status) || of_call;
                if !(may_go_on && listed) || said.stop {
                    return After::Take;
                }
                let wait = self.terms.backoff.wait(self.made, chance).max(said.later.unwrap_or_default());
                if self.may_wait(wait, now) && self.draws(now) { After::Better(wait) } else { After::Take }
            }
            Err(error) => {
                let told = answer(error, self.terms.deadline, now);
                let in_vain = told == Error::Timeout || error == AttemptError::ClientGone;
                let again = may_go_on && (error.is_unsent() || repeatable && self.listed(error)) && !in_vain;
                // What failed before anything was sent is tried elsewhere at once, the first time.
                let wait = match error.is_unsent() && self.made == 1 {
                    true => Duration::ZERO,
                    false => self.terms.backoff.wait(self.made, chance),
                };
                match again && self.may_wait(wait, now) && self.draws(now) {
                    true => After::Elsewhere(told, wait),
                    false => After::GiveUp(told),
                }
            }
        }
    }

    fn listed(&self, error: AttemptError) -> bool {
        let on = self.terms.retry_on;
        match error {
            AttemptError::Timeout => on.timeout,
            AttemptError::Protocol => on.protocol,
            _ => on.reset,
        }
    }

    /// It would still be in time.
    fn may_wait(&self, wait: Duration, now: Instant) -> bool {
        wait <= LONGEST && self.terms.deadline.is_none_or(|deadline| now + wait < deadline)
    }

    fn draws(&mut self, now: Instant) -> bool {
        let may = self.budget.retry(self.settings, process_ms_at(now));
        self.out_of_budget |= !may;
        may
    }
}

/// What the client is told of an attempt's failure.
fn answer(error: AttemptError, deadline: Option<Instant>, now: Instant) -> Error {
    let over = deadline.is_some_and(|deadline| now >= deadline);
    match error {
        AttemptError::Connect | AttemptError::ConnectTimeout | AttemptError::NoSocket => Error::ConnectFailed,
        AttemptError::NoRoom => Error::Overloaded,
        AttemptError::Protocol => Error::UpstreamProtocol,
        AttemptError::ClientGone => Error::Malformed(Malformed::Body),
        // gRPC's servers know the deadline too, and may give up a moment before it is seen here.
        AttemptError::Timeout | AttemptError::Reset | AttemptError::Cancelled | AttemptError::Unfinished if over => {
            Error::Timeout
        }
        AttemptError::Timeout => Error::AttemptTimeout,
        AttemptError::Cancelled => Error::UpstreamCancelled,
        AttemptError::Reset | AttemptError::Outrun | AttemptError::Unfinished => Error::UpstreamReset,
    }
}

impl Again {
    /// Of a request with this method and body, as it is now.
    pub(super) fn of(method: &Method, body: &Upload) -> Self {
        let harmless = matches!(
            *method,
            Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
        );
        Again { possible: !body.spent(), harmless }
    }

    /// It can, and does no harm.
    pub(super) fn is_safe(self) -> bool {
        self.possible && self.harmless
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::{Head, Peer};
    use crate::http::settings::Gateway;
    use crate::service::Settings;
    use crate::service::plan::Plan;
    use crate::service::retry::Backoff;

    /// What follows each of these, of three attempts in 10 s that begin now, without waits.
    fn after(outcomes: &[(Result<u16, AttemptError>, bool, u64)]) -> Vec<After> {
        let said = |outcome: Result<u16, _>| outcome.map(|status| Said { status, ..Said::default() });
        let outcomes: Vec<_> =
            outcomes.iter().map(|(outcome, harmless, seconds)| (said(*outcome), *harmless, *seconds)).collect();
        all(&settings(), &Budget::default(), &outcomes)
    }

    fn settings() -> Settings {
        Settings {
            max_attempts: 3,
            timeout: Some(Duration::from_secs(10)),
            retry_status: vec![503],
            retry_backoff: Backoff { base: Duration::ZERO, max: Duration::ZERO },
            ..Settings::of("test")
        }
    }

    fn all(settings: &Settings, budget: &Budget, outcomes: &[(Result<Said, AttemptError>, bool, u64)]) -> Vec<After> {
        let started = Instant::now();
        let request = http::Request::get("/").body(()).unwrap();
        let head = Head::new(request.into_parts().0, Peer::new(([127, 0, 0, 1], 1).into()), &[]);
        let (plan, gateway) = (Plan::default(), Gateway::default());
        let terms = Terms::new(settings, &plan, &gateway, &head, started);
        let mut attempts = Attempts::new(&terms, budget, settings.retry_budget);
        let step = |(outcome, harmless, seconds): &(Result<Said, AttemptError>, bool, u64)| {
            let again = Again { possible: true, harmless: *harmless };
            attempts.after(*outcome, again, started + Duration::from_secs(*seconds), &mut Chance(1))
        };
        outcomes.iter().map(step).collect()
    }

    #[test]
    fn what_was_never_sent_goes_elsewhere_and_anything_else_only_if_it_does_no_harm() {
        use AttemptError::{ClientGone, Connect, NoSocket, Reset};
        let elsewhere = |error| After::Elsewhere(error, Duration::ZERO);
        assert_eq!(after(&[(Err(Connect), false, 0)]), [elsewhere(Error::ConnectFailed)]);
        assert_eq!(after(&[(Err(NoSocket), false, 0)]), [elsewhere(Error::ConnectFailed)]);
        assert_eq!(after(&[(Err(Reset), false, 0)]), [After::GiveUp(Error::UpstreamReset)]);
        assert_eq!(after(&[(Err(Reset), true, 0)]), [elsewhere(Error::UpstreamReset)]);
        assert_eq!(after(&[(Err(ClientGone), true, 0)]), [After::GiveUp(Error::Malformed(Malformed::Body))]);
        assert_eq!(after(&[(Ok(503), true, 0)]), [After::Better(Duration::ZERO)]);
        assert_eq!(after(&[(Ok(503), false, 0), (Ok(500), true, 0)]), [After::Take, After::Take]);
    }

    #[test]
    fn nobody_is_asked_again_sooner_than_it_says_and_not_at_all_when_that_is_too_late() {
        let later = |seconds| Said { status: 503, later: Some(Duration::from_secs(seconds)), ..Said::default() };
        let follows = |said, at| all(&settings(), &Budget::default(), &[(Ok(said), true, at)]).remove(0);
        assert_eq!(follows(later(3), 0), After::Better(Duration::from_secs(3)));
        // Longer than anybody waits, or than the request may take.
        assert_eq!((follows(later(6), 0), follows(later(3), 8)), (After::Take, After::Take));
        assert_eq!(follows(Said { stop: true, ..later(0) }, 0), After::Take);
    }

    #[test]
    fn what_is_not_listed_is_not_tried_again_but_for_what_was_never_sent() {
        use AttemptError::{Connect, Protocol, Reset, Timeout};
        let mut settings = Settings { retry_on: vec!["grpc:unavailable".to_owned()].try_into().unwrap(), ..settings() };
        let follows = |settings: &Settings, outcome, harmless| {
            all(settings, &Budget::default(), &[(outcome, harmless, 0)]).remove(0)
        };
        for error in [Reset, Timeout, Protocol] {
            assert!(matches!(follows(&settings, Err(error), true), After::GiveUp(_)), "{error:?}");
        }
        assert!(matches!(follows(&settings, Err(Connect), false), After::Elsewhere(..)));
        let call = |grpc| Ok(Said { status: 200, grpc: Some(grpc), ..Said::default() });
        assert!(matches!(follows(&settings, call(14), false), After::Better(_)));
        assert_eq!(follows(&settings, call(13), false), After::Take);
        settings.retry_on = vec!["5xx".to_owned()].try_into().unwrap();
        assert!(matches!(follows(&settings, Ok(Said { status: 500, ..Said::default() }), true), After::Better(_)));
    }

    #[test]
    fn what_is_made_beside_counts_as_an_attempt() {
        let (settings, budget, started) = (settings(), Budget::default(), Instant::now());
        let request = http::Request::get("/").body(()).unwrap();
        let head = Head::new(request.into_parts().0, Peer::new(([127, 0, 0, 1], 1).into()), &[]);
        let (plan, gateway) = (Plan::default(), Gateway::default());
        let terms = Terms::new(&settings, &plan, &gateway, &head, started);
        let mut attempts = Attempts::new(&terms, &budget, settings.retry_budget);
        // Of three, one is on its way.
        assert_eq!([(); 3].map(|()| attempts.beside(started)), [true, true, false]);
        let again = Again { possible: true, harmless: true };
        let after = attempts.after(Err(AttemptError::Connect), again, started, &mut Chance(1));
        assert_eq!(after, After::GiveUp(Error::ConnectFailed));
        assert_eq!(budget.left(settings.retry_budget, 0), settings.retry_budget.burst - 2);
    }

    #[test]
    fn without_budget_nothing_is_tried_again() {
        let settings = Settings { retry_budget: RetryBudget { percent: 0, min_per_second: 0, burst: 1 }, ..settings() };
        let budget = Budget::default();
        let failed = (Err(AttemptError::Connect), true, 0);
        let followed = all(&settings, &budget, &[failed; 2]);
        assert!(matches!(followed[..], [After::Elsewhere(..), After::GiveUp(Error::ConnectFailed)]), "{followed:?}");
        let good = (Ok(Said { status: 503, ..Said::default() }), true, 0);
        assert_eq!((all(&settings, &budget, &[good]), budget.refused()), (vec![After::Take], 2));
    }

    #[test]
    fn a_head_tells_when_to_come_again() {
        let of = |status, lines: &[(&'static str, &'static str)], is_call| {
            Said::of(status, &lines.iter().copied().collect(), is_call)
        };
        assert_eq!(of(503, &[("retry-after", "2")], false).later, Some(Duration::from_secs(2)));
        assert_eq!(of(503, &[("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")], false).later, Some(Duration::ZERO));
        assert_eq!(of(503, &[("retry-after", "soon")], false), Said { status: 503, ..Said::default() });
        assert!(of(503, &[("x-wayside-retry", "no")], false).stop);
        let call = |pushback| of(200, &[("grpc-status", "14"), ("grpc-retry-pushback-ms", pushback)], true);
        assert_eq!((call("-1").stop, call("70").later, call("x").stop), (true, Some(Duration::from_millis(70)), true));
        assert_eq!(call("1").grpc, Some(14));
        assert_eq!(of(200, &[("grpc-status", "14")], false), Said { status: 200, ..Said::default() });
    }

    #[test]
    fn attempts_end_with_their_number_and_with_the_time() {
        let failed = (Err(AttemptError::Connect), true, 0);
        assert_eq!(after(&[failed; 3])[2], After::GiveUp(Error::ConnectFailed));
        assert_eq!(after(&[(Ok(503), true, 0); 3])[2], After::Take);
        assert_eq!(after(&[(Err(AttemptError::Reset), true, 10)]), [After::GiveUp(Error::Timeout)]);
    }

    #[test]
    fn what_fails_when_the_time_is_over_has_run_out_of_time() {
        use AttemptError::{Cancelled, ClientGone, Connect, Protocol, Reset, Timeout};
        let now = Instant::now();
        for (error, before, after) in [
            (Reset, Error::UpstreamReset, Error::Timeout),
            (Cancelled, Error::UpstreamCancelled, Error::Timeout),
            (Timeout, Error::AttemptTimeout, Error::Timeout),
            (Protocol, Error::UpstreamProtocol, Error::UpstreamProtocol),
            (Connect, Error::ConnectFailed, Error::ConnectFailed),
            (ClientGone, Error::Malformed(Malformed::Body), Error::Malformed(Malformed::Body)),
        ] {
            assert_eq!(answer(error, Some(now + Duration::from_secs(3600)), now), before);
            assert_eq!(answer(error, None, now), before);
            assert_eq!(answer(error, Some(now), now), after);
        }
    }
}
