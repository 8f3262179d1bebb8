//! A request's head on its way up.

use super::forwarded;
use super::websocket;
use crate::base::trace::TraceContext;
use crate::http::downstream::clock::Handle;
use crate::http::error::Error;
use crate::http::headers::{edit, expects_continue};
use crate::http::malformed::Malformed;
use crate::http::request::Head;
use crate::http::request::body::gate::Gate;
use crate::http::request::body::{RequestBody, Upload};
use crate::http::settings::Gateway;
use crate::service::Endpoint;
use crate::service::decision::{Edits, Forward};
use crate::telemetry::Counters;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use http_body::Body;
use std::rc::Rc;

/// The request's head as it is sent. Each time it is made anew: hyper keeps what it sends, and each attempt has a trace
/// parent of its own.
pub(super) struct Outgoing<'a> {
    pub(super) head: &'a Head,
    pub(super) gateway: &'a Gateway,
    edits: &'a Edits,
    uri: Uri,
    version: Version,
    /// HTTP/1: for the `Host` header.
    host: Option<HeaderValue>,
    /// HTTP/1: the protocol that the client wants to speak from now on.
    pub(super) upgrade: Option<&'a HeaderValue>,
    /// HTTP/1, from end to end: the body waits until the endpoint asks for it.
    pub(super) waits: bool,
    /// Who is told of early hints.
    pub(super) client: Handle,
    pub(super) counters: &'a Counters,
}

impl<'a> Outgoing<'a> {
    /// # Errors
    /// A policy's edits make no target.
    pub(super) fn new(
        head: &'a Head,
        forward: &'a Forward,
        gateway: &'a Gateway,
        client: Handle,
        counters: &'a Counters,
    ) -> Result<Self, Error> {
        let Forward { service, edits, .. } = forward;
        let own = || service.settings.host.clone();
        let sent = || head.parts.headers.get(header::HOST).cloned();
        let host = edits.host.clone().or_else(own).or_else(sent);
        let target = target(head, edits)?;
        if !service.settings.http2() {
            let (uri, version, upgrade) = (Uri::from(target), Version::HTTP_11, head.upgrade.as_ref());
            let waits = expects_continue(head.parts.version, &head.parts.headers);
            return Ok(Outgoing { head, gateway, edits, uri, version, host, upgrade, waits, client, counters });
        }
        // `:authority` carries the host (RFC 9113 §8.3.1).
        let authority = host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or("localhost");
        let scheme = if service.tls.is_some() { "https" } else { "http" };
        let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(target).build();
        let uri = uri.map_err(|_| Error::Malformed(Malformed::Target))?;
        let version = Version::HTTP_2;
        Ok(Outgoing { head, gateway, edits, uri, version, host: None, upgrade: None, waits: false, client, counters })
    }

    /// Its client wants to speak WebSocket.
    pub(super) fn wants_websocket(&self) -> bool {
        self.head.upgrade.as_ref().is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"))
    }

    /// The endpoint's 200 to a tunnel, as HTTP/1.1 would have said it (RFC 8441 §5, RFC 6455 §4.2.2).
    pub(super) fn switched<B>(&self, response: &mut Response<B>) {
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        if let Some(key) = self.head.parts.headers.get(header::SEC_WEBSOCKET_KEY) {
            response.headers_mut().insert(header::SEC_WEBSOCKET_ACCEPT, websocket::accept(key));
        }
    }

    /// `tunnel`: HTTP/2's way to ask for a WebSocket.
    pub(super) fn request(
        &self,
        endpoint: &Endpoint,
        (trace, span_id): (&TraceContext, u64),
        body: &Rc<Upload>,
        tunnel: bool,
    ) -> Request<RequestBody> {
        let mut headers = forwarded::for_upstream(self.head, self.gateway);
        edit::apply(&mut headers, &self.edits.request);
        match &self.host {
            Some(host) => headers.insert(header::HOST, host.clone()),
            // HTTP/1.0's clients need not say one, and HTTP/1.1 wants one (RFC 9112 §3.2).
            None if self.version == Version::HTTP_11 => headers.insert(header::HOST, address_of(endpoint)),
            None => headers.remove(header::HOST),
        };
        if let Some(protocol) = self.upgrade {
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, protocol.clone());
            if self.head.extended_connect {
                headers.insert(header::SEC_WEBSOCKET_KEY, websocket::key(span_id));
            }
        }
        trace.inject(span_id, &mut headers);
        // Once it was asked, the client does not wait for another attempt to ask again.
        let gate = (self.waits && body.is_some() && !body.started()).then(Gate::closed);
        if gate.is_none() {
            headers.remove(header::EXPECT);
        }
        let body = body.reader(gate);
        if self.version == Version::HTTP_11 && body.size_hint().exact().is_none() {
            headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        let mut request = Request::new(body);
        *request.method_mut() = self.head.parts.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = self.version;
        *request.headers_mut() = headers;
        if tunnel {
            *request.method_mut() = Method::CONNECT;
            request.headers_mut().remove(header::SEC_WEBSOCKET_KEY);
            request.extensions_mut().insert(hyper::ext::Protocol::from_static("websocket"));
        }
        request
    }
}

/// For a `Host` that nobody else has said.
fn address_of(endpoint: &Endpoint) -> HeaderValue {
    // An address is always good in a header.
    HeaderValue::from_str(&endpoint.address.to_string()).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Path and query as the upstream gets them: as sent, unless the path had dot segments or a policy changed something.
fn target(head: &Head, edits: &Edits) -> Result<PathAndQuery, Error> {
    let (path, query) = (edits.path.as_deref(), edits.query.as_deref());
    if path.is_none()
        && query.is_none()
        && !head.path_was_resolved()
        && let Some(sent) = head.parts.uri.path_and_query()
    {
        return Ok(sent.clone());
    }
    let path = path.unwrap_or_else(|| head.path());
    let query = query.map_or_else(|| head.query(), Some).filter(|query| !query.is_empty());
    let target = match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    PathAndQuery::try_from(target).map_err(|_| Error::Malformed(Malformed::Target))
}
