//! What changes something: only for who has the token, and never without a line in the log that says who, what, and what
//! came of it.

use super::api::{Done, PolicyState, Wanted};
use super::{Admin, problem};
use crate::policy::release::{Order, Refused};
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use std::net::SocketAddr;
use std::sync::Arc;

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

/// One policy.
pub(super) async fn show(State(admin): State<Admin>, Path(name): Path<String>) -> Response {
    let snapshot = admin.snapshot.load();
    match snapshot.policies.iter().find(|scope| *scope.name == *name) {
        Some(scope) => Json(PolicyState::of(scope)).into_response(),
        None => unknown(&name),
    }
}

fn unknown(name: &str) -> Response {
    let name: String = name.chars().take(100).collect();
    problem(StatusCode::NOT_FOUND, "no_policy", &format!("There is no policy `{name}`; see /policies."))
}

/// Something is wanted of a policy's versions.
pub(super) async fn want(
    State(admin): State<Admin>,
    Path((name, action)): Path<(String, String)>,
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Err(refused) = allowed(&admin, &headers) {
        tracing::warn!(%peer, policy = name, action, "audit: refused, without the token");
        return *refused;
    }
    let wanted = match body.is_empty() {
        true => Ok(Wanted::default()),
        false => serde_json::from_slice::<Wanted>(&body).map_err(|error| format!("the body: {error}")),
    };
    let order = match wanted.and_then(|wanted| wanted.order(&action)) {
        Ok(order) => order,
        Err(told) => return problem(StatusCode::BAD_REQUEST, "bad_request", &told),
    };
    let snapshot = admin.snapshot.load();
    let Some(scope) = snapshot.policies.iter().find(|scope| *scope.name == *name).map(Arc::clone) else {
        return unknown(&name);
    };
    // The answer may take a while, and needs no snapshot.
    drop(snapshot);
    let done = scope.desk.give(Arc::clone(&scope.name), order.clone()).await;
    audit(peer, &scope.name, &order, &done);
    match done {
        Ok(told) => Json(Done { told }).into_response(),
        Err(Refused::Conflict(told)) => problem(StatusCode::CONFLICT, "conflict", &told),
        Err(Refused::Failed(told)) => problem(StatusCode::SERVICE_UNAVAILABLE, "failed", &told),
    }
}

fn audit(peer: SocketAddr, policy: &str, order: &Order, done: &Result<String, Refused>) {
    let (action, version) = (order.name(), order.version().unwrap_or("none"));
    match done {
        Ok(told) => tracing::info!(%peer, policy, action, version, told, "audit: done"),
        Err(error) => tracing::warn!(%peer, policy, action, version, %error, "audit: not done"),
    }
}

/// Has it the token?
///
/// # Errors
/// No: what it is answered.
pub(super) fn allowed(admin: &Admin, headers: &HeaderMap) -> Result<(), Box<Response>> {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let (status, told) = match admin.token.is(given.unwrap_or("")) {
        Ok(true) => return Ok(()),
        Ok(false) if given.is_none() => {
            let file = admin.token.file.display();
            (StatusCode::UNAUTHORIZED, format!("Send `Authorization: Bearer TOKEN`; the token is in {file}."))
        }
        Ok(false) => (StatusCode::FORBIDDEN, "This is not the token.".to_owned()),
        Err(told) => (StatusCode::FORBIDDEN, format!("Nothing can be changed here, since there is no token: {told}")),
    };
    Err(Box::new(problem(status, "token", &told)))
}
