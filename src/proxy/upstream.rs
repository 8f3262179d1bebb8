//! The way up: attempts, one after the other, each on an endpoint of its own, within their deadlines.

pub mod forwarded;
mod interim;
pub mod limit;
mod attempts;
mod key;
mod outgoing;
mod terms;
mod websocket;

use crate::base::trace::TraceContext;
use crate::http::error::Error;
use crate::http::headers;
use crate::http::malformed::Malformed;
use crate::http::request::body::Upload;
use crate::http::settings::Gateway;
use crate::proxy::exchange::Exchange;
use crate::service::balance::Wanted;
use crate::service::decision::Forward;
use crate::service::pool::{ConnectError, Connection, Link, Multiplexed, Pools, Switched};
use crate::service::record::AttemptError;
use crate::service::{Endpoint, InFlight, Service};
use attempts::{After, Attempts, is_repeatable};
use http::{Response, StatusCode};
use hyper::body::Incoming;
use key::key;
use limit::Limit;
use outgoing::Outgoing;
use smallvec::SmallVec;
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant};
use terms::Terms;

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

/// Sends the request and tries again where that is safe and allowed.
///
/// # Errors
/// Why no response head came: the answer to the client.
pub async fn send(
    exchange: &mut Exchange,
    forward: &Forward,
    gateway: &Gateway,
    body: &Rc<Upload>,
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
    let outgoing = Outgoing::new(&head, forward, gateway, worker.recorder.counters())?;
    let mut tried: SmallVec<[u32; 4]> = SmallVec::new();
    let mut attempts = Attempts::new(&terms);
    let pick = |tried: &[u32], now: Instant| {
        let wanted = Wanted { service, plan, tried, key: &key, now_ms: crate::base::time::process_ms_at(now) };
        worker.balancer.borrow_mut().pick(wanted)
    };
    let mut now = Instant::now();
    let mut next = pick(&tried, now).ok_or(Error::NoEndpoint);
    loop {
        if terms.deadline.is_some_and(|deadline| now >= deadline) {
            return Err(Error::Timeout);
        }
        let picked = next?;
        tried.push(picked.endpoint.id);
        let span_id = exchange.attempt(&picked, now);
        let endpoint = &picked.endpoint;
        let in_flight = InFlight::enter(&endpoint.live);
        let trace = (&exchange.record.trace, span_id);
        let result = try_once(&worker.pools, endpoint, service, &outgoing, trace, body, (now, &terms)).await;
        let repeatable = is_repeatable(&head.parts.method, body);
        now = Instant::now();
        match result {
            Ok((response, lease)) => {
                let status = response.status().as_u16();
                endpoint.live.measured(exchange.attempted(Ok(status), None));
                let other = match attempts.after(Ok(status), repeatable, now) {
                    After::Elsewhere(_) => pick(&tried, now),
                    After::Take | After::GiveUp(_) => None,
                };
                // With nobody else to ask, the client gets this response.
                if let Some(other) = other {
                    next = Ok(other);
                    continue;
                }
                if outgoing.waits && !body.started() {
                    body.let_go();
                }
                body.spend();
                let limit = Limit::new(terms.whole, terms.silence, body);
                return Ok(Arrived { response, in_flight, lease, limit });
            }
            Err(Failure { error, cause }) => {
                exchange.attempted(Err(error), cause);
                // Each time that it gets another chance in vain, it is put aside once more.
                if error.is_unsent()
                    && error.blames_endpoint()
                    && endpoint.live.connect_failed(COOL_OFF)
                    && let Some(left_out) = endpoint.live.put_aside.may()
                {
                    tracing::warn!(left_out, service = %service.name, endpoint = %endpoint.address, "unhealthy: three connects failed in a row");
                }
                match body.failed() {
                    // The connection knows better why it broke off.
                    Some(Malformed::Body) => {
                        return Err(Error::Malformed(exchange.active.refused().unwrap_or(Malformed::Body)));
                    }
                    Some(bad) => return Err(Error::Malformed(bad)),
                    None => {}
                }
                next = match attempts.after(Err(error), repeatable, now) {
                    After::Elsewhere(told) => pick(&tried, now).ok_or(told.unwrap_or(Error::NoEndpoint)),
                    After::GiveUp(told) => return Err(told),
                    After::Take => return Err(Error::NoEndpoint),
                };
            }
        }
    }
}

/// An attempt that gave no response head.
struct Failure {
    error: AttemptError,
    cause: Option<Box<str>>,
}

impl Failure {
    fn new(error: AttemptError, cause: impl std::fmt::Display) -> Self {
        Failure { error, cause: Some(cause.to_string().into()) }
    }
}

impl From<AttemptError> for Failure {
    /// The kind says it all.
    fn from(error: AttemptError) -> Self {
        Failure { error, cause: None }
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Failed(cause) => Failure::new(AttemptError::Connect, cause),
            ConnectError::NoSocket(cause) => Failure::new(AttemptError::NoSocket, cause),
            ConnectError::Timeout => AttemptError::ConnectTimeout.into(),
        }
    }
}

/// Without an active check, an endpoint that was made unhealthy by failed connects is tried again after this time.
const COOL_OFF: Duration = Duration::from_secs(5);

/// HTTP/2: why the endpoint reset the request's stream, if it did. After `REFUSED_STREAM` it has not looked at it
/// (RFC 9113 §8.7).
fn reset(error: &hyper::Error) -> Option<h2::Reason> {
    let cause = std::error::Error::source(error)?.downcast_ref::<h2::Error>()?;
    cause.reason().filter(|_| cause.is_reset())
}

/// The cause of all causes, which is what helps.
fn innermost(error: &hyper::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// What the endpoint answers, if it does so in time. The time that the client takes to send its body is not the
/// endpoint's, which has as long as an attempt may take from when it was given the last piece.
async fn in_time<T>(
    pools: &Pools,
    mut deadline: Option<Instant>,
    terms: &Terms<'_>,
    body: &Upload,
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
    trace: (&TraceContext, u64),
    body: &Rc<Upload>,
    (began, terms): (Instant, &Terms<'_>),
) -> Result<(Response<Incoming>, Option<Lease>), Failure> {
    let mut fresh = false;
    let mut now = began;
    let deadline = terms.attempt_deadline(began);
    loop {
        let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(now));
        let within = left.min(service.settings.connect_timeout);
        let connection = pools.connection(endpoint, service, fresh, within).await?;
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
                return Err(Failure::new(
                    AttemptError::Protocol,
                    "its lengths contradict each other, or it switches unasked",
                ));
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
            return Err(AttemptError::ClientGone.into());
        }
        // The endpoint closed a connection that was kept: not its failure, and once more on a fresh one is safe if
        // nothing was sent, or if sending twice does no harm.
        let safe = || is_repeatable(&outgoing.head.parts.method, body) && !error.is_parse();
        if reused && !fresh && (unsent || safe()) {
            fresh = true;
            now = Instant::now();
            continue;
        }
        let kind = if unsent {
            AttemptError::Connect
        } else if error.is_parse() {
            AttemptError::Protocol
        } else if reset == Some(h2::Reason::CANCEL) {
            AttemptError::Cancelled
        } else {
            AttemptError::Reset
        };
        return Err(Failure::new(kind, innermost(&error)));
    }
}
