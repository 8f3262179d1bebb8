//! A record of the decisions of the next while, for whoever has the token: it holds what clients send, and costs a worker
//! something. It is fetched in parts, since no connection to the admin lasts for long.

use super::api::{RECORD_MORE, RECORD_PROBLEM, RecordWanted, Recorded};
use super::write::{Peer, allowed};
use super::{Admin, problem};
use crate::base::time::unix_ms;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use std::time::Duration;

/// Begins one.
pub(super) async fn begin(
    State(admin): State<Admin>,
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Err(refused) = allowed(&admin, &headers) {
        tracing::warn!(%peer, "audit: a record was refused, without the token");
        return *refused;
    }
    let wanted: RecordWanted = match serde_json::from_slice(&body) {
        Ok(wanted) => wanted,
        Err(error) => return problem(StatusCode::BAD_REQUEST, "bad_request", &format!("the body: {error}")),
    };
    let RecordWanted { sample, time_ms } = wanted;
    match admin.telemetry.recording().ask(sample, Duration::from_millis(time_ms), unix_ms()) {
        Ok(asked) => {
            tracing::info!(%peer, sample, time_ms, record = asked.id, "audit: decisions are recorded");
            Json(Recorded { record: asked.id }).into_response()
        }
        Err(told) => problem(StatusCode::CONFLICT, "conflict", &told),
    }
}

/// A part of one, from this byte on.
pub(super) async fn part(
    State(admin): State<Admin>,
    Path((id, from)): Path<(u64, u64)>,
    headers: HeaderMap,
) -> Response {
    if let Err(refused) = allowed(&admin, &headers) {
        return *refused;
    }
    let Some(asked) = admin.telemetry.recording().asked(id) else { return gone() };
    // Before it is read: what was written until then is all of it.
    let ended = asked.ended().cloned();
    let read = tokio::task::spawn_blocking(move || asked.part(from)).await;
    match read.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
        Ok(part) => {
            let more = ended.is_none() || !part.is_empty();
            let told = ended.and_then(Result::err).filter(|_| !more).unwrap_or_default();
            let told = told.chars().filter(|char| char.is_ascii() && !char.is_ascii_control()).collect::<String>();
            let headers = [
                ("content-type", "application/octet-stream".to_owned()),
                (RECORD_MORE, more.to_string()),
                (RECORD_PROBLEM, told),
            ];
            (headers, part).into_response()
        }
        Err(error) => {
            problem(StatusCode::SERVICE_UNAVAILABLE, "failed", &format!("the record cannot be read: {error}"))
        }
    }
}

/// Ends one, and removes it.
pub(super) async fn end(
    State(admin): State<Admin>,
    Path(id): Path<u64>,
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
) -> Response {
    if let Err(refused) = allowed(&admin, &headers) {
        return *refused;
    }
    let Some(asked) = admin.telemetry.recording().asked(id) else { return gone() };
    asked.give_up();
    tracing::info!(%peer, record = id, "audit: the record is removed");
    Json(Recorded { record: id }).into_response()
}

fn gone() -> Response {
    problem(StatusCode::NOT_FOUND, "no_record", "There is no such record, or it is gone; begin another one.")
}
