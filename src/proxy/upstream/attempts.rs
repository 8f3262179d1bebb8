//! Whether another attempt follows, and what the client is told where none does. Pure: it is told what came of each attempt,
//! and what time it is.

use super::terms::Terms;
use crate::http::error::Error;
use crate::http::malformed::Malformed;
use crate::http::request::body::Upload;
use crate::service::record::AttemptError;
use http::Method;
use std::time::Instant;

/// The attempts of one exchange so far.
pub(super) struct Attempts<'a> {
    terms: &'a Terms<'a>,
    made: u32,
}

/// What follows an attempt.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum After {
    /// Its response is the client's.
    Take,
    /// Another endpoint may answer better; should there be none, its response is the client's.
    Better,
    /// Another endpoint is asked; should there be none, the client is told this.
    Elsewhere(Error),
    /// The client is told.
    GiveUp(Error),
}

impl<'a> Attempts<'a> {
    /// None yet.
    pub(super) fn new(terms: &'a Terms<'a>) -> Self {
        Attempts { terms, made: 0 }
    }

    /// One came to this. `repeatable`: its request does no harm when it is sent twice, and can be.
    pub(super) fn after(&mut self, outcome: Result<u16, AttemptError>, repeatable: bool, now: Instant) -> After {
        self.made += 1;
        let may_go_on = self.made < self.terms.max_attempts;
        match outcome {
            Ok(status) if may_go_on && repeatable && self.terms.retry_status.contains(&status) => After::Better,
            Ok(_) => After::Take,
            Err(error) => {
                let told = answer(error, self.terms.deadline, now);
                let in_vain = told == Error::Timeout || error == AttemptError::ClientGone;
                let again = may_go_on && (error.is_unsent() || repeatable) && !in_vain;
                if again { After::Elsewhere(told) } else { After::GiveUp(told) }
            }
        }
    }
}

/// What the client is told of an attempt's failure.
fn answer(error: AttemptError, deadline: Option<Instant>, now: Instant) -> Error {
    let over = deadline.is_some_and(|deadline| now >= deadline);
    match error {
        AttemptError::Connect | AttemptError::ConnectTimeout | AttemptError::NoSocket => Error::ConnectFailed,
        AttemptError::Protocol => Error::UpstreamProtocol,
        AttemptError::ClientGone => Error::Malformed(Malformed::Body),
        // gRPC's servers know the deadline too, and may give up a moment before it is seen here.
        AttemptError::Timeout | AttemptError::Reset | AttemptError::Cancelled | AttemptError::Unfinished if over => {
            Error::Timeout
        }
        AttemptError::Timeout => Error::AttemptTimeout,
        AttemptError::Cancelled => Error::UpstreamCancelled,
        AttemptError::Reset | AttemptError::Unfinished => Error::UpstreamReset,
    }
}

/// It has the same effect when it is sent twice (RFC 9110 §9.2.2), and can be.
pub(super) fn is_repeatable(method: &Method, body: &Upload) -> bool {
    let idempotent =
        matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE);
    idempotent && !body.spent()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::{Head, Peer};
    use crate::http::settings::Gateway;
    use crate::service::Settings;
    use crate::service::plan::Plan;
    use std::time::Duration;

    /// What follows each of these, of three attempts in 10 s that begin now.
    fn after(outcomes: &[(Result<u16, AttemptError>, bool, u64)]) -> Vec<After> {
        let started = Instant::now();
        let settings = Settings {
            max_attempts: 3,
            timeout: Some(Duration::from_secs(10)),
            retry_status: vec![503],
            ..Settings::of("test")
        };
        let request = http::Request::get("/").body(()).unwrap();
        let head = Head::new(request.into_parts().0, Peer::new(([127, 0, 0, 1], 1).into()), &[]);
        let (plan, gateway) = (Plan::default(), Gateway::default());
        let terms = Terms::new(&settings, &plan, &gateway, &head, started);
        let mut attempts = Attempts::new(&terms);
        let step = |(outcome, repeatable, seconds): &(Result<u16, AttemptError>, bool, u64)| {
            attempts.after(*outcome, *repeatable, started + Duration::from_secs(*seconds))
        };
        outcomes.iter().map(step).collect()
    }

    #[test]
    fn what_was_never_sent_goes_elsewhere_and_anything_else_only_if_it_does_no_harm() {
        use AttemptError::{ClientGone, Connect, NoSocket, Reset};
        let elsewhere = After::Elsewhere;
        assert_eq!(after(&[(Err(Connect), false, 0)]), [elsewhere(Error::ConnectFailed)]);
        assert_eq!(after(&[(Err(NoSocket), false, 0)]), [elsewhere(Error::ConnectFailed)]);
        assert_eq!(after(&[(Err(Reset), false, 0)]), [After::GiveUp(Error::UpstreamReset)]);
        assert_eq!(after(&[(Err(Reset), true, 0)]), [elsewhere(Error::UpstreamReset)]);
        assert_eq!(after(&[(Err(ClientGone), true, 0)]), [After::GiveUp(Error::Malformed(Malformed::Body))]);
        assert_eq!(after(&[(Ok(503), true, 0)]), [After::Better]);
        assert_eq!(after(&[(Ok(503), false, 0), (Ok(500), true, 0)]), [After::Take, After::Take]);
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
