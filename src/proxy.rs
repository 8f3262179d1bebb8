//! THE story: one request, from its head to its response.

pub mod decide;
pub mod exchange;
mod http1;
mod http2;
pub mod listener;
pub mod response;
pub mod upgrade;
pub mod upstream;
pub mod worker;

use crate::http::downstream::clock::Active;
use crate::http::error::Error;
use crate::http::request::body::{Incoming, Upload};
use crate::http::request::check::{check, ends_at_this_hop};
use crate::http::request::{Head, Peer};
use decide::{Decided, decide};
use exchange::Exchange;
use http::{Request, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use response::Body;
use std::rc::Rc;
use std::sync::Arc;
use worker::Worker;

/// Carries one request.
pub async fn handle(worker: Rc<Worker>, peer: Arc<Peer>, active: Active, request: Request<Incoming>) -> Response<Body> {
    let snapshot = worker.shared.snapshot.load();
    let (mut parts, body) = request.into_parts();
    // In HTTP/2 a stream can become a tunnel; of HTTP/1 the listener takes over the whole connection.
    let upgraded = parts.extensions.remove::<OnUpgrade>().filter(|_| parts.version == http::Version::HTTP_2);
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
    let verdict = decide(&snapshot, &head, &mut *exchange);
    exchange.record.route = verdict.by;
    exchange.record.calls = verdict.calls;
    let forward = match verdict.decided {
        Decided::Forward(forward) => forward,
        Decided::Respond(answer) => return response::from_policy(exchange, *answer),
        Decided::Refuse(error) => return response::from_error(exchange, error),
    };
    exchange.record.service = Some(Arc::clone(&forward.service));
    let most = forward.service.settings.max_body_bytes.unwrap_or(u64::MAX);
    let body = Upload::new(body, &head, most, &snapshot.gateway);
    let arrived = upstream::send(&mut exchange, &forward, &snapshot.gateway, &body).await;
    exchange.record.request_bytes = body.bytes();
    let edits = &forward.edits.response;
    match arrived {
        Ok(arrived) if arrived.response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            let (response, tunnel) = response::switching(exchange, arrived, edits, &snapshot.gateway);
            upgrade::begin(tunnel, upgraded);
            response
        }
        Ok(arrived) => response::from_upstream(exchange, arrived, edits),
        Err(error) => response::from_error(exchange, error),
    }
}
