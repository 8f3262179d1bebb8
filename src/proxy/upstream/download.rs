//! A response's body on its way from the endpoint.

use super::http1::Begun;
use crate::http::fields::Fields;
use crate::http::h1::chunks::Chunks;
use crate::http::h1::flow::Flow;
use crate::http::h1::reply::{Length, Most};
use crate::http::malformed::Malformed;
use crate::service::health::ejecting;
use crate::service::pool::{Link, Pools, Stream};
use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

/// A response, its head as it came.
#[derive(Debug)]
pub struct Received {
    /// Its status; 101 only where the client asked for another protocol.
    pub status: StatusCode,
    /// Its lines.
    pub headers: Fields,
    /// Its body.
    pub body: Download,
}

impl Received {
    /// Its head speaks for the endpoint; see [`ejecting::was_good`].
    pub(super) fn is_good(&self) -> bool {
        ejecting::was_good(Ok((self.status.as_u16(), &self.headers))) == Some(true)
    }
}

/// A response's body.
#[derive(Debug)]
pub enum Download {
    /// On a connection of its own.
    Http1(Http1),
    /// On a stream of one, which can become a tunnel.
    Http2(Incoming, Stream, OnUpgrade),
}

/// A body that is read where it is wanted, from a connection that is given back at its end.
#[derive(Debug)]
pub struct Http1 {
    /// None: it was given back, or is not needed any more.
    link: Option<Link>,
    pools: Rc<Pools>,
    endpoint: u32,
    flow: Flow,
    /// What was read already.
    early: Bytes,
    /// The connection can carry another request.
    keeps: bool,
}

/// Half a body is all that came.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// HTTP/2.
    #[error(transparent)]
    Http2(#[from] hyper::Error),
    /// The connection broke.
    #[error(transparent)]
    Link(#[from] io::Error),
    /// The connection ended.
    #[error("connection closed before message completed")]
    Closed,
    /// It is no body in chunks.
    #[error("{}", .0.reason())]
    Framing(Malformed),
}

impl Http1 {
    /// The body of a response that has begun; what of the request is not written yet must be seen to.
    pub(super) fn response(begun: Begun, link: Link, pools: &Rc<Pools>, endpoint: u32, most: Most) -> Received {
        let Begun { reply, early, up } = begun;
        let flow = match reply.length {
            Length::Bytes(0) => Flow::Over,
            Length::Bytes(bytes) => Flow::Bytes(bytes),
            Length::Chunked => Flow::Chunked(Box::new(Chunks::of_endpoint(most.bytes, most.headers))),
            Length::UntilClose => Flow::UntilClose,
        };
        let (keeps, pools) = (reply.keeps && up.is_none(), Rc::clone(pools));
        let link = Some(link);
        let switches = reply.status == StatusCode::SWITCHING_PROTOCOLS;
        let mut body = Http1 { link, pools, endpoint, flow, early, keeps };
        if body.flow.is_over() && !switches {
            body.end();
        }
        Received { status: reply.status, headers: reply.headers, body: Download::Http1(body) }
    }

    /// All of it, where that came with its head.
    pub fn take_whole(&mut self) -> Option<Bytes> {
        let Flow::Bytes(bytes) = self.flow else { return None };
        let whole = (bytes == self.early.len() as u64).then(|| std::mem::take(&mut self.early))?;
        self.flow = Flow::Over;
        self.end();
        Some(whole)
    }

    /// The connection speaks something else from now on; this was read of it already.
    pub fn into_tunnel(self) -> Option<(Link, Bytes)> {
        Some((self.link?, self.early))
    }

    fn end(&mut self) {
        // What comes after the end cannot be the next response.
        let keeps = self.keeps && self.early.is_empty();
        if let Some(link) = self.link.take().filter(|_| keeps) {
            self.pools.give_back(self.endpoint, link);
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Lost>>> {
        loop {
            let frame = self.flow.next(&mut self.early).map_err(Lost::Framing)?;
            if self.flow.is_over() {
                self.end();
                return Poll::Ready(frame.map(Ok));
            }
            if frame.is_some() {
                return Poll::Ready(frame.map(Ok));
            }
            let Some(link) = &self.link else { return Poll::Ready(None) };
            self.early = ready!(link.poll_take(cx, &self.pools.scratch))?;
            if !self.early.is_empty() {
                continue;
            }
            if !matches!(self.flow, Flow::UntilClose) {
                return Poll::Ready(Some(Err(Lost::Closed)));
            }
            self.flow = Flow::Over;
        }
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = Lost;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Lost>>> {
        match &mut *self {
            Download::Http1(body) => body.poll_frame(cx),
            Download::Http2(incoming, ..) => match ready!(Pin::new(&mut *incoming).poll_frame(cx)) {
                // A stream that is reset with `NO_ERROR` before its end looks like one that has ended.
                None if !incoming.is_end_stream() => Poll::Ready(Some(Err(Lost::Closed))),
                frame => Poll::Ready(frame.map(|frame| frame.map_err(Lost::Http2))),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Download::Http1(body) => body.flow.is_over(),
            Download::Http2(incoming, ..) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Download::Http1(body) => body.flow.size_hint(),
            Download::Http2(incoming, ..) => incoming.size_hint(),
        }
    }
}
