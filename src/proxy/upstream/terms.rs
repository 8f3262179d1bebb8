//! How often and how long: the plan, else the service's settings, within the gateway's bounds.

use crate::base::duration;
use crate::http::grpc;
use crate::http::request::Head;
use crate::http::settings::Gateway;
use crate::service::plan::Plan;
use crate::service::retry::{Backoff, RetryOn};
use crate::service::settings::{Settings, UNNAMED_TIMEOUT};
use std::time::{Duration, Instant};

/// How often and how long, after the plan, the service's settings and the gateway's bounds.
pub(super) struct Terms<'a> {
    pub(super) max_attempts: u32,
    attempt_timeout: Duration,
    /// Until the response's head.
    pub(super) deadline: Option<Instant>,
    /// From then on: until the last byte, and for each silence.
    pub(super) whole: Option<Instant>,
    pub(super) silence: Option<Duration>,
    /// What a policy has said of statuses; else what the service says.
    retry_status: &'a [u16],
    own_status: &'a [u16],
    pub(super) retry_on: &'a RetryOn,
    pub(super) backoff: Backoff,
    /// The client waits for less than anybody else says.
    hurried: bool,
}

impl<'a> Terms<'a> {
    pub(super) fn new(
        settings: &'a Settings,
        plan: &'a Plan,
        gateway: &Gateway,
        head: &Head,
        started: Instant,
    ) -> Self {
        let named = plan.timeout.map(|asked| asked.min(gateway.max_timeout)).or(settings.timeout);
        let attempt_timeout = match plan.attempt_timeout {
            Some(asked) => asked.min(gateway.max_timeout),
            None => settings.attempt_timeout,
        };
        let max_attempts = match plan.max_attempts {
            Some(asked) => asked.min(gateway.max_attempts),
            None => settings.max_attempts,
        };
        // A client's own deadline can only be the earlier one.
        let asked = if grpc::is_call(head) { grpc::timeout(head) } else { None };
        let earliest = |timeout: Option<Duration>| {
            let timeout = timeout.filter(|timeout| !timeout.is_zero());
            // A client may ask for more than a clock can add.
            timeout.into_iter().chain(asked).min().map(|timeout| started + timeout.min(duration::MOST))
        };
        let silence = named.is_none().then_some(UNNAMED_TIMEOUT);
        let others = named.or(silence).filter(|timeout| !timeout.is_zero());
        let hurried = asked.is_some_and(|asked| others.is_none_or(|others| asked < others));
        let (deadline, whole) = (earliest(named.or(silence)), earliest(named));
        Terms {
            max_attempts,
            attempt_timeout,
            deadline,
            whole,
            silence,
            retry_status: &plan.retry_status,
            own_status: &settings.retry_status,
            retry_on: &settings.retry_on,
            backoff: settings.retry_backoff,
            hurried,
        }
    }

    /// The same; of a request that only one endpoint can answer, there is one attempt.
    pub(super) fn for_session(self, bound: bool) -> Self {
        let max_attempts = if bound { 1 } else { self.max_attempts };
        Terms { max_attempts, ..self }
    }

    /// Another endpoint may be asked after an answer with this status.
    pub(super) fn retries(&self, status: u16) -> bool {
        match self.retry_status {
            [] => self.own_status.contains(&status) || self.retry_on.status.contains(&status),
            named => named.contains(&status),
        }
    }

    /// An attempt that timed out after so long did so since the client has no time, which says nothing of the endpoint:
    /// else a client could have all of them put aside.
    pub(super) fn is_hurried(&self, took: Duration) -> bool {
        self.hurried && (self.attempt_timeout.is_zero() || took < self.attempt_timeout)
    }

    /// When an attempt must have its response head that started then, or was given the last of its request.
    pub(super) fn attempt_deadline(&self, since: Instant) -> Option<Instant> {
        let own = (!self.attempt_timeout.is_zero()).then(|| since + self.attempt_timeout);
        match (own, self.deadline) {
            (Some(own), Some(whole)) => Some(own.min(whole)),
            (own, whole) => own.or(whole),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_nobody_named_ends_with_the_responses_head() {
        let started = Instant::now();
        let gateway = Gateway { max_timeout: Duration::from_secs(3600), ..Gateway::default() };
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (service, policy, client, deadline, whole, silence) in [
            (None, None, None, seconds(300), None, seconds(300)),
            (seconds(5), None, None, seconds(5), seconds(5), None),
            (seconds(0), None, None, None, None, None),
            (None, seconds(7), None, seconds(7), seconds(7), None),
            (seconds(0), seconds(9999), None, seconds(3600), seconds(3600), None),
            (None, None, Some("8S"), seconds(8), seconds(8), seconds(300)),
            (seconds(0), None, Some("8S"), seconds(8), seconds(8), None),
            (seconds(5), None, Some("8S"), seconds(5), seconds(5), None),
        ] {
            let settings = Settings { timeout: service, ..Settings::of("local") };
            let plan = Plan { timeout: policy, ..Plan::default() };
            let mut request = http::Request::post("http://a/s/m").version(http::Version::HTTP_2);
            if let Some(timeout) = client {
                request = request.header("content-type", "application/grpc").header("grpc-timeout", timeout);
            }
            let peer = crate::http::request::Peer::new(([127, 0, 0, 1], 1).into());
            let head = Head::new(request.body(()).unwrap().into_parts().0, peer, &[]);
            let terms = Terms::new(&settings, &plan, &gateway, &head, started);
            let after = |time: Option<Instant>| time.map(|time| time - started);
            assert_eq!((after(terms.deadline), after(terms.whole), terms.silence), (deadline, whole, silence));
            let hurried = client.is_some() && service != seconds(5);
            let after = [1, 15].map(|seconds| terms.is_hurried(Duration::from_secs(seconds)));
            assert_eq!(after, [hurried, false]);
        }
    }
}
