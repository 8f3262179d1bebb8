//! One attempt at one endpoint: a connection, the request, the response's head.

use super::attempts::Again;
use super::download::{self, Download, Received};
use super::http1::{self, Upward};
use super::outgoing::Outgoing;
use super::terms::Terms;
use super::websocket;
use crate::base::time::{Moment, process_ms};
use crate::base::trace::TraceContext;
use crate::http::fields::Fields;
use crate::http::h1::reply::Bad;
use crate::http::headers;
use crate::http::request::body::{RequestBody, Upload};
use crate::proxy::exchange::Exchange;
use crate::service::balance::Picked;
use crate::service::health::ejecting;
use crate::service::hedge::{Hedge, Latencies};
use crate::service::pool::{ConnectError, Connection, Link, Multiplexed, Pools};
use crate::service::record::AttemptError;
use crate::service::{Endpoint, InFlight, Service};
use http::{Request, StatusCode};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What all attempts of one request share.
#[derive(Clone, Copy)]
pub(super) struct Way<'a> {
    pub(super) pools: &'a Rc<Pools>,
    pub(super) service: &'a Service,
    pub(super) outgoing: &'a Outgoing<'a>,
    pub(super) trace: &'a TraceContext,
    pub(super) body: &'a Rc<Upload>,
    pub(super) terms: &'a Terms<'a>,
    /// Its attempts may be made beside each other.
    pub(super) hedge: Option<&'a Hedge>,
}

/// An attempt on its way, which counts at its endpoint.
pub(super) struct Begun {
    /// Among the attempts of its exchange.
    place: usize,
    pub(super) span_id: u64,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) began: Instant,
    pub(super) in_flight: InFlight,
}

impl Begun {
    /// Begins now.
    pub(super) fn new(exchange: &mut Exchange, mut picked: Picked, hedge: bool, now: Moment) -> Self {
        let (place, span_id) = exchange.attempt(&picked, hedge, now.at);
        let in_flight = picked.enter(now.ms);
        Begun { place, span_id, endpoint: picked.endpoint, began: now.at, in_flight }
    }

    /// Tells everybody what came of it at `now`: the record, the strategies, ejection.
    pub(super) fn ended(
        &self,
        exchange: &mut Exchange,
        way: &Way<'_>,
        result: &mut Result<Received, Failure>,
        now: Moment,
    ) {
        let (endpoint, service) = (&*self.endpoint, way.service);
        let took = now.at.saturating_duration_since(self.began);
        let outcome = result.as_ref().map(|response| (response.status.as_u16(), &response.headers));
        let outcome = outcome.map_err(|failure| failure.error);
        if !(matches!(outcome, Err(AttemptError::Timeout)) && way.terms.is_hurried(took)) {
            let when = (took, now.ms);
            let good = ejecting::noted(service, endpoint, outcome, when, &mut exchange.worker.chance.borrow_mut());
            if good == Some(true) {
                way.took(took);
            }
        }
        match result {
            Ok(response) => exchange.attempted(self.place, Ok(response.status.as_u16()), None, took),
            Err(Failure { error, cause }) => {
                exchange.attempted(self.place, Err(*error), cause.take(), took);
                // Each time that it gets another chance in vain, it is put aside once more.
                if error.is_unsent()
                    && error.blames_endpoint()
                    && endpoint.live.connect_failed(COOL_OFF)
                    && let Some(left_out) = endpoint.live.put_aside.may()
                {
                    tracing::warn!(left_out, service = %service.name, endpoint = %endpoint.address, "unhealthy: three connects failed in a row");
                }
            }
        }
    }

    /// Another one was answered first: nobody waits for it any more.
    pub(super) fn outrun(self, exchange: &mut Exchange, way: &Way<'_>, now: Instant) {
        let took = now.saturating_duration_since(self.began);
        exchange.attempted(self.place, Err(AttemptError::Outrun), None, took);
        way.took(took);
    }
}

/// Without an active check, an endpoint that was made unhealthy by failed connects is tried again after this time.
const COOL_OFF: Duration = Duration::from_secs(5);

/// An attempt that gave no response head.
pub(super) struct Failure {
    pub(super) error: AttemptError,
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
            ConnectError::NoRoom => AttemptError::NoRoom.into(),
            ConnectError::Timeout => AttemptError::ConnectTimeout.into(),
        }
    }
}

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

impl Way<'_> {
    /// An answer took so long, or would have taken longer.
    fn took(&self, took: Duration) {
        if let Some(hedge) = self.hedge {
            hedge.took(self.service.live.latencies.get_or_init(Latencies::default), took);
        }
    }

    /// How long an attempt is waited for before another is made beside it. None: to its end.
    pub(super) fn waits(&self) -> Option<Duration> {
        self.hedge.and_then(|hedge| hedge.wait(self.service.live.latencies.get()))
    }

    /// One attempt: a connection, the request, the response's head.
    pub(super) async fn attempt(
        &self,
        endpoint: &Endpoint,
        (span_id, began): (u64, Instant),
    ) -> Result<Received, Failure> {
        let Way { pools, service, outgoing, body, terms, .. } = *self;
        let trace = (self.trace, span_id);
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
