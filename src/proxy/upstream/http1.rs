//! One request and its response's head on an HTTP/1 connection. Whoever waits for the response writes the request
//! meanwhile, so what was written is known to the byte.

use crate::base::time::Alarm;
use crate::http::h1::reply::{self, Bad, Most, Reply};
use crate::http::h1::write;
use crate::http::request::body::RequestBody;
use crate::service::pool::{Link, Pools};
use crate::telemetry::{Counter, Counters};
use bytes::{Buf, Bytes};
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body::{Body, Frame};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

/// Interim responses that are read at most.
const INTERIM: u32 = 100;

/// A request on its way up.
#[derive(Debug)]
pub(super) struct Upward {
    link: Link,
    /// The head, or what frames the piece that follows.
    out: Vec<u8>,
    at: usize,
    piece: Bytes,
    /// What ends the piece.
    tail: &'static [u8],
    /// None: all of it was taken.
    body: Option<RequestBody>,
    /// What is left of a body with a length; none: it goes in chunks.
    left: Option<u64>,
}

/// Why a request did not get to its end.
#[derive(Debug)]
pub(super) enum Cut {
    /// Its body broke off, which that tells.
    Body,
    /// The connection did.
    Link(io::Error),
}

impl Upward {
    /// Nothing of it is written yet.
    pub(super) fn new(link: Link, request: Request<RequestBody>) -> Self {
        let (mut head, body) = request.into_parts();
        let body = (!body.is_end_stream()).then_some(body);
        let left = body.as_ref().and_then(|body| body.size_hint().exact());
        if let Some(left) = left {
            head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(left));
        }
        let mut out = Vec::with_capacity(1024);
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        write::request(&mut out, &head.method, target, &head.headers);
        Upward { link, out, at: 0, piece: Bytes::new(), tail: b"", body, left }
    }

    /// Ready when all of it is written.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        loop {
            // With the head, if it is here already.
            let waits = self.piece.is_empty() && self.tail.is_empty() && self.poll_piece(cx)?.is_pending();
            ready!(self.poll_write(cx)).map_err(Cut::Link)?;
            if waits {
                return Poll::Pending;
            }
            if self.body.is_none() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Takes the next piece of the body, if there is to be one.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        let Some(body) = &mut self.body else { return Poll::Ready(Ok(())) };
        let (data, trailers) = loop {
            let frame = ready!(Pin::new(&mut *body).poll_frame(cx)).transpose().map_err(|_| Cut::Body)?;
            match frame.map(Frame::into_data) {
                Some(Ok(data)) if data.is_empty() => {}
                Some(Ok(data)) => break (Some(data), None),
                Some(Err(frame)) => break (None, frame.into_trailers().ok()),
                None => break (None, None),
            }
        };
        let ended = data.is_none();
        match (&mut self.left, data) {
            (Some(left), None) if *left > 0 => return Poll::Ready(Err(Cut::Body)),
            (Some(_), None) => {}
            (Some(left), Some(data)) => {
                // What has a length was measured where it came from.
                *left = left.checked_sub(data.len() as u64).ok_or(Cut::Body)?;
                self.piece = data;
            }
            (None, None) => write::last_chunk(&mut self.out, trailers.as_ref()),
            (None, Some(data)) => {
                write::chunk_size(&mut self.out, data.len());
                (self.piece, self.tail) = (data, b"\r\n");
            }
        }
        if ended || self.left == Some(0) {
            self.body = None;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what is here.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.at < self.out.len() || !self.piece.is_empty() || !self.tail.is_empty() {
            let slices = [IoSlice::new(&self.out[self.at..]), IoSlice::new(&self.piece), IoSlice::new(self.tail)];
            let mut written = ready!(self.link.poll_write_some(cx, &slices))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let head = written.min(self.out.len() - self.at);
            self.at += head;
            written -= head;
            let piece = written.min(self.piece.len());
            self.piece.advance(piece);
            self.tail = &self.tail[written - piece..];
        }
        self.out.clear();
        self.at = 0;
        self.link.poll_flushed(cx)
    }

    /// Goes on by itself once the response has begun, until all is written or nothing more of it was taken for
    /// `stall_timeout`.
    pub(super) fn go_on(mut self, stall_timeout: Duration) {
        tokio::task::spawn_local(async move {
            let (mut alarm, mut stalled) = (Alarm::default(), None);
            let cut = poll_fn(|cx| {
                let before = self.link.written();
                let polled = self.poll(cx);
                // Where it is the client that is waited for, that is seen to elsewhere.
                let owes = self.at < self.out.len() || !self.piece.is_empty() || !self.tail.is_empty();
                if polled.is_ready() || !owes {
                    stalled = None;
                    return polled.map(Result::err);
                }
                if self.link.written() > before {
                    stalled = None;
                }
                let since = *stalled.get_or_insert_with(Instant::now);
                ready!(alarm.poll(cx, since + stall_timeout));
                Poll::Ready(Some(Cut::Link(io::ErrorKind::TimedOut.into())))
            });
            if let Some(cut) = cut.await {
                tracing::debug!(?cut, "the rest of a request's body was not sent");
            }
        });
    }
}

/// A response has begun.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) reply: Reply,
    /// What came with its head.
    pub(super) early: Bytes,
    /// What of the request is not written yet.
    pub(super) up: Option<Upward>,
}

/// Why no response came.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    /// The request's body broke off.
    #[error("the request's body broke off")]
    Body,
    /// It closed.
    #[error("connection closed before message completed")]
    Closed,
    /// It broke.
    #[error(transparent)]
    Link(#[from] io::Error),
    /// What came is no response.
    #[error(transparent)]
    Bad(#[from] Bad),
}

/// What is said before a response: 100, upon which a body goes that was held back, and 103, which is counted.
struct Interim<'a> {
    counters: &'a Counters,
    seen: u32,
    asked: bool,
}

/// Writes a request and reads its response's head.
pub(super) async fn exchange(
    pools: &Pools,
    link: &Link,
    mut up: Upward,
    (method, may_switch): (&Method, bool),
    most: Most,
    counters: &Counters,
) -> Result<Begun, Lost> {
    let (mut held, mut written, mut broken) = (Vec::new(), false, None);
    let mut interim = Interim { counters, seen: 0, asked: false };
    let (reply, early) = poll_fn(|cx| {
        loop {
            if !written && let Poll::Ready(sent) = up.poll(cx) {
                written = true;
                match sent {
                    Ok(()) => {}
                    Err(Cut::Body) => return Poll::Ready(Err(Lost::Body)),
                    // The endpoint may have answered before it closed.
                    Err(Cut::Link(error)) => broken = Some(error),
                }
            }
            interim.asked = false;
            let read = pools.poll_read(cx, link, |new| look(&mut held, new, (method, may_switch), most, &mut interim));
            match read {
                Poll::Ready(Ok(Ok(None))) if interim.asked => {
                    if let Some(body) = &mut up.body {
                        body.go_on();
                    }
                }
                Poll::Ready(Ok(Ok(None))) => {}
                Poll::Ready(Ok(Ok(Some(begun)))) => return Poll::Ready(Ok(begun)),
                Poll::Ready(Ok(Err(lost))) => return Poll::Ready(Err(lost)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Lost::Link(broken.take().unwrap_or(error)))),
                Poll::Pending => return broken.take().map_or(Poll::Pending, |error| Poll::Ready(Err(error.into()))),
            }
        }
    })
    .await?;
    Ok(Begun { reply, early, up: (!written).then_some(up) })
}

/// Looks at what came: the response's head and what follows it, or nothing yet.
fn look(
    held: &mut Vec<u8>,
    new: &[u8],
    (method, may_switch): (&Method, bool),
    most: Most,
    interim: &mut Interim<'_>,
) -> Result<Option<(Reply, Bytes)>, Lost> {
    if new.is_empty() {
        return Err(Lost::Closed);
    }
    // A head that comes byte by byte is not read again with each.
    let pointless = !held.is_empty() && !new.contains(&b'\n') && held.len() + new.len() < most.bytes;
    if !held.is_empty() {
        held.extend_from_slice(new);
    }
    if pointless {
        return Ok(None);
    }
    let whole = if held.is_empty() { new } else { held.as_slice() };
    let mut at = 0;
    while let Some(reply) = reply::parse(&whole[at..], method, may_switch, most)? {
        at += reply.bytes;
        match reply.response.status() {
            StatusCode::CONTINUE => interim.asked = true,
            StatusCode::EARLY_HINTS => interim.counters.count(Counter::EarlyHint),
            status if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS => {}
            _ => return Ok(Some((reply, Bytes::copy_from_slice(&whole[at..])))),
        }
        interim.seen += 1;
        if interim.seen > INTERIM {
            return Err(Bad::Interim(INTERIM).into());
        }
    }
    *held = whole[at..].to_vec();
    Ok(None)
}
