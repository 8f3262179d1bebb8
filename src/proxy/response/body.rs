//! A response's body on its way to the client. It carries the exchange, which finishes when the body does.

use crate::base::time::Alarm;
use crate::http::coding::{Coder, Coding};
use crate::http::error::Error;
use crate::http::grpc;
use crate::http::headers;
use crate::proxy::ending;
use crate::proxy::exchange::Exchange;
use crate::proxy::upstream::download::{Download, Lost};
use crate::proxy::upstream::limit::Limit;
use crate::service::InFlight;
use crate::service::record::End;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

/// A coded body goes out in pieces of about so many bytes.
const PIECE: usize = 16 << 10;

/// A response's body. It carries the exchange, which finishes when the body does.
#[derive(Debug)]
pub struct Body {
    content: Content,
    /// None: it goes on as a tunnel.
    exchange: Option<Box<Exchange>>,
    /// What codes it on its way; none: it goes out as it is.
    coded: Option<Box<Coded>>,
}

/// A body that is coded on its way.
#[derive(Debug)]
struct Coded {
    coder: Coder,
    /// Bytes that went out.
    bytes: u64,
    /// What comes after the last piece.
    last: Option<Frame<Bytes>>,
    finished: bool,
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
    in_flight: InFlight,
    limit: Limit,
    /// Only set when the body once has to wait.
    alarm: Alarm,
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
    /// It could not be coded.
    #[error("the response could not be coded")]
    Coding(#[source] std::io::Error),
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.coded.take() {
            None => self.poll_plain(cx),
            Some(mut coded) => {
                let polled = self.poll_coded(&mut coded, cx);
                self.coded = Some(coded);
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.coded {
            Some(coded) => coded.finished && coded.last.is_none(),
            None => self.has_ended(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.coded, &self.content) {
            (Some(_), _) => SizeHint::default(),
            (None, Content::Empty) => SizeHint::with_exact(0),
            (None, Content::Full(bytes)) => SizeHint::with_exact(bytes.len() as u64),
            (None, Content::Upstream(upstream)) => upstream.download.size_hint(),
        }
    }
}

impl Body {
    /// There is none: it goes on as a tunnel.
    pub(super) fn tunnel() -> Self {
        Body { content: Content::Empty, exchange: None, coded: None }
    }

    /// What the gateway itself has.
    pub(super) fn full(mut exchange: Box<Exchange>, body: Bytes) -> Self {
        exchange.record.response_bytes = body.len() as u64;
        let head_only = exchange.record.head.as_ref().is_some_and(|head| head.parts.method == http::Method::HEAD);
        if body.is_empty() || head_only {
            exchange.record.end = End::Complete;
        }
        let content = if body.is_empty() { Content::Empty } else { Content::Full(body) };
        Body { content, exchange: Some(exchange), coded: None }
    }

    /// What an endpoint sends.
    pub(super) fn of_upstream(
        mut exchange: Box<Exchange>,
        mut download: Download,
        in_flight: InFlight,
        limit: Limit,
    ) -> Self {
        let whole = if let Download::Http1(body) = &mut download { body.take_whole() } else { None };
        let content = if let Some(whole) = whole {
            // Its client may take it when it likes.
            exchange.place = None;
            exchange.record.response_bytes = whole.len() as u64;
            Content::Full(whole)
        } else if http_body::Body::is_end_stream(&download) {
            exchange.record.end = End::Complete;
            Content::Empty
        } else {
            Content::Upstream(Box::new(Upstream { download, in_flight, limit, alarm: Alarm::default() }))
        };
        Body { content, exchange: Some(exchange), coded: None }
    }

    /// All of it, for whoever is no client. None: there is more of it than `most` bytes.
    ///
    /// # Errors
    /// It ends before it is complete.
    pub async fn whole(mut self, most: usize) -> Result<Option<Bytes>, Broken> {
        let mut whole = Vec::new();
        while let Some(frame) = poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut self), cx)).await {
            let Ok(data) = frame?.into_data() else { continue };
            if whole.len() + data.len() > most {
                // What is left is nobody's loss.
                self.exchange.iter_mut().for_each(|exchange| exchange.record.end = End::Complete);
                return Ok(None);
            }
            whole.extend_from_slice(&data);
        }
        Ok(Some(whole.into()))
    }

    /// It goes out in this coding from now on.
    pub fn code(&mut self, coding: Coding) {
        self.coded = Some(Box::new(Coded { coder: Coder::new(coding), bytes: 0, last: None, finished: false }));
    }

    /// The next piece in its coding. Whatever is there when nothing more comes is let out, so that streams flow.
    fn poll_coded(&mut self, coded: &mut Coded, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if coded.finished {
            return Poll::Ready(coded.last.take().map(Ok));
        }
        let mut out = Vec::new();
        while out.len() < PIECE && !coded.finished {
            let done = match self.poll_plain(cx) {
                Poll::Pending => {
                    if let Err(error) = coded.coder.flush(&mut out) {
                        return Poll::Ready(Some(Err(Broken::Coding(error))));
                    }
                    break;
                }
                Poll::Ready(Some(Err(broken))) => return Poll::Ready(Some(Err(broken))),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => coded.coder.encode(&data, &mut out).map(|()| self.has_ended()),
                    Err(frame) => {
                        coded.last = Some(frame);
                        Ok(true)
                    }
                },
                Poll::Ready(None) => Ok(true),
            };
            let finished = done.and_then(|done| {
                coded.finished = done;
                if done { coded.coder.finish(&mut out) } else { Ok(()) }
            });
            if let Err(error) = finished {
                return Poll::Ready(Some(Err(Broken::Coding(error))));
            }
        }
        if out.is_empty() {
            return if coded.finished { Poll::Ready(coded.last.take().map(Ok)) } else { Poll::Pending };
        }
        coded.bytes += out.len() as u64;
        if let Some(exchange) = &mut self.exchange {
            exchange.record.response_bytes = coded.bytes;
        }
        Poll::Ready(Some(Ok(Frame::data(out.into()))))
    }

    fn has_ended(&self) -> bool {
        match &self.content {
            Content::Empty => true,
            Content::Full(_) => false,
            Content::Upstream(upstream) => http_body::Body::is_end_stream(&upstream.download),
        }
    }

    fn poll_plain(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
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
                let Poll::Ready(frame) = http_body::Body::poll_frame(Pin::new(&mut upstream.download), cx) else {
                    return upstream.out_of_time(cx, exchange);
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
                            ending::ended_with(exchange, &upstream.in_flight, trailers);
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
                        ending::broke_off(exchange, &upstream.in_flight, &upstream.limit);
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
