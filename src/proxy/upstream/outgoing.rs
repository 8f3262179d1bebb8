//! A request's head on its way up.

use super::forwarded;
use super::websocket;
use crate::base::trace::TraceContext;
use crate::http::downstream::clock::Handle;
use crate::http::error::Error;
use crate::http::fields::Fields;
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
use http::{HeaderValue, Method, Request, StatusCode, Uri, Version};
use http_body::Body;
use std::borrow::Cow;
use std::rc::Rc;

/// The request's head as it is sent. Its lines are made anew each time, since each attempt has a trace parent of its own.
pub(super) struct Outgoing<'a> {
    pub(super) head: &'a Head,
    pub(super) gateway: &'a Gateway,
    edits: &'a Edits,
    target: Cow<'a, str>,
    /// For the `Host` header; HTTP/2: for `:authority`.
    host: Option<&'a [u8]>,
    /// That is not what the client sent.
    renames: bool,
    /// HTTP/2: the whole of what it is for.
    uri: Option<Uri>,
    /// The header of a session, with the name that its endpoint has given it.
    session: Option<(&'a str, &'a [u8])>,
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
        let told = edits.host.as_ref().or(service.settings.host.as_ref()).map(HeaderValue::as_bytes);
        let host = told.or_else(|| head.parts.headers.get("host"));
        let target = target(head, edits)?;
        let mut outgoing = Outgoing {
            head,
            gateway,
            edits,
            target,
            host,
            renames: told.is_some(),
            uri: None,
            session: None,
            upgrade: None,
            waits: false,
            client,
            counters,
        };
        if service.settings.http2() {
            // `:authority` carries the host (RFC 9113 §8.3.1).
            let authority = host.and_then(|host| std::str::from_utf8(host).ok()).unwrap_or("localhost");
            let scheme = if service.tls.is_some() { "https" } else { "http" };
            let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(&*outgoing.target).build();
            outgoing.uri = Some(uri.map_err(|_| Error::Malformed(Malformed::Target))?);
        } else {
            outgoing.upgrade = head.upgrade.as_ref();
            outgoing.waits = expects_continue(head.parts.version, &head.parts.headers);
        }
        Ok(outgoing)
    }

    /// The same in this session.
    pub(super) fn in_session(self, session: Option<(&'a str, &'a [u8])>) -> Self {
        Outgoing { session, ..self }
    }

    /// Its client wants to speak WebSocket.
    pub(super) fn wants_websocket(&self) -> bool {
        self.head.upgrade.as_ref().is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"))
    }

    /// What the endpoint's 200 to a tunnel says, as HTTP/1.1 would have said it (RFC 8441 §5, RFC 6455 §4.2.2).
    pub(super) fn switched(&self, headers: &mut Fields) -> StatusCode {
        headers.set("upgrade", b"websocket");
        if let Some(key) = self.head.parts.headers.get("sec-websocket-key") {
            headers.set("sec-websocket-accept", websocket::accept(key).as_bytes());
        }
        StatusCode::SWITCHING_PROTOCOLS
    }

    /// The lines of the head, but for those that differ from one version to the other.
    fn fields(&self, first: &[&str], (trace, span_id): (&TraceContext, u64)) -> Fields {
        let mut headers = forwarded::for_upstream(first, self.head, self.gateway);
        if let Some((name, session)) = self.session {
            headers.set(name, session);
        }
        edit::apply(&mut headers, &self.edits.request);
        forwarded::trace(&mut headers, trace, span_id);
        headers
    }

    /// Its head in HTTP/1.1, and its body.
    pub(super) fn http1(
        &self,
        endpoint: &Endpoint,
        (trace, span_id): (&TraceContext, u64),
        body: &Rc<Upload>,
    ) -> (Vec<u8>, RequestBody) {
        let first = [self.head.parts.method.as_str(), " ", &self.target, " HTTP/1.1\r\n"];
        let mut headers = self.fields(&first, (trace, span_id));
        match self.host {
            Some(host) if self.renames || !headers.has("host") => headers.set("host", host),
            Some(_) => {}
            // HTTP/1.0's clients need not say one, and HTTP/1.1 wants one (RFC 9112 §3.2).
            None => headers.set("host", endpoint.address.to_string().as_bytes()),
        }
        if let Some(protocol) = self.upgrade {
            headers.set("connection", b"upgrade");
            headers.set("upgrade", protocol.as_bytes());
            if self.head.extended_connect {
                headers.set("sec-websocket-key", websocket::key(span_id).as_bytes());
            }
        }
        // Once it was asked, the client does not wait for another attempt to ask again.
        let gate = (self.waits && body.is_some() && !body.started()).then(Gate::closed);
        if gate.is_none() {
            headers.remove("expect");
        }
        let body = body.reader(gate);
        match body.size_hint().exact() {
            None => headers.set("transfer-encoding", b"chunked"),
            Some(0) if body.is_end_stream() => {}
            Some(bytes) => {
                let bytes = bytes.to_string();
                if headers.only("content-length") != Some(bytes.as_bytes()) {
                    headers.set("content-length", bytes.as_bytes());
                }
            }
        }
        (headers.end(), body)
    }

    /// The same in HTTP/2. `tunnel`: its way to ask for a WebSocket.
    pub(super) fn http2(
        &self,
        (trace, span_id): (&TraceContext, u64),
        body: &Rc<Upload>,
        tunnel: bool,
    ) -> Request<RequestBody> {
        let mut headers = self.fields(&[], (trace, span_id));
        headers.remove("host");
        headers.remove("expect");
        let mut request = Request::new(body.reader(None));
        *request.method_mut() = self.head.parts.method.clone();
        *request.uri_mut() = self.uri.clone().unwrap_or_default();
        *request.version_mut() = Version::HTTP_2;
        if tunnel {
            *request.method_mut() = Method::CONNECT;
            headers.remove("sec-websocket-key");
            request.extensions_mut().insert(hyper::ext::Protocol::from_static("websocket"));
        }
        *request.headers_mut() = headers.to_map();
        request
    }
}

/// Path and query as the upstream gets them: as sent, unless the path had dot segments or a policy changed something.
fn target<'a>(head: &'a Head, edits: &Edits) -> Result<Cow<'a, str>, Error> {
    let (path, query) = (edits.path.as_deref(), edits.query.as_deref());
    if path.is_none() && query.is_none() && !head.path_was_resolved() {
        return Ok(head.parts.target.as_str().into());
    }
    let path = path.unwrap_or_else(|| head.path());
    let query = query.map_or_else(|| head.query(), Some).filter(|query| !query.is_empty());
    let target = match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    // What was sent was checked when it came.
    match PathAndQuery::try_from(target.as_str()) {
        Ok(_) => Ok(target.into()),
        Err(_) => Err(Error::Malformed(Malformed::Target)),
    }
}
