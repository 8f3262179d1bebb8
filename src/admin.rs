//! The admin address: is it alive, is it ready, what does it see, and what shall become of policies' versions. For operators
//! only, so on loopback by default; on a
//! thread of its own, with bounds on whoever connects, so that no caller can hold up control or traffic.

pub mod api;
mod guard;
mod record;
mod serve;
pub mod token;
mod write;

use crate::http::downstream::spread::Spread;
use crate::snapshot::Current;
use crate::snapshot::vitals::{Phase, Vitals};
use crate::telemetry::Telemetry;
use api::{Middleware, Policies, Problem, Published, RateLimits, Routes, Services, Status};
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router, middleware};
pub use serve::serve;
use std::sync::Arc;
use token::Token;

/// What the admin sees.
#[derive(Debug, Clone)]
pub struct Admin {
    /// The world.
    pub snapshot: Current,
    /// How the gateway itself is doing.
    pub vitals: Arc<Vitals>,
    /// For `/metrics`.
    pub telemetry: Arc<Telemetry>,
    /// Downstream connections.
    pub spread: Arc<Spread>,
    /// Names that it may be asked by, beside addresses and `localhost`.
    pub hosts: Arc<[String]>,
    /// What whoever changes something must have.
    pub token: Arc<Token>,
}

/// Bytes of what is sent, at most.
const BODY: usize = 64 << 10;

const PATHS: &str = "See /healthz, /readyz, /metrics, /snapshot, /services, /routes, /policies, /policies/NAME, /middleware, /rate_limits.";

fn router(admin: Admin) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/snapshot", get(async |State(admin): State<Admin>| Json(Published::of(&admin.snapshot.load()))))
        .route("/services", get(async |State(admin): State<Admin>| Json(Services::of(&admin.snapshot.load()))))
        .route("/routes", get(async |State(admin): State<Admin>| Json(Routes::of(&admin.snapshot.load()))))
        .route("/middleware", get(async |State(admin): State<Admin>| Json(Middleware::of(&admin.snapshot.load()))))
        .route("/rate_limits", get(async |State(admin): State<Admin>| Json(RateLimits::of(&admin.snapshot.load()))))
        .route("/policies", get(async |State(admin): State<Admin>| Json(Policies::of(&admin.snapshot.load()))))
        .route("/policies/{name}", get(write::show))
        .route("/policies/{name}/{action}", post(write::want))
        .route("/record", post(record::begin))
        .route("/record/{id}", delete(record::end))
        .route("/record/{id}/{from}", get(record::part))
        .layer(axum::extract::DefaultBodyLimit::max(BODY))
        .fallback(async || problem(StatusCode::NOT_FOUND, "not_found", PATHS))
        .method_not_allowed_fallback(async || {
            problem(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "This can only be read, or only be sent to: see Allow.",
            )
        })
        .layer(middleware::from_fn_with_state(Arc::clone(&admin.hosts), guard::check))
        .layer(middleware::map_response(secured))
        .with_state(admin)
}

fn problem(status: StatusCode, code: &str, reason: &str) -> Response {
    (status, Json(Problem::new(code, reason))).into_response()
}

/// Does it live? Not where control has been stuck for long: then only a restart helps.
async fn healthz(State(admin): State<Admin>) -> Response {
    let alive = admin.vitals.control_is_alive();
    let code = if alive { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(status(&admin, if alive { "alive" } else { "stuck" }))).into_response()
}

/// Shall it be sent traffic?
async fn readyz(State(admin): State<Admin>) -> Response {
    let name = match admin.vitals.phase() {
        Phase::Starting => "starting",
        Phase::Leaving | Phase::Draining => "draining",
        Phase::Serving if !admin.vitals.control_is_alive() => "stuck",
        Phase::Serving => "ready",
    };
    let code = if name == "ready" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let broken_policies = api::broken(&admin.snapshot.load());
    (code, Json(Status { broken_policies, ..status(&admin, name) })).into_response()
}

fn status(admin: &Admin, name: &str) -> Status {
    let control_age_ms = u64::try_from(admin.vitals.control_age().as_millis()).unwrap_or(u64::MAX);
    Status { status: name.to_owned(), control_age_ms, broken_policies: Vec::new() }
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let page = admin.telemetry.metrics(&admin.snapshot.load(), admin.spread.open(), &admin.vitals);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page).into_response()
}

/// What every answer says to browsers: it is no page, nobody's to embed, to keep or to guess the type of.
async fn secured(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests;
