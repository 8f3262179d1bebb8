//! What goes back to the client: an upstream's response, a policy's answer, or the gateway's own.

mod body;

pub use body::{Body, Broken};

use crate::http::error::Error;
use crate::http::fields::Fields;
use crate::http::grpc;
use crate::http::headers;
use crate::http::headers::edit::{self, HeaderEdit};
use crate::http::settings::Gateway;
use crate::proxy::exchange::Exchange;
use crate::proxy::upgrade::{self, Tunnel};
use crate::proxy::upstream::download::{Download, Received};
use crate::proxy::upstream::{Arrived, NO_RETRY};
use crate::service::decision::Answer;
use bytes::Bytes;
use http::StatusCode;
use std::sync::Arc;

/// A response to the client.
#[derive(Debug)]
pub struct Response {
    /// Its status.
    pub status: StatusCode,
    /// Its lines, but for those that say how long the body is.
    pub headers: Fields,
    /// Its body.
    pub body: Body,
}

/// An upstream's response on its way to the client.
pub fn from_upstream(mut exchange: Box<Exchange>, arrived: Arrived, edits: &[HeaderEdit]) -> Response {
    let Received { status, mut headers, body: download } = arrived.response;
    headers::end_hop(&mut headers);
    if status == StatusCode::NO_CONTENT {
        // Some say how long nothing is; HTTP/1 forbids it (RFC 9110 §8.6).
        headers.remove("content-length");
    }
    tell_no_retry(&exchange, &mut headers);
    edit::apply(&mut headers, edits);
    tell_limit(&exchange, &mut headers);
    exchange.record.status = status.as_u16();
    Response { status, headers, body: Body::of_upstream(exchange, download, arrived.in_flight, arrived.limit) }
}

/// What gateways tell each other of retries is none of a stranger's business.
fn tell_no_retry(exchange: &Exchange, headers: &mut Fields) {
    let (name, value) = NO_RETRY;
    headers.remove(name);
    if exchange.record.no_retry {
        headers.append(name, value);
        if exchange.record.is_call() {
            headers.set("grpc-retry-pushback-ms", b"-1");
        }
    }
}

/// The endpoint speaks another protocol from now on, and so does the client once it has this. The tunnel begins when
/// the response is sent.
pub fn switching(
    mut exchange: Box<Exchange>,
    arrived: Arrived,
    edits: &[HeaderEdit],
    gateway: &Arc<Gateway>,
) -> (Response, Tunnel) {
    let Received { mut headers, body: download, .. } = arrived.response;
    let endpoint = match download {
        Download::Http1(body) => upgrade::FarSide::Http1(body),
        Download::Http2(_, _, stream) => upgrade::FarSide::Http2(stream),
    };
    let protocol = headers.get("upgrade").map(<[u8]>::to_vec);
    headers::end_hop(&mut headers);
    edit::apply(&mut headers, edits);
    let mut status = StatusCode::SWITCHING_PROTOCOLS;
    if exchange.record.head.as_ref().is_some_and(|head| head.extended_connect) {
        // RFC 8441 §5.
        status = StatusCode::OK;
        headers.remove("sec-websocket-accept");
    } else {
        headers.append("connection", b"upgrade");
        if let Some(protocol) = protocol {
            headers.append("upgrade", &protocol);
        }
    }
    tell_limit(&exchange, &mut headers);
    exchange.record.status = status.as_u16();
    let response = Response { status, headers, body: Body::tunnel() };
    let in_flight = arrived.in_flight;
    (response, Tunnel { exchange, in_flight, endpoint, gateway: Arc::clone(gateway) })
}

/// A policy's own answer.
pub fn from_policy(mut exchange: Box<Exchange>, answer: Answer) -> Response {
    exchange.record.status = answer.status.as_u16();
    let bare = answer.status == StatusCode::NO_CONTENT || answer.status == StatusCode::NOT_MODIFIED;
    let body = if bare { Bytes::new() } else { Bytes::from(answer.body) };
    let mut headers = Fields::default();
    for (name, value) in &answer.headers {
        headers.append(name.as_str(), value.as_bytes());
    }
    tell_limit(&exchange, &mut headers);
    Response { status: answer.status, headers, body: Body::full(exchange, body) }
}

/// What somebody else has answered, who was asked instead of an endpoint.
pub fn from_reply(mut exchange: Box<Exchange>, status: StatusCode, mut headers: Fields, body: Bytes) -> Response {
    exchange.record.status = status.as_u16();
    let bare = status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
    tell_limit(&exchange, &mut headers);
    Response { status, headers, body: Body::full(exchange, if bare { Bytes::new() } else { body }) }
}

/// The gateway's own answer.
pub fn from_error(mut exchange: Box<Exchange>, error: Error) -> Response {
    exchange.record.status = error.status().as_u16();
    exchange.record.error = Some(error);
    // What the connection found, it counts itself.
    if let Error::Malformed(malformed) = error
        && exchange.active.refused() != Some(malformed)
    {
        exchange.worker.recorder.refused(malformed);
    }
    if exchange.record.is_call() {
        // As a call of gRPC is answered: its own status is among the headers.
        let mut headers = grpc::headers(error);
        tell_no_retry(&exchange, &mut headers);
        tell_limit(&exchange, &mut headers);
        return Response { status: StatusCode::OK, headers, body: Body::full(exchange, Bytes::new()) };
    }
    let http1 = exchange.record.head.as_ref().is_none_or(|head| head.parts.version < http::Version::HTTP_2);
    let lines = [("content-type", "application/json"), ("cache-control", "no-store")];
    let mut headers: Fields = lines.into_iter().collect();
    tell_no_retry(&exchange, &mut headers);
    if let Some(seconds) = exchange.record.retry_after {
        headers.append("retry-after", seconds.to_string().as_bytes());
    }
    tell_limit(&exchange, &mut headers);
    if error == Error::MethodRefused {
        headers.append("allow", ALLOWED);
    }
    if matches!(error, Error::Malformed(_)) && http1 {
        // Whoever sends what has two meanings may already be in the middle of the other one.
        headers.append("connection", b"close");
    }
    Response { status: error.status(), headers, body: Body::full(exchange, Bytes::from(error.body())) }
}

/// Methods that are carried; any other that is a token is as well.
const ALLOWED: &[u8] = b"GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS";

/// What the gateway says about itself: which methods it carries (RFC 9110 §9.3.7).
pub fn options(mut exchange: Box<Exchange>) -> Response {
    let status = StatusCode::NO_CONTENT;
    exchange.record.status = status.as_u16();
    let mut headers = Fields::default();
    headers.append("allow", ALLOWED);
    Response { status, headers, body: Body::full(exchange, Bytes::new()) }
}

/// Tells the client how it stands with the limits that are about its request.
fn tell_limit(exchange: &Exchange, headers: &mut Fields) {
    if let Some(standing) = &exchange.record.rate_limit {
        standing.tell(headers);
    }
}
