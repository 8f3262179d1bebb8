//! The admin address: is it alive, is it ready, and what does it see. For operators only, so on loopback by default.

use crate::proxy::worker::Shared;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Answers until its task ends.
pub async fn serve(listener: tokio::net::TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let answer = answer(&shared, request.uri().path());
                async move { Ok::<_, std::convert::Infallible>(answer) }
            });
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn answer(shared: &Shared, path: &str) -> Response<Full<Bytes>> {
    if path == "/metrics" {
        return metrics(shared);
    }
    let snapshot = shared.snapshot.load();
    let (status, value) = match path {
        "/healthz" => (StatusCode::OK, json!({ "status": "alive" })),
        "/readyz" if *shared.drain.borrow() => (StatusCode::SERVICE_UNAVAILABLE, json!({ "status": "draining" })),
        "/readyz" => (StatusCode::OK, json!({ "status": "ready" })),
        "/snapshot" => (StatusCode::OK, snapshot_of(&snapshot)),
        "/services" => (StatusCode::OK, services(&snapshot)),
        "/routes" => {
            let routes = snapshot.routes.iter().map(|r| json!({ "name": *r.name, "service": *r.service.name }));
            (StatusCode::OK, json!({ "routes": routes.collect::<Vec<_>>() }))
        }
        "/policies" => (StatusCode::OK, policies(&snapshot)),
        _ => (
            StatusCode::NOT_FOUND,
            json!({ "error": { "code": "not_found", "reason": "See /healthz, /readyz, /metrics, /snapshot, /services, /routes, /policies." } }),
        ),
    };
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

fn snapshot_of(snapshot: &crate::snapshot::Snapshot) -> Value {
    json!({ "generation": snapshot.generation, "digest": snapshot.digest, "config_error": snapshot.config_error })
}

fn metrics(shared: &Shared) -> Response<Full<Bytes>> {
    let mut response =
        Response::new(Full::new(Bytes::from(shared.telemetry.metrics(&shared.snapshot.load(), shared.spread.open()))));
    let kind = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn services(snapshot: &crate::snapshot::Snapshot) -> Value {
    let mut services: Vec<_> = snapshot.services().collect();
    services.sort_by(|a, b| a.name.cmp(&b.name));
    let service = |service: &Arc<crate::service::Service>| {
        let endpoints = service.endpoints.iter().map(|e| {
            json!({ "address": e.address.to_string(), "weight": e.weight, "healthy": e.usable(),
                    "in_flight": e.in_flight(), "metadata": e.metadata })
        });
        json!({ "name": *service.name, "strategy": service.settings.strategy.name(), "source": *service.settings.source,
                "revision": service.reported.revision, "skipped": service.reported.skipped, "held": service.reported.held,
                "age_ms": u64::try_from(service.age().as_millis()).unwrap_or(u64::MAX),
                "stale": service.live.stale.load(Relaxed), "endpoints": endpoints.collect::<Vec<_>>() })
    };
    json!({ "services": services.into_iter().map(service).collect::<Vec<_>>() })
}

fn policies(snapshot: &crate::snapshot::Snapshot) -> Value {
    let policy = |scope: &Arc<crate::policy::Scope>| {
        let version = scope.standing.live();
        let suspended = version.and_then(|version| version.suspended());
        let state = match version {
            _ if scope.loading => "loading",
            Some(_) if suspended.is_some() => "suspended",
            Some(_) => "live",
            None => "failed",
        };
        json!({ "name": *scope.name, "version": version.map(|v| v.id.to_string()), "state": state, "error": scope.error,
                "reason": suspended.as_ref().map(|s| &s.reason),
                "until": suspended.as_ref().map(|s| humantime::format_rfc3339_seconds(s.until()).to_string()) })
    };
    json!({ "policies": snapshot.policies.iter().map(policy).collect::<Vec<_>>() })
}
