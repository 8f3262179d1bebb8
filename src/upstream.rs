//! The way up: attempts, one after the other, each on an endpoint of its own, within their deadlines.

mod body;
mod pool;

pub use body::{RequestBody, Source};
pub use pool::{ConnectError, Connection, Pools};

use crate::balance::{self, Wanted, default_key};
use crate::error::Error;
use crate::exchange::{AttemptError, Exchange};
use crate::headers;
use crate::policy::{Edits, Plan};
use crate::service::{Endpoint, InFlight, Service, Settings};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, Version, header};
use hyper::body::Incoming;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A request that goes upstream: to which service, how, and what a policy changed.
#[derive(Debug)]
pub struct Forwarded {
    /// Where to.
    pub service: Arc<Service>,
    /// What a policy said about it.
    pub plan: Option<Plan>,
    /// What a policy changes on the way.
    pub edits: Option<Edits>,
}

/// A response's head is here, and its body can be read.
#[derive(Debug)]
pub struct Arrived {
    /// As hyper parsed it.
    pub response: Response<Incoming>,
    /// Counts the request at its endpoint until the body is over.
    pub in_flight: InFlight,
    /// The HTTP/1 connection, to be given back when the body was read to its end.
    pub lease: Option<Lease>,
    /// When the whole exchange must be over.
    pub deadline: Option<Instant>,
}

/// An HTTP/1 connection that is lent to one exchange.
#[derive(Debug)]
pub struct Lease {
    pools: Rc<Pools>,
    endpoint: u32,
    sender: hyper::client::conn::http1::SendRequest<RequestBody>,
}

impl Lease {
    /// The response was read to its end, so the connection can take another request.
    pub fn end(self) {
        self.pools.give_back(self.endpoint, self.sender);
    }
}

/// How often and how long, after the plan, the service's settings and the gateway's bounds.
struct Terms<'a> {
    max_attempts: u32,
    attempt_timeout: Duration,
    deadline: Option<Instant>,
    retry_status: &'a [u16],
}

impl<'a> Terms<'a> {
    fn new(settings: &'a Settings, plan: Option<&'a Plan>, gateway: &crate::config::Gateway, started: Instant) -> Self {
        let timeout = match plan.and_then(|plan| plan.timeout) {
            Some(asked) => asked.min(gateway.max_timeout),
            None => settings.timeout,
        };
        let attempt_timeout = match plan.and_then(|plan| plan.attempt_timeout) {
            Some(asked) => asked.min(gateway.max_timeout),
            None => settings.attempt_timeout,
        };
        let max_attempts = match plan.and_then(|plan| plan.max_attempts) {
            Some(asked) => asked.min(gateway.max_attempts),
            None => settings.max_attempts,
        };
        let retry_status = match plan {
            Some(plan) if !plan.retry_status.is_empty() => &plan.retry_status,
            _ => &settings.retry_status,
        };
        let deadline = (!timeout.is_zero()).then(|| started + timeout);
        Terms { max_attempts, attempt_timeout, deadline, retry_status }
    }

    /// When an attempt that starts now must have its response head.
    fn attempt_deadline(&self) -> Option<Instant> {
        let own = (!self.attempt_timeout.is_zero()).then(|| Instant::now() + self.attempt_timeout);
        match (own, self.deadline) {
            (Some(own), Some(whole)) => Some(own.min(whole)),
            (own, whole) => own.or(whole),
        }
    }
}

/// Sends the request and tries again where that is safe and allowed.
///
/// # Errors
/// Why no response head came: the answer to the client.
pub async fn send(
    exchange: &mut Exchange,
    forwarded: &Forwarded,
    gateway: &crate::config::Gateway,
    body: &Rc<Source>,
) -> Result<Arrived, Error> {
    let worker = Rc::clone(&exchange.worker);
    let service = &*forwarded.service;
    let plan = forwarded.plan.as_ref();
    let terms = Terms::new(&service.settings, plan, gateway, exchange.started);
    let Some(head) = &exchange.head else { return Err(Error::UpstreamProtocol) };
    let key = key(service, plan, head);
    let mut outgoing = Outgoing::new(head, forwarded)?;
    let mut tried: Vec<u32> = Vec::new();
    let mut last = Error::NoEndpoint;
    let pick = |tried: &[u32]| {
        let wanted = Wanted { service, plan, tried, key: &key, now_ms: crate::time::process_ms() };
        worker.balancer.borrow_mut().pick(wanted)
    };
    let mut next = pick(&tried);
    loop {
        if terms.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(Error::Timeout);
        }
        let Some(picked) = next else { return Err(last) };
        tried.push(picked.endpoint.id);
        let span_id = exchange.attempt(&picked);
        let endpoint = &picked.endpoint;
        let in_flight = InFlight::enter(&endpoint.live);
        exchange.trace.inject(span_id, &mut outgoing.headers);
        let result = try_once(&worker.pools, endpoint, service, &outgoing, body, &terms).await;
        let may_go_on = (tried.len() as u32) < terms.max_attempts;
        let safe = is_idempotent(&outgoing.method) && !body.started();
        match result {
            Ok((response, lease)) => {
                let status = response.status().as_u16();
                endpoint.live.measured(exchange.attempted(Ok(status)));
                let retry = may_go_on && safe && terms.retry_status.contains(&status);
                next = if retry { pick(&tried) } else { None };
                // With nobody else to ask, the client gets this response.
                if next.is_some() {
                    continue;
                }
                return Ok(Arrived { response, in_flight, lease, deadline: terms.deadline });
            }
            Err(error) => {
                exchange.attempted(Err(error));
                let unsent = matches!(error, AttemptError::Connect | AttemptError::ConnectTimeout);
                if unsent && endpoint.live.connect_failed(COOL_OFF) {
                    tracing::warn!(service = %service.name, endpoint = %endpoint.address, "unhealthy: three connects failed in a row");
                }
                last = answer(error, terms.deadline);
                if !may_go_on || !(unsent || safe) || last == Error::Timeout {
                    return Err(last);
                }
                next = pick(&tried);
            }
        }
    }
}

/// Without an active check, an endpoint that was made unhealthy by failed connects is tried again after this time.
const COOL_OFF: Duration = Duration::from_secs(5);

fn answer(error: AttemptError, deadline: Option<Instant>) -> Error {
    match error {
        AttemptError::Connect | AttemptError::ConnectTimeout => Error::ConnectFailed,
        AttemptError::Reset | AttemptError::Unfinished => Error::UpstreamReset,
        AttemptError::Protocol => Error::UpstreamProtocol,
        AttemptError::Timeout if deadline.is_some_and(|deadline| Instant::now() >= deadline) => Error::Timeout,
        AttemptError::Timeout => Error::AttemptTimeout,
        AttemptError::ClientGone => Error::BadRequest("The request's body broke off."),
    }
}

/// Methods that have the same effect when they are sent twice (RFC 9110 §9.2.2).
fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE)
}

/// What `hash` and `sticky` go by; only read where one of them is used.
fn key(service: &Service, plan: Option<&Plan>, head: &crate::request::Head) -> String {
    use crate::balance::Strategy::{Hash, Sticky};
    match (balance::strategy(service, plan), plan.and_then(|plan| plan.key.as_ref())) {
        (Hash | Sticky, Some(key)) => key.clone(),
        (Hash | Sticky, None) => default_key(&service.settings.hash_on, &head.parts.headers, head.client),
        _ => String::new(),
    }
}

/// The request's head as it is sent, each attempt with a trace parent of its own.
struct Outgoing {
    method: Method,
    uri: Uri,
    version: Version,
    headers: HeaderMap,
}

impl Outgoing {
    fn new(head: &crate::request::Head, forwarded: &Forwarded) -> Result<Self, Error> {
        let edits = forwarded.edits.as_ref();
        let http2 = forwarded.service.settings.http2;
        // An IP address is always a good header value.
        let client =
            HeaderValue::from_str(&head.client.to_string()).unwrap_or_else(|_| HeaderValue::from_static("unknown"));
        let mut headers = headers::for_upstream(head, &client);
        if let Some(edits) = edits {
            headers::edit(&mut headers, &edits.request);
        }
        let host = edits.and_then(|edits| edits.host.clone()).or_else(|| headers::authority(head));
        let target = target(head, edits)?;
        let bad = |_| Error::BadRequest("The request's target or host is not valid.");
        let (uri, version) = if http2 {
            // `:authority` carries the host (RFC 9113 §8.3.1).
            headers.remove(header::HOST);
            let authority = host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or("localhost");
            let parts = Uri::builder().scheme("http").authority(authority).path_and_query(target);
            (parts.build().map_err(bad)?, Version::HTTP_2)
        } else {
            if let Some(host) = host {
                headers.insert(header::HOST, host);
            }
            (Uri::from(target), Version::HTTP_11)
        };
        Ok(Outgoing { method: head.parts.method.clone(), uri, version, headers })
    }

    /// A request of its own: hyper takes what it sends, and the head may have to be sent again.
    fn request(&self, body: RequestBody) -> Request<RequestBody> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = self.version;
        *request.headers_mut() = self.headers.clone();
        request
    }
}

/// Path and query as the upstream gets them: as sent, unless the path had dot segments or a policy changed something.
fn target(head: &crate::request::Head, edits: Option<&Edits>) -> Result<PathAndQuery, Error> {
    let path = edits.and_then(|edits| edits.path.as_deref());
    let query = edits.and_then(|edits| edits.query.as_deref());
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
    PathAndQuery::try_from(target).map_err(|_| Error::BadRequest("The request's target is not valid."))
}

/// One attempt at one endpoint: a connection, the request, the response's head.
async fn try_once(
    pools: &Rc<Pools>,
    endpoint: &Arc<Endpoint>,
    service: &Service,
    outgoing: &Outgoing,
    body: &Rc<Source>,
    terms: &Terms<'_>,
) -> Result<(Response<Incoming>, Option<Lease>), AttemptError> {
    let deadline = terms.attempt_deadline();
    let mut fresh = false;
    loop {
        let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
        let within = left.min(service.settings.connect_timeout);
        let connection = pools.connection(endpoint, service, fresh, within).await.map_err(|error| match error {
            ConnectError::Failed => AttemptError::Connect,
            ConnectError::Timeout => AttemptError::ConnectTimeout,
        })?;
        let request = outgoing.request(body.reader());
        let (sent, lease) = match connection {
            Connection::Http1 { mut sender, reused } => {
                let sent = within_deadline(deadline, sender.try_send_request(request)).await?;
                (sent.map_err(|e| (reused, e)), Some(Lease { pools: Rc::clone(pools), endpoint: endpoint.id, sender }))
            }
            Connection::Http2(mut sender) => {
                // A shared connection may be closing: hyper says so by handing the request back.
                let sent = within_deadline(deadline, sender.try_send_request(request)).await?;
                (sent.map_err(|e| (!fresh, e)), None)
            }
        };
        let (reused, mut failed) = match sent {
            Ok(response) => return Ok((response, lease)),
            Err(failed) => failed,
        };
        let unsent = failed.take_message().is_some();
        let error = failed.into_error();
        tracing::debug!(endpoint = %endpoint.address, %error, unsent, reused, "no response");
        if body.broke() {
            return Err(AttemptError::ClientGone);
        }
        // The endpoint closed a connection that was kept: not its failure, and once more on a fresh one is safe if
        // nothing was sent, or if sending twice does no harm.
        if reused && !fresh && (unsent || (is_idempotent(&outgoing.method) && !body.started() && !error.is_parse())) {
            fresh = true;
            continue;
        }
        return Err(if unsent {
            AttemptError::Connect
        } else if error.is_parse() {
            AttemptError::Protocol
        } else {
            AttemptError::Reset
        });
    }
}

async fn within_deadline<T>(deadline: Option<Instant>, future: impl Future<Output = T>) -> Result<T, AttemptError> {
    match deadline {
        None => Ok(future.await),
        Some(deadline) => tokio::time::timeout_at(deadline.into(), future).await.map_err(|_| AttemptError::Timeout),
    }
}
