//! A client's HTTP/1 connection: one exchange after the other, each in this one task.

use super::draining::Draining;
use super::response::Response;
use super::worker::Worker;
use crate::base::time::Alarm;
use crate::http::downstream::clock::{Active, Clock};
use crate::http::downstream::http1::{Client, Tunnelled};
use crate::http::error::Error;
use crate::http::fields::line;
use crate::http::h1::head::{Parsed, Parser};
use crate::http::h1::out::Out;
use crate::http::h1::write::{self, Framing};
use crate::http::headers::{expects_continue, names_in_connection, wants_trailers};
use crate::http::malformed::Malformed;
use crate::http::request::body::Incoming;
use crate::http::request::{Parts, Peer};
use crate::http::settings::Gateway;
use http::{Method, StatusCode, Version};
use http_body::Body as _;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;
use tokio::sync::watch;

/// Who is served, and within which bounds.
pub(super) struct Served {
    pub(super) worker: Rc<Worker>,
    pub(super) peer: Arc<Peer>,
    pub(super) client: Rc<Client>,
    pub(super) clock: Rc<Clock>,
    pub(super) limits: Arc<Gateway>,
    /// When the connection began.
    pub(super) began: Instant,
}

/// What of a request decides how it is answered and whether another may follow.
#[derive(Clone, Copy)]
struct Asked {
    version: Version,
    keeps: bool,
    head_only: bool,
    trailers: bool,
}

/// How the writing of a response ended.
#[derive(PartialEq, Eq)]
enum Written {
    Whole,
    /// Another request may follow.
    Kept,
    /// The client is gone, or its body broke off.
    Cut,
}

/// Serves the connection to its end.
pub(super) async fn serve(served: Served, drain: watch::Receiver<bool>) {
    let Served { worker, client, clock, limits, .. } = &served;
    let (mut alarm, mut out, mut draining) = (Alarm::default(), Out::default(), Draining::new(drain));
    let mut first = Some(served.began);
    loop {
        let found = match served.next(&mut alarm, first.take(), &mut draining).await {
            Ok(Some(found)) => found,
            Err(bad) => {
                clock.refuse(bad);
                // Who speaks something else would take an answer for that.
                if bad != Malformed::NotHttp {
                    out.framing.extend_from_slice(Error::Malformed(bad).closing_answer().as_bytes());
                }
                let _ = poll_fn(|cx| write_out(&mut out, client, cx, &mut None, &mut alarm, limits)).await;
                return client.close(&mut alarm).await;
            }
            Ok(None) => return client.close(&mut alarm).await,
        };
        let (parts, active) = (found.parts, Clock::enter(clock));
        let asked = Asked::of(&parts, &active);
        clock.hears.set(asked.version == Version::HTTP_11);
        let body = client
            .begin(found.body, expects_continue(parts.version, &parts.headers))
            .map_or(Incoming::None, Incoming::Http1);
        let answered = {
            let exchange = super::handle(Rc::clone(worker), Arc::clone(&served.peer), active, parts, body, None);
            served.unless_gone(&mut out, std::pin::pin!(exchange)).await
        };
        let Some(response) = answered else { return };
        let leaves = worker.shared.vitals.leaving() || draining.has_begun();
        let keeps = asked.keeps && !leaves;
        let written = served.respond(response, Asked { keeps, ..asked }, &mut out, &mut alarm).await;
        // Taken in any case: it holds on to its connection, and so to itself.
        let tunnel = clock.tunnel();
        if written != Written::Cut
            && let Some(tunnel) = tunnel
        {
            let held = client.take_held();
            return tunnel.run(Tunnelled(Rc::clone(client)), held).await;
        }
        match written {
            Written::Cut => return,
            Written::Whole => return client.close(&mut alarm).await,
            Written::Kept if served.body_is_over(&mut alarm).await => {}
            Written::Kept => return client.close(&mut alarm).await,
        }
    }
}

impl Served {
    /// Waits for the next request's head. None: the connection has ended, or should.
    ///
    /// # Errors
    /// What came must not be forwarded.
    async fn next(
        &self,
        alarm: &mut Alarm,
        first: Option<Instant>,
        draining: &mut Draining,
    ) -> Result<Option<Parsed>, Malformed> {
        let Served { client, limits, .. } = self;
        let mut parser = Parser::new(limits.max_head_bytes, limits.max_headers);
        let mut head = first;
        poll_fn(|cx| {
            if let Poll::Ready(head) = client.poll_head(cx, &mut parser) {
                return Poll::Ready(head);
            }
            let begun = client.has_begun();
            if draining.poll(cx) && !begun {
                return Poll::Ready(Ok(None));
            }
            let deadline = if begun {
                *head.get_or_insert_with(Instant::now) + limits.head_timeout
            } else if let Some(first) = first {
                first + limits.head_timeout
            } else {
                self.clock.quiet_since() + limits.idle_timeout
            };
            ready!(alarm.poll(cx, deadline));
            Poll::Ready(if begun { Err(Malformed::HeadTimeout) } else { Ok(None) })
        })
        .await
    }

    /// What the exchange comes to; none: its client is gone before. Early hints go out meanwhile.
    async fn unless_gone(
        &self,
        out: &mut Out,
        mut exchange: Pin<&mut impl Future<Output = Response>>,
    ) -> Option<Response> {
        poll_fn(|cx| {
            if let Poll::Ready(response) = exchange.as_mut().poll(cx) {
                return Poll::Ready(Some(response));
            }
            out.framing.append(&mut self.clock.hints.borrow_mut());
            let client = &self.client;
            let told = out.poll_write(cx, |cx, bytes| client.poll_write_some(cx, bytes));
            let gone = matches!(told, Poll::Ready(Err(_)))
                || matches!(client.poll_flushed(cx), Poll::Ready(Err(_)))
                || client.poll_gone(cx).is_ready();
            if gone { Poll::Ready(None) } else { Poll::Pending }
        })
        .await
    }

    /// Writes the response. The exchange ends with its last byte.
    async fn respond(&self, response: Response, asked: Asked, out: &mut Out, alarm: &mut Alarm) -> Written {
        let Response { status, mut headers, mut body } = response;
        out.framing.append(&mut self.clock.hints.borrow_mut());
        let empty = status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let bare = empty || asked.head_only;
        let framing = match body.size_hint().exact() {
            _ if empty => Framing::Nothing,
            _ if bare => Framing::AsTold,
            Some(bytes) => Framing::Bytes(bytes),
            None if asked.version == Version::HTTP_10 => Framing::UntilClose,
            None => Framing::Chunked,
        };
        let tells_trailers = asked.trailers || headers.has("trailer");
        let closes = names_in_connection(&headers, "close");
        let keeps = asked.keeps && !closes && framing != Framing::UntilClose;
        let switches = status == StatusCode::SWITCHING_PROTOCOLS;
        if !switches {
            headers.remove("connection");
        }
        write::response(&mut out.framing, asked.version, status, &headers, &framing);
        match (keeps, asked.version) {
            _ if switches => {}
            (false, _) => line(&mut out.framing, b"connection", &[b"close"]),
            (true, Version::HTTP_10) => line(&mut out.framing, b"connection", &[b"keep-alive"]),
            (true, _) => {}
        }
        if !headers.has("date") {
            line(&mut out.framing, b"date", &[self.worker.date.borrow().as_bytes()]);
        }
        out.framing.extend_from_slice(b"\r\n");
        drop(headers);
        let chunked = framing == Framing::Chunked;
        let (mut ended, mut broke, mut stalled) = (body.is_end_stream(), false, None);
        if ended && chunked {
            out.last_chunk(None);
        }
        let whole = poll_fn(|cx| {
            loop {
                let mut waits = false;
                while !ended && !out.is_full() {
                    match Pin::new(&mut body).poll_frame(cx) {
                        Poll::Pending => {
                            waits = true;
                            break;
                        }
                        Poll::Ready(Some(Err(_))) => (ended, broke) = (true, true),
                        Poll::Ready(None) => {
                            ended = true;
                            if chunked {
                                out.last_chunk(None);
                            }
                        }
                        Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                            Ok(data) if data.is_empty() || bare => {}
                            Ok(data) => out.piece(data, chunked),
                            Err(frame) => {
                                ended = true;
                                let trailers = frame.into_trailers().ok().filter(|_| tells_trailers);
                                if chunked {
                                    out.last_chunk(trailers.as_ref());
                                }
                            }
                        },
                    }
                    // With a length the last piece is known.
                    ended |= !chunked && body.is_end_stream();
                }
                let written = ready!(write_out(out, &self.client, cx, &mut stalled, alarm, &self.limits));
                if !written || broke {
                    return Poll::Ready(false);
                }
                if ended {
                    return Poll::Ready(true);
                }
                if waits {
                    return self.client.poll_gone(cx).map(|()| false);
                }
            }
        })
        .await;
        drop(body);
        match (whole, keeps) {
            (false, _) => Written::Cut,
            (true, false) => Written::Whole,
            (true, true) => Written::Kept,
        }
    }

    /// The request's body is over, so that the next request can come.
    async fn body_is_over(&self, alarm: &mut Alarm) -> bool {
        let client = &self.client;
        // Nearly always, and then the time does not matter.
        if client.is_body_over() {
            return true;
        }
        self.clock.is_quiet_now();
        loop {
            let (pieces, deadline) = (client.pieces(), Instant::now() + self.limits.stall_timeout);
            match alarm.before(deadline, poll_fn(|cx| client.poll_body_over(cx))).await {
                Some(true) => return true,
                Some(false) => return client.skip_body(),
                // It still goes to its endpoint, which answered before it had all.
                None if client.pieces() > pieces => {}
                None => return false,
            }
        }
    }
}

/// Writes all of it; false: the client is gone, or took nothing for too long.
fn write_out(
    out: &mut Out,
    client: &Client,
    cx: &mut Context<'_>,
    stalled: &mut Option<Instant>,
    alarm: &mut Alarm,
    limits: &Gateway,
) -> Poll<bool> {
    let mut moved = false;
    let written = out.poll_write(cx, |cx, bytes| {
        let written = client.poll_write_some(cx, bytes);
        moved |= written.is_ready();
        written
    });
    let polled = match written {
        Poll::Ready(Ok(())) => client.poll_flushed(cx),
        polled => polled,
    };
    if moved || polled.is_ready() {
        *stalled = None;
    }
    match polled {
        Poll::Ready(result) => Poll::Ready(result.is_ok()),
        Poll::Pending => {
            let since = *stalled.get_or_insert_with(Instant::now);
            alarm.poll(cx, since + limits.stall_timeout).map(|()| false)
        }
    }
}

impl Asked {
    fn of(parts: &Parts, active: &Active) -> Self {
        let names = |name| names_in_connection(&parts.headers, name);
        let old = parts.version == Version::HTTP_10;
        Asked {
            version: parts.version,
            keeps: !active.is_last() && if old { names("keep-alive") } else { !names("close") },
            head_only: parts.method == Method::HEAD,
            trailers: wants_trailers(&parts.headers),
        }
    }
}
