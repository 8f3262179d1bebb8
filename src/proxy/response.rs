//! What goes back to the client: an upstream's response, a policy's answer, or the gateway's own.

use crate::base::time::Alarm;
use crate::http::error::Error;
use crate::http::grpc;
use crate::http::headers;
use crate::http::headers::edit::{self, HeaderEdit};
use crate::http::settings::Gateway;
use crate::proxy::exchange::Exchange;
use crate::proxy::upgrade::{self, Tunnel};
use crate::proxy::upstream::Arrived;
use crate::proxy::upstream::download::{Download, Lost};
use crate::proxy::upstream::limit::Limit;
use crate::service::InFlight;
use crate::service::decision::Answer;
use crate::service::record::End;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

/// A response's body. It carries the exchange, which finishes when the body does.
#[derive(Debug)]
pub struct Body {
    content: Content,
    /// None: it goes on as a tunnel.
    exchange: Option<Box<Exchange>>,
}

#[derive(Debug)]
enum Content {
    Empty,
    Full(Bytes),
    Upstream(Box<Upstream>),
}

#[derive(Debug)]
struct Upstream {
    download: Download,
    /// Held until the last frame: the endpoint's load counts the whole response.
    _in_flight: InFlight,
    limit: Limit,
    /// Only set when the body once has to wait.
    alarm: Alarm,
    /// It broke off: what came before goes out first, which whoever takes it does while it waits.
    broken: Option<Lost>,
}

/// The body ends before it is complete, so the client's connection must break off as well.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The upstream broke off.
    #[error("the upstream broke off in the middle of the body")]
    Upstream(#[source] Lost),
    /// The client took nothing of it for too long.
    #[error("the client took nothing for too long")]
    Untaken,
    /// The exchange's time is over.
    #[error("the request took longer than it may")]
    TimedOut,
}

/// An upstream's response on its way to the client.
pub fn from_upstream(mut exchange: Box<Exchange>, arrived: Arrived, edits: &[HeaderEdit]) -> Response<Body> {
    let (mut parts, download) = arrived.response.into_parts();
    headers::end_hop(&mut parts.headers);
    if parts.status == StatusCode::NO_CONTENT {
        // Some say how long nothing is; HTTP/1 forbids it (RFC 9110 §8.6).
        parts.headers.remove(header::CONTENT_LENGTH);
    }
    edit::apply(&mut parts.headers, edits);
    exchange.record.status = parts.status.as_u16();
    let content = if http_body::Body::is_end_stream(&download) {
        exchange.record.end = End::Complete;
        Content::Empty
    } else {
        Content::Upstream(Box::new(Upstream {
            download,
            _in_flight: arrived.in_flight,
            limit: arrived.limit,
            alarm: Alarm::default(),
            broken: None,
        }))
    };
    let mut response = Response::new(Body { content, exchange: Some(exchange) });
    *response.status_mut() = parts.status;
    *response.headers_mut() = parts.headers;
    response
}

/// The endpoint speaks another protocol from now on, and so does the client once it has this. The tunnel begins when
/// the response is sent.
pub fn switching(
    mut exchange: Box<Exchange>,
    arrived: Arrived,
    edits: &[HeaderEdit],
    gateway: &Arc<Gateway>,
) -> (Response<Body>, Tunnel) {
    let mut upstream = arrived.response;
    let stream = hyper::upgrade::on(&mut upstream);
    let (mut parts, download) = upstream.into_parts();
    let endpoint = match download {
        Download::Http1(body) => upgrade::FarSide::Http1(body),
        Download::Http2(..) => upgrade::FarSide::Http2(stream),
    };
    let protocol = parts.headers.remove(header::UPGRADE);
    headers::end_hop(&mut parts.headers);
    edit::apply(&mut parts.headers, edits);
    let mut response = Response::new(Body { content: Content::Empty, exchange: None });
    if exchange.record.head.as_ref().is_some_and(|head| head.extended_connect) {
        // RFC 8441 §5.
        parts.headers.remove(header::SEC_WEBSOCKET_ACCEPT);
    } else {
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        if let Some(protocol) = protocol {
            parts.headers.insert(header::UPGRADE, protocol);
        }
    }
    exchange.record.status = response.status().as_u16();
    *response.headers_mut() = parts.headers;
    let in_flight = arrived.in_flight;
    (response, Tunnel { exchange, in_flight, endpoint, gateway: Arc::clone(gateway) })
}

/// A policy's own answer.
pub fn from_policy(mut exchange: Box<Exchange>, answer: Answer) -> Response<Body> {
    exchange.record.status = answer.status.as_u16();
    let bare = answer.status == StatusCode::NO_CONTENT || answer.status == StatusCode::NOT_MODIFIED;
    let body = if bare { Bytes::new() } else { Bytes::from(answer.body) };
    let mut headers = http::HeaderMap::with_capacity(answer.headers.len());
    for (name, value) in answer.headers {
        headers.append(name, value);
    }
    let mut response = Response::new(full(exchange, body));
    *response.status_mut() = answer.status;
    *response.headers_mut() = headers;
    response
}

/// The gateway's own answer.
pub fn from_error(mut exchange: Box<Exchange>, error: Error) -> Response<Body> {
    exchange.record.status = error.status().as_u16();
    exchange.record.error = Some(error);
    // What the connection found, it counts itself.
    if let Error::Malformed(malformed) = error
        && exchange.active.refused() != Some(malformed)
    {
        exchange.worker.recorder.refused(malformed);
    }
    if exchange.record.is_call() {
        let mut response = Response::new(full(exchange, Bytes::new()));
        grpc::tell(&mut response, error);
        return response;
    }
    let http1 = exchange.record.head.as_ref().is_none_or(|head| head.parts.version < http::Version::HTTP_2);
    let mut response = Response::new(full(exchange, Bytes::from(error.body())));
    *response.status_mut() = error.status();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if error == Error::MethodRefused {
        headers.insert(header::ALLOW, ALLOWED);
    }
    if matches!(error, Error::Malformed(_)) && http1 {
        // Whoever sends what has two meanings may already be in the middle of the other one.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Methods that are carried; any other that is a token is as well.
const ALLOWED: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS");

/// What the gateway says about itself: which methods it carries (RFC 9110 §9.3.7).
pub fn options(mut exchange: Box<Exchange>) -> Response<Body> {
    exchange.record.status = StatusCode::NO_CONTENT.as_u16();
    let mut response = Response::new(full(exchange, Bytes::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::ALLOW, ALLOWED);
    response
}

fn full(mut exchange: Box<Exchange>, body: Bytes) -> Body {
    exchange.record.response_bytes = body.len() as u64;
    if body.is_empty() || exchange.record.head.as_ref().is_some_and(|head| head.parts.method == http::Method::HEAD) {
        exchange.record.end = End::Complete;
    }
    let content = if body.is_empty() { Content::Empty } else { Content::Full(body) };
    Body { content, exchange: Some(exchange) }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = &mut *self;
        let Some(exchange) = &mut this.exchange else { return Poll::Ready(None) };
        match &mut this.content {
            Content::Empty => Poll::Ready(None),
            Content::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                exchange.record.end = End::Complete;
                this.content = Content::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Content::Upstream(upstream) => {
                let frame = match upstream.broken.take() {
                    Some(lost) => Some(Err(lost)),
                    None => match Pin::new(&mut upstream.download).poll_frame(cx) {
                        Poll::Ready(Some(Err(lost))) => {
                            upstream.broken = Some(lost);
                            cx.waker().wake_by_ref();
                            return Poll::Pending;
                        }
                        Poll::Ready(frame) => frame,
                        Poll::Pending => return upstream.out_of_time(cx, exchange),
                    },
                };
                upstream.limit.came();
                let mut frame = match frame {
                    // gRPC's servers know the deadline too.
                    Some(Err(_)) if upstream.is_late() => return Poll::Ready(Some(upstream.give_up(exchange))),
                    frame => frame.map(|frame| frame.map_err(Broken::Upstream)),
                };
                let over = match &mut frame {
                    Some(Ok(frame)) => {
                        if let Some(trailers) = frame.trailers_mut() {
                            headers::end_trailers(trailers);
                        }
                        if let Some(data) = frame.data_ref() {
                            exchange.record.response_bytes += data.len() as u64;
                        }
                        // With a known length the end is known with the last byte, and hyper asks no further.
                        http_body::Body::is_end_stream(&upstream.download)
                    }
                    Some(Err(_)) => {
                        exchange.record.end = End::UpstreamBroke;
                        upstream.break_off(exchange);
                        false
                    }
                    None => true,
                };
                if over {
                    exchange.record.end = End::Complete;
                    this.content = Content::Empty;
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Empty => true,
            Content::Full(_) => false,
            Content::Upstream(upstream) => upstream.download.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty => SizeHint::with_exact(0),
            Content::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Upstream(upstream) => upstream.download.size_hint(),
        }
    }
}

impl Upstream {
    /// Nothing to read now: is there time left to wait for it?
    fn out_of_time(
        &mut self,
        cx: &mut Context<'_>,
        exchange: &mut Exchange,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let Some(deadline) = self.limit.deadline(Instant::now) else { return Poll::Pending };
        self.alarm.poll(cx, deadline).map(|()| Some(self.give_up(exchange)))
    }

    fn is_late(&self) -> bool {
        self.limit.whole.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// The time is over: the last frame, or the break.
    fn give_up(&self, exchange: &mut Exchange) -> Result<Frame<Bytes>, Broken> {
        exchange.record.end = End::TimedOut;
        // Between two messages as well as in one, gRPC's clients take what follows as the end and its reason.
        let is_call = exchange.record.is_call();
        if is_call && http_body::Body::size_hint(&self.download).exact().is_none() {
            return Ok(Frame::trailers(grpc::trailers(Error::Timeout)));
        }
        self.break_off(exchange);
        Err(Broken::TimedOut)
    }

    /// A body whose length HTTP/1.0's client is not told ends with the connection (RFC 9112 §6.3), so it must not end as
    /// if it were complete.
    fn break_off(&self, exchange: &Exchange) {
        let version = exchange.record.head.as_ref().map(|head| head.parts.version);
        if version == Some(http::Version::HTTP_10) && http_body::Body::size_hint(&self.download).exact().is_none() {
            exchange.active.break_off();
        }
    }
}
