//! Asks an external check, once, on the way up that any request takes: its service is balanced, checked and tried again.

use super::{Passing, Reply, Stop};
use crate::http::error::Error;
use crate::http::fields::Fields;
use crate::http::headers::edit::HeaderEdit;
use crate::http::request::body::{Incoming, Upload};
use crate::http::request::target::Target;
use crate::http::request::{Head, Parts};
use crate::http::settings::Gateway;
use crate::proxy::exchange::Exchange;
use crate::proxy::response;
use crate::proxy::upstream;
use crate::service::Service;
use crate::service::decision::{Edits, Forward};
use crate::service::middleware::forward_auth::{ForwardAuth, OnFailure};
use crate::service::middleware::{Middleware, Outcome};
use crate::service::plan::Plan;
use http::{HeaderName, HeaderValue, Method, Version};
use std::sync::Arc;

/// Bytes of a check's body that a client is given; a larger one is left out.
const BODY: usize = 64 << 10;

/// What other gateways have said of the client, which a trusted one's request keeps, and what a trace is told by.
const PASSED: [&str; 6] =
    ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded", "traceparent", "tracestate"];

/// # Errors
/// The check says so, or fails.
pub(super) async fn before(check: &ForwardAuth, middleware: &Middleware, passing: &mut Passing) -> Result<(), Stop> {
    let snapshot = Arc::clone(&passing.request.snapshot);
    let asked = match snapshot.service(&check.service) {
        Some(service) => ask(check, middleware, passing, Arc::clone(service)).await,
        None => None,
    };
    let headers = match asked {
        Some(reply) if reply.status.is_success() => reply.headers,
        Some(reply) => return Err(Stop::Reply(Box::new(reply))),
        None if check.on_failure == OnFailure::Deny => return Err(Stop::Refuse(Error::AuthUnavailable, None)),
        None => {
            middleware.live.count(Outcome::LetThrough);
            passing.record().unchecked = Some(Arc::clone(&middleware.name));
            Fields::default()
        }
    };
    if !check.copy.is_empty() {
        passing.edit(|head| {
            for name in &check.copy {
                head.parts.headers.remove(name);
                headers.all(name).for_each(|value| head.parts.headers.append(name, value));
            }
        });
    }
    Ok(())
}

/// What the check answers; none: it fails.
async fn ask(check: &ForwardAuth, middleware: &Middleware, passing: &Passing, service: Arc<Service>) -> Option<Reply> {
    let gateway = &passing.request.snapshot.gateway;
    let head = head(check, passing.head(), gateway)?;
    let plan = Plan { timeout: Some(check.timeout), ..Plan::default() };
    let forward = Forward { service, plan, edits: edits(passing.head()) };
    let outer = &passing.request.exchange;
    let trace = outer.record.trace.child(&mut outer.worker.chance.borrow_mut());
    let mut exchange = Exchange::own(&outer.worker, middleware.by(), trace, Arc::clone(&head), gateway);
    exchange.record.service = Some(Arc::clone(&forward.service));
    let body = Upload::new(Incoming::None, &head, u64::MAX, gateway);
    let arrived = upstream::admit::send(&mut exchange, &forward, gateway, &body).await;
    let response = match arrived {
        Ok(arrived) => response::from_upstream(exchange, arrived, &[]),
        Err(error) => {
            exchange.record.error = Some(error);
            return None;
        }
    };
    let response::Response { status, mut headers, body } = response;
    if status.is_informational() || status.is_server_error() {
        return None;
    }
    // Read also where nobody gets it, so that the connection can be used again.
    let body = body.whole(BODY).await.ok()?;
    headers.remove("content-length");
    if body.is_none() {
        headers.retain(|name| !name.starts_with(b"content-"));
    }
    Some(Reply { status, headers, body: body.unwrap_or_default() })
}

/// The head that the check is sent: nothing of the body, and of the headers what it was said to need.
fn head(check: &ForwardAuth, head: &Head, gateway: &Gateway) -> Option<Arc<Head>> {
    let sent = &head.parts.headers;
    let mut headers = Fields::default();
    let passed = PASSED.into_iter().filter(|name| head.peer_is_trusted || name.starts_with("trace"));
    for name in std::iter::once("host").chain(check.headers.iter().map(String::as_str)).chain(passed) {
        if !headers.has(name) {
            sent.all(name).for_each(|value| headers.append(name, value));
        }
    }
    let target = Target::read(check.path.as_bytes())?;
    let parts = Parts { method: Method::GET, target, version: Version::HTTP_11, headers, websocket: false };
    Some(Head::with(parts, Arc::clone(&head.peer), &gateway.trusted_proxies, gateway.paths))
}

/// What the check is told of the request, beside what each endpoint is told of the client.
fn edits(head: &Head) -> Edits {
    // The path as it goes on.
    let target = match head.query() {
        Some(query) => format!("{}?{query}", head.path()),
        None => head.path().to_owned(),
    };
    let set = |name, value: &str| {
        Some(HeaderEdit::Set(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).ok()?))
    };
    let request = [("x-forwarded-method", head.parts.method.as_str()), ("x-forwarded-uri", &target)];
    Edits { request: request.into_iter().filter_map(|(name, value)| set(name, value)).collect(), ..Edits::default() }
}
