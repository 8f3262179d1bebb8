//! THE story: one request, from its head to its response.

use crate::balance::Strategy;
use crate::error::Error;
use crate::exchange::{Exchange, PolicyCall};
use crate::headers;
use crate::listener::Active;
use crate::policy::{Answer, Called, Fault, FaultKind, OnFault, Outcome, Question, Scope, Standing};
use crate::request::Head;
use crate::response::{self, Body};
use crate::snapshot::Snapshot;
use crate::upstream::{self, Forwarded, Source};
use crate::worker::Worker;
use http::{Request, Response};
use hyper::body::Incoming;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

/// Where a request goes.
enum Decided {
    Forward(Box<Forwarded>),
    Respond(Answer),
    Refuse(Error),
}

/// Carries one request.
pub async fn handle(
    worker: Rc<Worker>,
    peer: SocketAddr,
    active: Active,
    request: Request<Incoming>,
) -> Response<Body> {
    let snapshot = worker.shared.snapshot.load_full();
    let (parts, body) = request.into_parts();
    let mut exchange = Exchange::begin(&worker, peer, active, &parts.headers, &snapshot.telemetry);
    let checked = headers::check(&parts);
    let head = Head::new(parts, peer.ip().to_canonical());
    if let Err(error) = checked {
        exchange.head = Some(head);
        return response::from_error(exchange, error);
    }
    let forwarded = match decide(&mut exchange, &snapshot, head) {
        Decided::Forward(forwarded) => forwarded,
        Decided::Respond(answer) => return response::from_policy(exchange, answer),
        Decided::Refuse(error) => return response::from_error(exchange, error),
    };
    exchange.service = Some(Arc::clone(&forwarded.service));
    let body = Source::new(body);
    let arrived = upstream::send(&mut exchange, &forwarded, &snapshot.gateway, &body).await;
    exchange.request_bytes = body.bytes();
    match arrived {
        Ok(arrived) => {
            let edits = forwarded.edits.as_ref().map_or(&[][..], |edits| &edits.response);
            response::from_upstream(exchange, arrived, edits)
        }
        Err(error) => response::from_error(exchange, error),
    }
}

/// Asks the policies in name order, then the declared routes in file order.
fn decide(exchange: &mut Exchange, snapshot: &Arc<Snapshot>, mut head: Head) -> Decided {
    let mut decided = None;
    for scope in &snapshot.policies {
        if matches!(scope.standing, Standing::Pending) || !scope.matcher.fits(&head) {
            continue;
        }
        let (back, outcome) = ask(exchange, snapshot, scope, head);
        head = back;
        match outcome {
            Outcome::Next => {}
            Outcome::Forward(forward) => {
                exchange.route = Some(Arc::clone(&scope.name));
                let (plan, edits) = (Some(forward.plan), Some(forward.edits));
                let service = forward.service;
                decided = Some(Decided::Forward(Box::new(Forwarded { service, plan, edits })));
                break;
            }
            Outcome::Respond(answer) => {
                exchange.route = Some(Arc::clone(&scope.name));
                decided = Some(Decided::Respond(*answer));
                break;
            }
            Outcome::Fault(_) => match scope.on_fault {
                OnFault::Unavailable => {
                    exchange.route = Some(Arc::clone(&scope.name));
                    decided = Some(Decided::Refuse(Error::PolicyUnavailable));
                    break;
                }
                OnFault::Next => {}
                OnFault::Routes => break,
            },
        }
    }
    let decided = decided.unwrap_or_else(|| match snapshot.routes.iter().find(|route| route.matcher.fits(&head)) {
        Some(route) => {
            exchange.route = Some(Arc::clone(&route.name));
            let service = Arc::clone(&route.service);
            Decided::Forward(Box::new(Forwarded { service, plan: None, edits: None }))
        }
        None => Decided::Refuse(Error::NoRoute),
    });
    exchange.head = Some(head);
    decided
}

/// One policy call; what came of it is noted in the exchange, and the head comes back.
fn ask(exchange: &mut Exchange, snapshot: &Arc<Snapshot>, scope: &Scope, head: Head) -> (Head, Outcome) {
    let began = exchange.started.elapsed();
    let (head, version, called) = match &scope.standing {
        Standing::Live(version) => {
            let seed = exchange.worker.chance.borrow_mut().next_u64();
            let question = Question { head, snapshot: Arc::clone(snapshot), now_ms: exchange.unix_ms(), seed };
            let (question, called) = version.decide(exchange.worker.index, question);
            (question.head, Some(Arc::clone(version)), called)
        }
        Standing::Broken | Standing::Pending => {
            let message = scope.error.clone().unwrap_or_default();
            let outcome = Outcome::Fault(Fault { kind: FaultKind::Broken, message });
            (head, None, Called { outcome, reason: String::new(), logs: Vec::new() })
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
    (head, outcome)
}
