//! Where a request goes: what the policies say in name order, else the declared routes in file order. One function for
//! whoever wants to know: a request, or somebody who explains or replays one.

use crate::http::error::Error;
use crate::http::request::Head;
use crate::policy::{OnFault, Scope, Standing, Version};
use crate::service::catalog::Catalog;
use crate::service::decision::{Answer, Called, Fault, FaultKind, Forward, Outcome};
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
}

/// How a version of a policy is asked.
pub trait Ask {
    /// What it says about this request, with these services.
    fn ask(&mut self, version: &Version, head: &Arc<Head>, catalog: &Arc<Catalog>) -> Called;

    /// Time since the request came.
    fn elapsed(&self) -> Duration;
}

/// Asks the policies in name order, then the declared routes in file order.
pub fn decide(snapshot: &Snapshot, head: &Arc<Head>, asks: &mut impl Ask) -> Verdict {
    let mut calls = SmallVec::new();
    for scope in snapshot.policies.asked(head) {
        let (outcome, call) = ask(scope, head, &snapshot.catalog, asks);
        calls.push(call);
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
        return Verdict { decided, by: Some(Arc::clone(&scope.name)), calls };
    }
    match snapshot.routes.first(head) {
        Some(route) => {
            let decided = Decided::Forward(Arc::clone(&route.forward));
            Verdict { decided, by: Some(Arc::clone(&route.name)), calls }
        }
        None => Verdict { decided: Decided::Refuse(Error::NoRoute), by: None, calls },
    }
}

/// One policy call, and what is told of it.
fn ask(scope: &Scope, head: &Arc<Head>, catalog: &Arc<Catalog>, asks: &mut impl Ask) -> (Outcome, PolicyCall) {
    let began = asks.elapsed();
    let Called { outcome, reason, logs, .. } = match &scope.standing {
        Standing::Live(version) => asks.ask(version, head, catalog),
        Standing::Broken | Standing::Pending => {
            let message = scope.error.clone().unwrap_or_default();
            let outcome = Outcome::Fault(Fault { kind: FaultKind::Broken, message });
            Called { outcome, reason: String::new(), logs: Vec::new(), tape: None }
        }
    };
    // The outcome moves on to the proxy; what stays for telling is its kind, its reason and the fault.
    let fault = match &outcome {
        Outcome::Fault(fault) => {
            let version = scope.standing.live().map_or("none", |version| &version.id);
            scope.live.tell(&scope.name, version, fault, head);
            Some(fault.clone())
        }
        _ => None,
    };
    let (strategy, path, query) = match &outcome {
        Outcome::Forward(forward) => (forward.plan.strategy, forward.edits.path.clone(), forward.edits.query.clone()),
        _ => (None, None, None),
    };
    let call = PolicyCall {
        policy: Arc::clone(&scope.name),
        version: scope.standing.live().map(|version| Arc::clone(&version.id)),
        decision: outcome.decision(),
        reason,
        strategy,
        path,
        query,
        fault,
        logs,
        began,
        took: asks.elapsed().saturating_sub(began),
    };
    (outcome, call)
}
