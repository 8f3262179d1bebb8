//! The way up: attempts, one after the other, each on an endpoint of its own, within their deadlines.

mod attempts;
pub mod download;
pub mod forwarded;
mod http1;
mod key;
pub mod limit;
mod outgoing;
mod terms;
mod websocket;

use crate::base::time::{process_ms, process_ms_at};
use crate::base::trace::TraceContext;
use crate::http::error::Error;
use crate::http::fields::Fields;
use crate::http::grpc;
use crate::http::h1::reply::Bad;
use crate::http::headers;
use crate::http::malformed::Malformed;
use crate::http::request::Head;
use crate::http::request::body::{RequestBody, Upload};
use crate::http::settings::Gateway;
use crate::proxy::exchange::Exchange;
use crate::service::balance::Wanted;
use crate::service::decision::Forward;
use crate::service::health::ejecting;
use crate::service::pool::{ConnectError, Connection, Link, Multiplexed, Pools};
use crate::service::record::AttemptError;
use crate::service::{Endpoint, InFlight, Service};
pub use attempts::NO_RETRY;
use attempts::{After, Again, Attempts, Said};
use download::{Download, Received};
use http::{Request, StatusCode};
use http1::Upward;
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
    /// As it came.
    pub response: Received,
    /// Counts the request at its endpoint until the body is over.
    pub in_flight: InFlight,
    /// How long the body may take.
    pub limit: Limit,
}

/// Sends the request, unless the service's breaker is open.
///
/// # Errors
/// Why no response head came: the answer to the client.
pub async fn send(
    exchange: &mut Exchange,
    forward: &Forward,
    gateway: &Gateway,
    body: &Rc<Upload>,
) -> Result<Arrived, Error> {
    let service = &forward.service;
    let Some(settings) = &service.settings.breaker else {
        return send_on(exchange, forward, gateway, body).await;
    };
    let passed = service.live.breaker.pass(settings, process_ms_at(exchange.record.decided_at()));
    let pass = passed.map_err(|left_ms| {
        exchange.record.retry_after = Some(left_ms.div_ceil(1000));
        Error::Breaker
    })?;
    let sent = send_on(exchange, forward, gateway, body).await;
    let bad = match &sent {
        Ok(Arrived { response, .. }) => {
            ejecting::was_good(Ok((response.status.as_u16(), &response.headers))) == Some(false)
        }
        // What is wrong with the request says nothing of the service.
        Err(Error::Malformed(_)) => return sent,
        Err(_) => true,
    };
    let chance = exchange.worker.chance.borrow_mut().next_u64();
    pass.ended(bad, process_ms(), chance);
    sent
}

/// Sends the request and tries again where that is safe and allowed.
async fn send_on(
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
    let outgoing = Outgoing::new(&head, forward, gateway, exchange.active.handle(), worker.recorder.counters())?;
    let mut tried: SmallVec<[u32; 4]> = SmallVec::new();
    let is_call = grpc::is_call(&head);
    let mut attempts = Attempts::new(&terms, &service.live.budget, service.settings.retry_budget);
    let pick = |tried: &[u32], now: Instant| {
        let wanted = Wanted { service, plan, tried, key: &key, now_ms: process_ms_at(now) };
        worker.balancer.borrow_mut().pick(wanted)
    };
    let mut now = exchange.record.decided_at();
    let mut next = pick(&tried, now).ok_or(Error::NoEndpoint);
    loop {
        if terms.deadline.is_some_and(|deadline| now >= deadline) {
            return Err(Error::Timeout);
        }
        let picked = next?;
        tried.push(picked.endpoint.id);
        let span_id = exchange.attempt(&picked, now);
        let endpoint = &picked.endpoint;
        let in_flight = InFlight::enter(&endpoint.live, process_ms_at(now));
        let trace = (&exchange.record.trace, span_id);
        let result = try_once(&worker.pools, endpoint, service, &outgoing, trace, body, (now, &terms)).await;
        let again = Again::of(&head.parts.method, body);
        let began = std::mem::replace(&mut now, Instant::now());
        let outcome = result.as_ref().map(|response| (response.status.as_u16(), &response.headers));
        let outcome = outcome.map_err(|failure| failure.error);
        let took = now.saturating_duration_since(began);
        if !(matches!(outcome, Err(AttemptError::Timeout)) && terms.is_hurried(took)) {
            let when = (took, process_ms_at(now));
            note(service, endpoint, outcome, when);
            ejecting::noted(service, endpoint, outcome, when, &mut worker.chance.borrow_mut());
        }
        match result {
            Ok(response) => {
                let status = response.status.as_u16();
                exchange.attempted(Ok(status), None, now);
                let said = Said::of(status, &response.headers, is_call);
                let other = match attempts.after(Ok(said), again, now, &mut worker.chance.borrow_mut()) {
                    After::Better(wait) => pick(&tried, now).map(|other| (other, wait)),
                    _ => None,
                };
                // With nobody else to ask, the client gets this response.
                if let Some((other, wait)) = other {
                    drop((response, in_flight));
                    now = pause(wait, now).await;
                    next = Ok(other);
                    continue;
                }
                no_more(exchange, &attempts, &head);
                if outgoing.waits && !body.started() {
                    body.let_go();
                }
                body.spend();
                let limit = Limit::new(terms.whole, terms.silence, body);
                return Ok(Arrived { response, in_flight, limit });
            }
            Err(Failure { error, cause }) => {
                exchange.attempted(Err(error), cause, now);
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
                drop(in_flight);
                let after = attempts.after(Err(error), again, now, &mut worker.chance.borrow_mut());
                next = match after {
                    After::Elsewhere(told, wait) => {
                        now = pause(wait, now).await;
                        pick(&tried, now).ok_or(told)
                    }
                    After::GiveUp(told) => {
                        no_more(exchange, &attempts, &head);
                        return Err(told);
                    }
                    // Of a response, not of a failure.
                    After::Better(_) | After::Take => return Err(Error::NoEndpoint),
                };
            }
        }
    }
}

/// Notes that no attempt follows, and whether that is due to what retries may cost.
fn no_more(exchange: &mut Exchange, attempts: &Attempts<'_>, head: &Head) {
    exchange.record.out_of_budget = attempts.out_of_budget;
    exchange.record.no_retry = (attempts.out_of_budget || attempts.told_to_stop) && head.peer_is_trusted;
}

/// Waits, with nothing in hand that others could use. Gives what time it is then.
async fn pause(wait: Duration, now: Instant) -> Instant {
    if wait.is_zero() {
        return now;
    }
    tokio::time::sleep(wait).await;
    Instant::now()
}

/// Notes for the strategies what came of an attempt, where the endpoint has answered for it: it answered, or it failed.
fn note(
    service: &Service,
    endpoint: &Endpoint,
    outcome: Result<(u16, &Fields), AttemptError>,
    (took, now_ms): (Duration, u64),
) {
    let (load, pace) = (&endpoint.live.load, &service.live.pace);
    match ejecting::was_good(outcome) {
        Some(true) => load.answered(took, pace, now_ms),
        Some(false) => load.failed(took, pace, now_ms),
        None => {}
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

/// HTTP/2: the endpoint takes no further requests on this connection, and has not looked at this one (RFC 9113 §6.8).
fn has_left(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| cause.is_go_away() && cause.is_remote())
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

/// An exchange on a connection gave no response.
struct Lost {
    error: AttemptError,
    cause: String,
    /// Nothing of it was sent, or the endpoint has not looked at it.
    unsent: bool,
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
) -> Result<Received, Failure> {
    let repeatable = || Again::of(&outgoing.head.parts.method, body).is_safe();
    let draws = || service.live.budget.retry(service.settings.retry_budget, process_ms());
    let mut fresh = false;
    let mut now = began;
    let deadline = terms.attempt_deadline(began);
    loop {
        let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(now));
        let within = left.min(service.settings.connect_timeout);
        let connection = pools.connection(endpoint, service, (fresh, !repeatable()), within).await?;
        let (reused, sent) = match connection {
            Connection::Http1 { link, reused } => {
                let (head, upload) = outgoing.http1(endpoint, trace, body);
                let up = Upward::new(link.clone(), head, upload);
                // Pinned here, so that what is moved from hand to hand is small.
                let sending = std::pin::pin!(send_http1(pools, endpoint.id, link, outgoing, up, body));
                (reused, in_time(pools, deadline, terms, body, sending).await?)
            }
            Connection::Http2(connection) => {
                let tunnel = outgoing.wants_websocket() && websocket::is_carried(&connection).await;
                let request = outgoing.http2(trace, body, tunnel);
                let sending = std::pin::pin!(send_http2(connection, outgoing, request, tunnel, body));
                // A shared connection may be closing.
                (!fresh, in_time(pools, deadline, terms, body, sending).await?)
            }
        };
        let lost = match sent {
            Ok(response) => return Ok(response),
            Err(lost) => lost,
        };
        let Lost { error, cause, unsent } = lost;
        tracing::debug!(endpoint = %endpoint.address, cause, unsent, reused, "no response");
        if body.failed().is_some() {
            return Err(AttemptError::ClientGone.into());
        }
        // The endpoint closed a connection that was kept: not its failure, and once more on a fresh one is safe if
        // nothing was sent, or if sending twice does no harm.
        if reused && !fresh && (unsent || repeatable() && error != AttemptError::Protocol && draws()) {
            fresh = true;
            now = Instant::now();
            continue;
        }
        return Err(Failure::new(if unsent { AttemptError::Connect } else { error }, cause));
    }
}

/// The exchange of one request on a connection of its own.
async fn send_http1(
    pools: &Rc<Pools>,
    endpoint: u32,
    link: Link,
    outgoing: &Outgoing<'_>,
    up: Upward,
    body: &Upload,
) -> Result<Received, Lost> {
    let before = link.written();
    let most = outgoing.gateway.most_of_response();
    let asked = (&outgoing.head.parts.method, outgoing.upgrade.is_some());
    match http1::exchange(pools, &link, up, asked, most, (&outgoing.client, outgoing.counters)).await {
        Ok(mut begun) => {
            if let Some(up) = begun.up.take_if(|_| !outgoing.waits || body.started()) {
                begun.reply.keeps = false;
                up.go_on(outgoing.gateway.stall_timeout);
            }
            Ok(download::Http1::response(begun, link, pools, endpoint, most))
        }
        Err(lost) => {
            let unsent = link.written() == before && !body.spent();
            let error = if matches!(lost, http1::Lost::Bad(_)) { AttemptError::Protocol } else { AttemptError::Reset };
            Err(Lost { error, cause: lost.to_string(), unsent })
        }
    }
}

/// The same on a stream.
async fn send_http2(
    mut connection: Multiplexed,
    outgoing: &Outgoing<'_>,
    request: Request<RequestBody>,
    tunnel: bool,
    body: &Upload,
) -> Result<Received, Lost> {
    let most = outgoing.gateway.max_response_headers;
    let stream = connection.enter();
    match connection.sender.try_send_request(request).await {
        Ok(response) if response.headers().len() > most => {
            Err(Lost { error: AttemptError::Protocol, cause: Bad::TooMany(most).to_string(), unsent: false })
        }
        Ok(mut response) => {
            let upgrade = hyper::upgrade::on(&mut response);
            let (parts, incoming) = response.into_parts();
            let (mut status, mut headers) = (parts.status, Fields::of_map(&parts.headers));
            if !headers::is_good_response(status, &headers, outgoing.upgrade.is_some()) {
                let cause = Bad::Contradiction.to_string();
                return Err(Lost { error: AttemptError::Protocol, cause, unsent: false });
            }
            if tunnel && status == StatusCode::OK {
                status = outgoing.switched(&mut headers);
            }
            Ok(Received { status, headers, body: Download::Http2(incoming, stream, upgrade) })
        }
        Err(mut failed) => {
            // hyper hands a request back that never left.
            let handed_back = failed.take_message().is_some();
            let error = failed.into_error();
            let (reset, left) = (reset(&error), has_left(&error));
            if handed_back || left {
                connection.leave();
            }
            let unseen = left || reset == Some(h2::Reason::REFUSED_STREAM);
            let unsent = handed_back || unseen && !body.spent();
            let kind = match reset {
                _ if error.is_parse() => AttemptError::Protocol,
                Some(h2::Reason::CANCEL) => AttemptError::Cancelled,
                _ => AttemptError::Reset,
            };
            Err(Lost { error: kind, cause: innermost(&error), unsent })
        }
    }
}
