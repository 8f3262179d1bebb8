//! THE story: one request, from its head to its response.

pub mod exchange;
pub mod listener;
pub mod response;
pub mod upgrade;
pub mod upstream;
pub mod worker;

use crate::http::downstream::clock::Active;
use crate::http::error::Error;
use crate::http::headers;
use crate::http::request::body::Source;
use crate::http::request::{Head, Peer};
use crate::policy::{OnFault, Question, Scope, Standing};
use crate::proxy::exchange::{Exchange, PolicyCall};
use crate::proxy::worker::Worker;
use crate::service::decision::{Answer, Called, Fault, FaultKind, Forward, Outcome};
use crate::service::plan::Strategy;
use crate::snapshot::Snapshot;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use response::Body;
use std::rc::Rc;
use std::sync::Arc;

/// Where a request goes.
enum Decided {
    Forward(Box<Forward>),
    Respond(Box<Answer>),
    Refuse(Error),
}

/// Carries one request.
pub async fn handle(worker: Rc<Worker>, peer: Arc<Peer>, active: Active, request: Request<Incoming>) -> Response<Body> {
    let snapshot = worker.shared.snapshot.load_full();
    let (mut parts, body) = request.into_parts();
    // In HTTP/2 a stream can become a tunnel; of HTTP/1 the listener takes over the whole connection.
    let upgraded = parts.extensions.remove::<OnUpgrade>().filter(|_| parts.version == http::Version::HTTP_2);
    let mut exchange = Exchange::begin(&worker, Arc::clone(&peer), active, &parts.headers, &snapshot.telemetry);
    let checked = headers::check(&mut parts, &snapshot.gateway.limits);
    let asks_us = headers::ends_at_this_hop(&mut parts);
    let head = Head::new(parts, peer, &snapshot.gateway.trusted_proxies);
    exchange.head = Some(Arc::clone(&head));
    if let Err(error) = checked {
        return response::from_error(exchange, error);
    }
    if asks_us {
        return response::options(exchange);
    }
    let forward = match decide(&mut exchange, &snapshot, &head) {
        Decided::Forward(forward) => forward,
        Decided::Respond(answer) => return response::from_policy(exchange, *answer),
        Decided::Refuse(error) => return response::from_error(exchange, error),
    };
    exchange.service = Some(Arc::clone(&forward.service));
    let most = forward.service.settings.max_body_bytes.unwrap_or(u64::MAX);
    let body = Source::new(body, &head, most, &snapshot.gateway.limits);
    let arrived = upstream::send(&mut exchange, &forward, &snapshot.gateway, &body).await;
    exchange.request_bytes = body.bytes();
    let edits = &forward.edits.response;
    match arrived {
        Ok(arrived) if arrived.response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            let (response, tunnel) = response::switching(exchange, arrived, edits, snapshot.gateway.tunnels);
            upgrade::begin(tunnel, upgraded);
            response
        }
        Ok(arrived) => response::from_upstream(exchange, arrived, edits),
        Err(error) => response::from_error(exchange, error),
    }
}

/// Asks the policies in name order, then the declared routes in file order.
fn decide(exchange: &mut Exchange, snapshot: &Arc<Snapshot>, head: &Arc<Head>) -> Decided {
    for scope in &snapshot.policies {
        if matches!(scope.standing, Standing::Pending) || !scope.matcher.fits(head) {
            continue;
        }
        let decided = match ask(exchange, snapshot, scope, head) {
            Outcome::Next => continue,
            Outcome::Forward(forward) => Decided::Forward(forward),
            Outcome::Respond(answer) => Decided::Respond(answer),
            Outcome::Fault(_) => match scope.on_fault {
                OnFault::Unavailable => Decided::Refuse(Error::PolicyUnavailable),
                OnFault::Next => continue,
                OnFault::Routes => break,
            },
        };
        exchange.route = Some(Arc::clone(&scope.name));
        return decided;
    }
    let Some(route) = snapshot.routes.iter().find(|route| route.matcher.fits(head)) else {
        return Decided::Refuse(Error::NoRoute);
    };
    exchange.route = Some(Arc::clone(&route.name));
    Decided::Forward(Box::new(Forward::to(Arc::clone(&route.service))))
}

/// One policy call; what came of it is noted in the exchange.
fn ask(exchange: &mut Exchange, snapshot: &Arc<Snapshot>, scope: &Scope, head: &Arc<Head>) -> Outcome {
    let began = exchange.started.elapsed();
    let (version, called) = match &scope.standing {
        Standing::Live(version) => {
            let (head, catalog) = (Arc::clone(head), Arc::clone(&snapshot.catalog));
            let seed = exchange.worker.chance.borrow_mut().next_u64();
            let question = Question { head, catalog, now_ms: exchange.unix_ms(), seed };
            (Some(Arc::clone(version)), version.decide(exchange.worker.index, question))
        }
        Standing::Broken | Standing::Pending => {
            let message = scope.error.clone().unwrap_or_default();
            let outcome = Outcome::Fault(Fault { kind: FaultKind::Broken, message });
            (None, Called { outcome, reason: String::new(), logs: Vec::new() })
        }
    };
    // The outcome moves on to the proxy; what stays for telling is its kind, its reason and the fault.
    let Called { outcome, reason, logs } = called;
    let fault = match &outcome {
        Outcome::Fault(fault) => {
            tracing::warn!(policy = %scope.name, kind = fault.kind.name(), message = fault.message, "policy fault");
            Some(fault.clone())
        }
        _ => None,
    };
    let (strategy, path, query) = match &outcome {
        Outcome::Forward(forward) => {
            (forward.plan.strategy.map(Strategy::name), forward.edits.path.clone(), forward.edits.query.clone())
        }
        _ => (None, None, None),
    };
    exchange.calls.push(PolicyCall {
        policy: Arc::clone(&scope.name),
        version,
        decision: outcome.name(),
        reason,
        strategy,
        path,
        query,
        fault,
        logs,
        began,
        took: exchange.started.elapsed().saturating_sub(began),
    });
    outcome
}
