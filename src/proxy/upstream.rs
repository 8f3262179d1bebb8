//! The way up: attempts, one after the other, each on an endpoint of its own, within their deadlines.

pub mod forwarded;
mod interim;
pub mod limit;
mod outgoing;
mod websocket;

use crate::base::duration;
use crate::base::trace::Context;
use crate::http::error::Error;
use crate::http::grpc;
use crate::http::headers;
use crate::http::malformed::Malformed;
use crate::http::request::Head;
use crate::http::request::body::Source;
use crate::http::settings::Gateway;
use crate::proxy::exchange::Exchange;
use crate::service::balance::{self, Wanted, default_key};
use crate::service::decision::Forward;
use crate::service::plan::Plan;
use crate::service::pool::{ConnectError, Connection, Link, Multiplexed, Pools, Switched};
use crate::service::record::AttemptError;
use crate::service::settings::UNNAMED_TIMEOUT;
use crate::service::{Endpoint, InFlight, Service, Settings};
use http::{Method, Response, StatusCode};
use hyper::body::Incoming;
use limit::Limit;
use outgoing::Outgoing;
use smallvec::SmallVec;
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// A response's head is here, and its body can be read.
#[derive(Debug)]
pub struct Arrived {
    /// As hyper parsed it; 101 only where the client asked for another protocol.
    pub response: Response<Incoming>,
    /// Counts the request at its endpoint until the body is over.
    pub in_flight: InFlight,
    /// The HTTP/1 connection, to be given back when the body was read to its end.
    pub lease: Option<Lease>,
    /// How long the body may take.
    pub limit: Limit,
}

/// An HTTP/1 connection that is lent to one exchange.
#[derive(Debug)]
pub struct Lease {
    pools: Rc<Pools>,
    endpoint: u32,
    link: Link,
}

impl Lease {
    /// The response was read to its end, so the connection can take another request.
    pub fn end(self) {
        self.pools.give_back(self.endpoint, self.link);
    }

    /// The endpoint has switched to another protocol; none: it has closed instead.
    pub async fn switched(self) -> Option<Switched> {
        self.link.switched.await.ok()
    }
}

/// How often and how long, after the plan, the service's settings and the gateway's bounds.
struct Terms<'a> {
    max_attempts: u32,
    attempt_timeout: Duration,
    /// Until the response's head.
    deadline: Option<Instant>,
    /// From then on: until the last byte, and for each silence.
    whole: Option<Instant>,
    silence: Option<Duration>,
    retry_status: &'a [u16],
}

impl<'a> Terms<'a> {
    fn new(settings: &'a Settings, plan: &'a Plan, gateway: &Gateway, head: &Head, started: Instant) -> Self {
        let named = plan.timeout.map(|asked| asked.min(gateway.max_timeout)).or(settings.timeout);
        let attempt_timeout = match plan.attempt_timeout {
            Some(asked) => asked.min(gateway.max_timeout),
            None => settings.attempt_timeout,
        };
        let max_attempts = match plan.max_attempts {
            Some(asked) => asked.min(gateway.max_attempts),
            None => settings.max_attempts,
        };
        let own = &settings.retry_status;
        let retry_status = if plan.retry_status.is_empty() { own } else { &plan.retry_status };
        // A client's own deadline can only be the earlier one.
        let asked = if grpc::is_call(head) { grpc::timeout(head) } else { None };
        let earliest = |timeout: Option<Duration>| {
            let timeout = timeout.filter(|timeout| !timeout.is_zero());
            // A client may ask for more than a clock can add.
            timeout.into_iter().chain(asked).min().map(|timeout| started + timeout.min(duration::MOST))
        };
        let silence = named.is_none().then_some(UNNAMED_TIMEOUT);
        let (deadline, whole) = (earliest(named.or(silence)), earliest(named));
        Terms { max_attempts, attempt_timeout, deadline, whole, silence, retry_status }
    }

    /// When an attempt must have its response head that started then, or was given the last of its request.
    fn attempt_deadline(&self, since: Instant) -> Option<Instant> {
        let own = (!self.attempt_timeout.is_zero()).then(|| since + self.attempt_timeout);
        match (own, self.deadline) {
            (Some(own), Some(whole)) => Some(own.min(whole)),
            (own, whole) => own.or(whole),
        }
    }
}

/// Sends the request and tries again where that is safe and allowed.
///
/// # Errors
/// Why no response head came: the answer to the client.
pub async fn send(
    exchange: &mut Exchange,
    forward: &Forward,
    gateway: &Gateway,
    body: &Rc<Source>,
) -> Result<Arrived, Error> {
    let worker = Rc::clone(&exchange.worker);
    let Forward { service, plan, .. } = forward;
    // The proxy has noted it before it decided.
    let Some(head) = exchange.record.head.clone() else { return Err(Error::NoRoute) };
    let terms = Terms::new(&service.settings, plan, gateway, &head, exchange.record.started);
    if body.is_too_large() {
        return Err(Error::Malformed(Malformed::BodyTooLarge));
    }
    let key = key(service, plan, &head);
    let outgoing = Outgoing::new(&head, forward, gateway, worker.recorder.early_hints())?;
    let mut tried: SmallVec<[u32; 4]> = SmallVec::new();
    let mut last = Error::NoEndpoint;
    let pick = |tried: &[u32], now: Instant| {
        let wanted = Wanted { service, plan, tried, key: &key, now_ms: crate::base::time::process_ms_at(now) };
        worker.balancer.borrow_mut().pick(wanted)
    };
    let mut now = Instant::now();
    let mut next = pick(&tried, now);
    loop {
        if terms.deadline.is_some_and(|deadline| now >= deadline) {
            return Err(Error::Timeout);
        }
        let Some(picked) = next else { return Err(last) };
        tried.push(picked.endpoint.id);
        let span_id = exchange.attempt(&picked, now);
        let endpoint = &picked.endpoint;
        let in_flight = InFlight::enter(&endpoint.live);
        let trace = (&exchange.record.trace, span_id);
        let result = try_once(&worker.pools, endpoint, service, &outgoing, trace, body, (now, &terms)).await;
        let may_go_on = (tried.len() as u32) < terms.max_attempts;
        let safe = is_repeatable(&head.parts.method, body);
        match result {
            Ok((response, lease)) => {
                let status = response.status().as_u16();
                endpoint.live.measured(exchange.attempted(Ok(status)));
                let retry = may_go_on && safe && terms.retry_status.contains(&status);
                now = Instant::now();
                next = if retry { pick(&tried, now) } else { None };
                // With nobody else to ask, the client gets this response.
                if next.is_some() {
                    continue;
                }
                if outgoing.waits && !body.started() {
                    body.let_go();
                }
                body.spend();
                let limit = Limit::new(terms.whole, terms.silence, body);
                return Ok(Arrived { response, in_flight, lease, limit });
            }
            Err(error) => {
                exchange.attempted(Err(error));
                let unsent = matches!(error, AttemptError::Connect | AttemptError::ConnectTimeout);
                // Each time that it gets another chance in vain, it is put aside once more.
                if unsent
                    && endpoint.live.connect_failed(COOL_OFF)
                    && let Some(left_out) = endpoint.live.put_aside.may()
                {
                    tracing::warn!(left_out, service = %service.name, endpoint = %endpoint.address, "unhealthy: three connects failed in a row");
                }
                last = match body.failed() {
                    // The connection knows better why it broke off.
                    Some(Malformed::Body) => Error::Malformed(exchange.active.refused().unwrap_or(Malformed::Body)),
                    Some(bad) => Error::Malformed(bad),
                    None => answer(error, terms.deadline),
                };
                if !may_go_on || !(unsent || safe) || last == Error::Timeout {
                    return Err(last);
                }
                now = Instant::now();
                next = pick(&tried, now);
            }
        }
    }
}

/// Without an active check, an endpoint that was made unhealthy by failed connects is tried again after this time.
const COOL_OFF: Duration = Duration::from_secs(5);

fn answer(error: AttemptError, deadline: Option<Instant>) -> Error {
    let over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
    match error {
        AttemptError::Connect | AttemptError::ConnectTimeout => Error::ConnectFailed,
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
fn is_repeatable(method: &Method, body: &Source) -> bool {
    let idempotent =
        matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE);
    idempotent && !body.spent()
}

/// What `hash` and `sticky` go by; only read where one of them is used.
fn key(service: &Service, plan: &Plan, head: &Head) -> String {
    use crate::service::plan::Strategy::{Hash, Sticky};
    match (balance::strategy(service, plan), &plan.key) {
        (Hash | Sticky, Some(key)) => key.clone(),
        (Hash | Sticky, None) => default_key(&service.settings.hash_on, &head.parts.headers, head.client),
        _ => String::new(),
    }
}

/// HTTP/2: why the endpoint reset the request's stream, if it did. After `REFUSED_STREAM` it has not looked at it
/// (RFC 9113 §8.7).
fn reset(error: &hyper::Error) -> Option<h2::Reason> {
    let cause = std::error::Error::source(error)?.downcast_ref::<h2::Error>()?;
    cause.reason().filter(|_| cause.is_reset())
}

/// What the endpoint answers, if it does so in time. The time that the client takes to send its body is not the
/// endpoint's, which has as long as an attempt may take from when it was given the last piece.
async fn in_time<T>(
    pools: &Pools,
    mut deadline: Option<Instant>,
    terms: &Terms<'_>,
    body: &Source,
    mut sending: Pin<&mut impl Future<Output = T>>,
) -> Result<T, AttemptError> {
    loop {
        if let Some(sent) = pools.before(deadline, sending.as_mut()).await {
            return Ok(sent);
        }
        let later = body.waited_since().and_then(|since| terms.attempt_deadline(since));
        if later <= deadline {
            return Err(AttemptError::Timeout);
        }
        deadline = later;
    }
}

/// One attempt at one endpoint: a connection, the request, the response's head.
async fn try_once(
    pools: &Rc<Pools>,
    endpoint: &Endpoint,
    service: &Service,
    outgoing: &Outgoing<'_>,
    trace: (&Context, u64),
    body: &Rc<Source>,
    (began, terms): (Instant, &Terms<'_>),
) -> Result<(Response<Incoming>, Option<Lease>), AttemptError> {
    let mut fresh = false;
    let mut now = began;
    let deadline = terms.attempt_deadline(began);
    loop {
        let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(now));
        let within = left.min(service.settings.connect_timeout);
        let connection = pools.connection(endpoint, service, fresh, within).await.map_err(|error| match error {
            ConnectError::Failed => AttemptError::Connect,
            ConnectError::Timeout => AttemptError::ConnectTimeout,
        })?;
        let tunnel = match &connection {
            Connection::Http2(connection) if outgoing.wants_websocket() => websocket::is_carried(connection).await,
            _ => false,
        };
        let request = outgoing.request(endpoint, trace, body, tunnel);
        let mut nothing_written = false;
        let (sent, lease) = match connection {
            Connection::Http1 { mut link, reused } => {
                let before = link.view.written();
                // Pinned here, so that what is moved from hand to hand is small.
                let sending = std::pin::pin!(link.sender.try_send_request(request));
                let sent = in_time(pools, deadline, terms, body, sending).await?;
                // hyper cannot tell a request that never left from one that was lost.
                nothing_written = sent.is_err() && link.view.written() == before;
                let lease = Lease { pools: Rc::clone(pools), endpoint: endpoint.id, link };
                (sent.map_err(|error| (reused, error)), Some(lease))
            }
            Connection::Http2(Multiplexed { mut sender, .. }) => {
                // A shared connection may be closing: hyper says so by handing the request back.
                let sending = std::pin::pin!(sender.try_send_request(request));
                let sent = in_time(pools, deadline, terms, body, sending).await?;
                (sent.map_err(|error| (!fresh, error)), None)
            }
        };
        let (reused, mut failed) = match sent {
            Ok(response) if !headers::is_good_response(&response, outgoing.upgrade.is_some()) => {
                return Err(AttemptError::Protocol);
            }
            Ok(mut response) => {
                if tunnel && response.status() == StatusCode::OK {
                    outgoing.switched(&mut response);
                }
                return Ok((response, lease));
            }
            Err(failed) => failed,
        };
        let handed_back = failed.take_message().is_some();
        let error = failed.into_error();
        let reset = reset(&error);
        let refused = reset == Some(h2::Reason::REFUSED_STREAM);
        let unsent = handed_back || (nothing_written || refused) && !body.spent();
        tracing::debug!(endpoint = %endpoint.address, %error, unsent, reused, "no response");
        if body.failed().is_some() {
            return Err(AttemptError::ClientGone);
        }
        // The endpoint closed a connection that was kept: not its failure, and once more on a fresh one is safe if
        // nothing was sent, or if sending twice does no harm.
        let safe = || is_repeatable(&outgoing.head.parts.method, body) && !error.is_parse();
        if reused && !fresh && (unsent || safe()) {
            fresh = true;
            now = Instant::now();
            continue;
        }
        return Err(if unsent {
            AttemptError::Connect
        } else if error.is_parse() {
            AttemptError::Protocol
        } else if reset == Some(h2::Reason::CANCEL) {
            AttemptError::Cancelled
        } else {
            AttemptError::Reset
        });
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
        }
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
            assert_eq!(answer(error, Some(now + Duration::from_secs(3600))), before);
            assert_eq!(answer(error, None), before);
            assert_eq!(answer(error, Some(now)), after);
        }
    }
}
