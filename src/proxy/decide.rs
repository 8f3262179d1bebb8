//! Where a request goes: what the policies say in name order, else the declared routes in file order. One function for
//! whoever wants to know: a request, or somebody who explains or replays one.

use crate::http::error::Error;
use crate::http::request::Head;
use crate::policy::release::{Side, Watched};
use crate::policy::{OnFault, Scope, Version};
use crate::service::catalog::Catalog;
use crate::service::decision::{Answer, Called, Fault, FaultKind, Forward, Outcome, Role};
use crate::service::record::PolicyCall;
use crate::snapshot::Snapshot;
use smallvec::SmallVec;
use std::sync::Arc;
use std::time::Duration;

/// Where a request goes.
#[derive(Debug)]
pub enum Decided {
    /// To a service.
    Forward(Arc<Forward>),
    /// Nowhere: a policy has answered it.
    Respond(Box<Answer>),
    /// Nowhere: the gateway answers itself.
    Refuse(Error),
}

/// What came of a request's head, and how.
#[derive(Debug)]
pub struct Verdict {
    /// Where it goes.
    pub decided: Decided,
    /// Name of the policy or the route that said so; none: nobody did.
    pub by: Option<Arc<str>>,
    /// Policies that were asked, in order.
    pub calls: SmallVec<[PolicyCall; 1]>,
    /// Canaries of these policies, to which it matters what comes of the request.
    pub watched: SmallVec<[Watched; 1]>,
}

/// How a version of a policy is asked.
pub trait Ask {
    /// What it says about this request, with these services.
    fn ask(&mut self, version: &Version, head: &Arc<Head>, catalog: &Arc<Catalog>) -> Called;

    /// 64 random bits.
    fn chance(&mut self) -> u64;

    /// Time since the request came.
    fn elapsed(&self) -> Duration;
}

/// Asks the policies in name order, then the declared routes in file order.
pub fn decide(snapshot: &Snapshot, head: &Arc<Head>, asks: &mut impl Ask) -> Verdict {
    let (mut calls, mut watched) = (SmallVec::new(), SmallVec::new());
    for scope in snapshot.policies.asked(head) {
        let outcome = ask(scope, head, &snapshot.catalog, asks, (&mut calls, &mut watched));
        let decided = match outcome {
            Outcome::Next => continue,
            Outcome::Forward(forward) => Decided::Forward(forward),
            Outcome::Respond(answer) => Decided::Respond(answer),
            Outcome::Fault(_) => match scope.on_fault {
                OnFault::Unavailable => Decided::Refuse(Error::PolicyUnavailable),
                OnFault::Next => continue,
                OnFault::Routes => break,
            },
        };
        return Verdict { decided, by: Some(Arc::clone(&scope.name)), calls, watched };
    }
    match snapshot.routes.first(head) {
        Some(route) => {
            let decided = Decided::Forward(Arc::clone(&route.forward));
            Verdict { decided, by: Some(Arc::clone(&route.name)), calls, watched }
        }
        None => Verdict { decided: Decided::Refuse(Error::NoRoute), by: None, calls, watched },
    }
}

/// Asks one policy: its live version, or its canary, for which the live one stands in where that goes wrong.
fn ask(
    scope: &Scope,
    head: &Arc<Head>,
    catalog: &Arc<Catalog>,
    asks: &mut impl Ask,
    (calls, all): (&mut SmallVec<[PolicyCall; 1]>, &mut SmallVec<[Watched; 1]>),
) -> Outcome {
    let live = scope.standing.live();
    let Some(mut watched) = scope.canary.as_ref().map(|canary| canary.draw(head, || asks.chance())) else {
        return call(scope, (live, Role::Live), head, catalog, asks, calls);
    };
    let mut outcome;
    if watched.side == Side::Canary {
        let version = Arc::clone(&watched.canary().version);
        outcome = call(scope, (Some(&version), Role::Canary), head, catalog, asks, calls);
        if let Outcome::Fault(fault) = &outcome {
            let answer = call(scope, (live, Role::Live), head, catalog, asks, calls);
            watched.faulted(fault, !matches!(answer, Outcome::Fault(_)), head);
            outcome = answer;
        }
    } else {
        outcome = call(scope, (live, Role::Live), head, catalog, asks, calls);
        if let Outcome::Fault(fault) = &outcome {
            watched.went_wrong(fault);
        }
    }
    all.push(watched);
    outcome
}

/// One policy call, and what is told of it.
fn call(
    scope: &Scope,
    (version, role): (Option<&Arc<Version>>, Role),
    head: &Arc<Head>,
    catalog: &Arc<Catalog>,
    asks: &mut impl Ask,
    calls: &mut SmallVec<[PolicyCall; 1]>,
) -> Outcome {
    let began = asks.elapsed();
    let Called { outcome, reason, logs, .. } = match version {
        Some(version) => asks.ask(version, head, catalog),
        None => {
            let message = scope.error.clone().unwrap_or_default();
            let outcome = Outcome::Fault(Fault { kind: FaultKind::Broken, message });
            Called { outcome, reason: String::new(), logs: Vec::new(), tape: None }
        }
    };
    // The outcome moves on to the proxy; what stays for telling is its kind, its reason and the fault.
    let fault = match &outcome {
        Outcome::Fault(fault) => {
            let version = version.map_or("none", |version| &version.id);
            scope.live.tell(&scope.name, version, fault, head);
            Some(fault.clone())
        }
        _ => None,
    };
    let (strategy, path, query) = match &outcome {
        Outcome::Forward(forward) => (forward.plan.strategy, forward.edits.path.clone(), forward.edits.query.clone()),
        _ => (None, None, None),
    };
    calls.push(PolicyCall {
        policy: Arc::clone(&scope.name),
        version: version.map(|version| Arc::clone(&version.id)),
        role,
        decision: outcome.decision(),
        reason,
        strategy,
        path,
        query,
        fault,
        logs,
        began,
        took: asks.elapsed().saturating_sub(began),
    });
    outcome
}
