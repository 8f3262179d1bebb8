//! THE story: one request, from its head to its response.

pub mod decide;
mod draining;
mod ending;
pub mod exchange;
mod http1;
mod http2;
pub mod listener;
mod middleware;
pub mod response;
pub mod shedding;
pub mod upgrade;
pub mod upstream;
pub mod worker;

use crate::http::downstream::clock::Active;
use crate::http::error::Error;
use crate::http::request::body::{Incoming, Upload};
use crate::http::request::check::{check, ends_at_this_hop};
use crate::http::request::{Head, Parts, Peer};
use crate::service::decision::Forward;
use crate::snapshot::Snapshot;
use crate::telemetry::Counter;
use decide::{Decided, decide};
use exchange::Exchange;
use http::StatusCode;
use hyper::upgrade::OnUpgrade;
use response::Response;
use std::rc::Rc;
use std::sync::Arc;
use worker::Worker;

/// Carries one request.
///
/// `stream`: in HTTP/2 it can become a tunnel; of HTTP/1 the whole connection can.
pub async fn handle(
    worker: Rc<Worker>,
    peer: Arc<Peer>,
    active: Active,
    mut parts: Parts,
    body: Incoming,
    stream: Option<OnUpgrade>,
) -> Response {
    let snapshot = worker.shared.snapshot.load();
    let mut exchange = Exchange::begin(&worker, Arc::clone(&peer), active, &parts.headers, &snapshot.telemetry);
    let checked = check(&mut parts, &snapshot.gateway);
    let asks_us = ends_at_this_hop(&mut parts);
    let head = Head::with(parts, peer, &snapshot.gateway.trusted_proxies, snapshot.gateway.paths);
    exchange.record.head = Some(Arc::clone(&head));
    if let Err(error) = checked.and_then(|()| head.check_path()) {
        return response::from_error(exchange, error);
    }
    if asks_us {
        return response::options(exchange);
    }
    if snapshot.gateway.via.as_ref().is_some_and(|via| via.is_loop(&head.parts.headers)) {
        return response::from_error(exchange, Error::LoopDetected);
    }
    if worker.shedding.refuses(&mut worker.chance.borrow_mut()) {
        worker.recorder.count(Counter::Shed);
        exchange.record.retry_after = Some(1);
        return response::from_error(exchange, Error::Shed);
    }
    exchange.record.rate_limit = snapshot.rate_limits.take(&head, &snapshot.stores, exchange.record.started);
    if exchange.record.limited_by().is_some() {
        return response::from_error(exchange, Error::RateLimited);
    }
    let request = Request { exchange, head, snapshot, body, stream };
    if !request.snapshot.middleware.is_empty() {
        // Aside, so that nobody else's request grows by it.
        return Box::pin(middleware::around(request)).await;
    }
    match ask(request) {
        Ok((request, forward)) => send(request, forward).await,
        Err(response) => *response,
    }
}

/// One request that nothing has stopped yet, with all that it takes to carry it on.
struct Request {
    exchange: Box<Exchange>,
    head: Arc<Head>,
    snapshot: Arc<Snapshot>,
    body: Incoming,
    /// What can become a tunnel.
    stream: Option<OnUpgrade>,
}

/// Asks where a request goes.
///
/// # Errors
/// Nowhere: what the client is answered.
fn ask(mut request: Request) -> Result<(Request, Arc<Forward>), Box<Response>> {
    let Request { exchange, head, snapshot, .. } = &mut request;
    let verdict = decide(snapshot, head, &mut **exchange);
    exchange.record.route = verdict.by;
    exchange.record.calls = verdict.calls;
    exchange.watched = verdict.watched;
    match verdict.decided {
        Decided::Forward(forward) => {
            exchange.record.service = Some(Arc::clone(&forward.service));
            Ok((request, forward))
        }
        Decided::Respond(answer) => Err(Box::new(response::from_policy(request.exchange, *answer))),
        Decided::Refuse(error) => Err(Box::new(response::from_error(request.exchange, error))),
    }
}

/// Carries a request to the service that it goes to.
async fn send(request: Request, forward: Arc<Forward>) -> Response {
    let Request { mut exchange, head, snapshot, body, stream } = request;
    let most = forward.service.settings.max_body_bytes.unwrap_or(u64::MAX);
    let body = Upload::new(body, &head, most, &snapshot.gateway);
    let arrived = upstream::admit::send(&mut exchange, &forward, &snapshot.gateway, &body).await;
    exchange.record.request_bytes = body.bytes();
    let edits = &forward.edits.response;
    match arrived {
        Ok(arrived) if arrived.response.status == StatusCode::SWITCHING_PROTOCOLS => {
            let (response, tunnel) = response::switching(exchange, arrived, edits, &snapshot.gateway);
            upgrade::begin(tunnel, stream);
            response
        }
        Ok(arrived) => response::from_upstream(exchange, arrived, edits),
        Err(error) => response::from_error(exchange, error),
    }
}
