//! One request and its response's head on an HTTP/1 connection. Whoever waits for the response writes the request
//! meanwhile, so what was written is known to the byte.

use crate::base::time::Alarm;
use crate::http::downstream::clock::Handle;
use crate::http::h1::out::Out;
use crate::http::h1::reply::{self, Bad, Most, Reply};
use crate::http::headers::end_hop;
use crate::http::request::body::RequestBody;
use crate::service::pool::{Link, Pools};
use crate::telemetry::{Counter, Counters};
use bytes::Bytes;
use http::{Method, StatusCode};
use http_body::{Body, Frame};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

/// Interim responses that are read at most.
const INTERIM: u32 = 100;

/// A request on its way up.
#[derive(Debug)]
pub(super) struct Upward {
    link: Link,
    out: Out,
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
    pub(super) fn new(link: Link, head: Vec<u8>, body: RequestBody) -> Self {
        let body = (!body.is_end_stream()).then_some(body);
        let left = body.as_ref().and_then(|body| body.size_hint().exact());
        Upward { link, out: Out::of_head(head), body, left }
    }

    /// Ready when all of it is written.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        loop {
            // With the head, if it is here already.
            let waits = !self.out.is_full() && self.poll_piece(cx)?.is_pending();
            let link = &self.link;
            ready!(self.out.poll_write(cx, |cx, bytes| link.poll_write_some(cx, bytes))).map_err(Cut::Link)?;
            ready!(link.poll_flushed(cx)).map_err(Cut::Link)?;
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
                self.out.piece(data, false);
            }
            (None, None) => self.out.last_chunk(trailers.as_ref()),
            (None, Some(data)) => self.out.piece(data, true),
        }
        if ended || self.left == Some(0) {
            self.body = None;
        }
        Poll::Ready(Ok(()))
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
                let owes = !self.out.is_empty();
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

/// What is said before a response: 100, upon which a body goes that was held back, and 103, which the client is told, or
/// which is counted where it cannot be.
struct Interim<'a> {
    client: &'a Handle,
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
    (client, counters): (&Handle, &Counters),
) -> Result<Begun, Lost> {
    let (mut held, mut written, mut broken) = (Vec::new(), false, None);
    let mut interim = Interim { client, counters, seen: 0, asked: false };
    let (reply, early) = poll_fn(|cx| {
        loop {
            if !written && let Poll::Ready(sent) = up.poll(cx) {
                written = true;
                match sent {
                    Ok(()) => {}
                    Err(Cut::Body) => return Poll::Ready(Err(Lost::Body)),
                    // The endpoint may have answered before it closed, which the socket tells when all that came was read.
                    Err(Cut::Link(error)) if is_closed(&error) => broken = Some(error),
                    Err(Cut::Link(error)) => return Poll::Ready(Err(error.into())),
                }
            }
            interim.asked = false;
            let look = |new: &[u8]| {
                let before = held.len();
                let seen = look(&mut held, new, (method, may_switch), most, &mut interim);
                // Only behind a response's head something is left to be taken.
                let heads = if let Ok(Some((_, at))) = &seen { at.saturating_sub(before) } else { new.len() };
                (seen, heads)
            };
            let seen = match link.poll_take_behind(cx, &pools.scratch, look) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Lost::Link(broken.take().unwrap_or(error)))),
                Poll::Ready(Ok((Err(lost), _))) => return Poll::Ready(Err(lost)),
                Poll::Ready(Ok((Ok(seen), early))) => seen.map(|(reply, _)| (reply, early)),
            };
            match seen {
                None if interim.asked => {
                    if let Some(body) = &mut up.body {
                        body.go_on();
                    }
                }
                None => {}
                Some(begun) => return Poll::Ready(Ok(begun)),
            }
        }
    })
    .await?;
    Ok(Begun { reply, early, up: (!written).then_some(up) })
}

fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionReset | ConnectionAborted)
}

/// Looks at what came: nothing yet, or the response's head and where it ends, counted from the first byte that was held.
fn look(
    held: &mut Vec<u8>,
    new: &[u8],
    (method, may_switch): (&Method, bool),
    most: Most,
    interim: &mut Interim<'_>,
) -> Result<Option<(Reply, usize)>, Lost> {
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
        match reply.status {
            StatusCode::CONTINUE => interim.asked = true,
            StatusCode::EARLY_HINTS => {
                let mut headers = reply.headers;
                end_hop(&mut headers);
                if !interim.client.hint(&headers) {
                    interim.counters.count(Counter::EarlyHint);
                }
            }
            status if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS => {}
            _ => return Ok(Some((reply, at))),
        }
        interim.seen += 1;
        if interim.seen > INTERIM {
            return Err(Bad::Interim(INTERIM).into());
        }
    }
    *held = whole[at..].to_vec();
    Ok(None)
}
