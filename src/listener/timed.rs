//! A client's connection with its timers: a head that comes too slowly, a connection without a request, a client that
//! takes nothing. hyper has one timer for the first two and none for HTTP/2, so they live here.

use super::flood::Flood;
use super::frames::Frames;
use super::scanner::Scanner;
use crate::config::ConnectionLimits;
use crate::error::Error;
use crate::malformed::Malformed;
use crate::time::Alarm;
use crate::tls::Socket;
use crate::upgrade::Tunnel;
use socket2::SockRef;
use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a connection is waiting for, and since when.
#[derive(Debug)]
pub struct Clock {
    head_timeout: Duration,
    idle_timeout: Duration,
    stall_timeout: Duration,
    http2: bool,
    active: Cell<u32>,
    /// Requests that it may still send.
    left: Cell<u64>,
    /// When it has been open for long enough.
    expires: Instant,
    in_head: Cell<bool>,
    /// None: since it is asked for the next time. A request whose head comes in one piece never asks.
    since: Cell<Option<Instant>>,
    /// HTTP/2: since when a frame, other than a body's, or a header block has been coming.
    half: Cell<Option<Instant>>,
    flood: RefCell<Flood>,
    /// What its client did that was refused.
    refused: Cell<Option<Malformed>>,
    /// Its end must not look like that of a response.
    broken: Cell<bool>,
    /// HTTP/1: what it becomes after this response.
    tunnel: RefCell<Option<Tunnel>>,
    /// Whoever reads without a timer, since an exchange is in progress. hyper may look for the next request before it
    /// lets go of the last body, so the end of an exchange has to make it look again.
    reader: RefCell<Option<Waker>>,
}

/// One exchange in progress on a connection.
#[derive(Debug)]
pub struct Active(Rc<Clock>);

/// A client's HTTP/1 connection, as far as an exchange may change what becomes of it.
#[derive(Debug)]
pub struct Handle(Rc<Clock>);

impl Active {
    /// No further request shall be sent on its connection.
    pub fn is_last(&self) -> bool {
        self.0.left.get() == 0
    }

    /// What its client did for which the connection is closed.
    pub fn refused(&self) -> Option<Malformed> {
        self.0.refused.get()
    }

    /// The connection is reset when it closes: a response to an HTTP/1.0 client that ends there looks complete, and is not.
    pub fn break_off(&self) {
        self.0.broken.set(true);
    }

    /// Its exchange is over; `cancelled`: its client went away or took it back.
    pub fn ended(&self, cancelled: bool) {
        if self.0.http2 {
            self.0.refuse_if(self.0.flood.borrow_mut().exchange(cancelled, Instant::now));
        }
    }

    /// Its connection.
    pub fn handle(&self) -> Handle {
        Handle(Rc::clone(&self.0))
    }
}

impl Handle {
    /// The connection goes on as a tunnel once the response has been sent.
    pub fn switch(&self, tunnel: Tunnel) {
        self.0.tunnel.replace(Some(tunnel));
    }
}

impl Clock {
    /// A connection that began to speak.
    pub fn new(limits: &ConnectionLimits, http2: bool, began: Instant) -> Self {
        Clock {
            head_timeout: limits.head_timeout,
            idle_timeout: limits.idle_timeout,
            stall_timeout: limits.stall_timeout,
            http2,
            active: Cell::new(0),
            left: Cell::new(limits.requests),
            expires: began + limits.lifetime,
            in_head: Cell::new(true),
            since: Cell::new(Some(began)),
            half: Cell::new(None),
            flood: RefCell::new(Flood::new(began)),
            refused: Cell::new(None),
            broken: Cell::new(false),
            tunnel: RefCell::new(None),
            reader: RefCell::new(None),
        }
    }

    /// An exchange begins: its head is here.
    pub fn enter(clock: &Rc<Clock>) -> Active {
        clock.active.set(clock.active.get() + 1);
        clock.in_head.set(false);
        let expired = Instant::now() >= clock.expires;
        clock.left.set(if expired { 0 } else { clock.left.get().saturating_sub(1) });
        Active(Rc::clone(clock))
    }

    /// HTTP/2: no further request shall be sent on it.
    pub(super) fn is_used_up(&self) -> bool {
        self.http2 && self.left.get() == 0
    }

    /// Why the connection was closed, where its client sent something that must not be forwarded.
    pub(super) fn refused(&self) -> Option<Malformed> {
        self.refused.get()
    }

    /// What the connection becomes, where it does not end.
    pub(super) fn tunnel(&self) -> Option<Tunnel> {
        self.tunnel.take()
    }

    fn refuse_if(&self, bad: Option<Malformed>) {
        if bad.is_some() {
            self.refused.set(bad);
        }
    }

    /// Whoever reads is woken when no exchange is in progress any more.
    fn wake_when_idle(&self, cx: &Context<'_>) {
        let mut reader = self.reader.borrow_mut();
        if !reader.as_ref().is_some_and(|reader| reader.will_wake(cx.waker())) {
            *reader = Some(cx.waker().clone());
        }
    }

    fn read(&self) {
        if self.active.get() == 0 && !self.in_head.get() && !self.http2 {
            self.in_head.set(true);
            self.since.set(None);
        }
    }

    /// HTTP/2: bytes have come, and `frames` has seen them; `advanced`: they began or ended a frame.
    fn framed(&self, frames: &mut Frames, advanced: bool) {
        let (requests, control) = frames.counted();
        if control > 0 || requests > 0 {
            self.refuse_if(self.flood.borrow_mut().frames(requests, control, Instant::now));
        }
        let half = self.half.get().filter(|_| !advanced);
        self.half.set(frames.is_inside().then(|| half.unwrap_or_else(Instant::now)));
    }

    fn deadline(&self) -> Option<Instant> {
        let wait = if self.in_head.get() { self.head_timeout } else { self.idle_timeout };
        let since = || {
            let since = self.since.get().unwrap_or_else(Instant::now);
            self.since.set(Some(since));
            since
        };
        let quiet = (self.active.get() == 0).then(|| since() + wait);
        // What is half sent holds up every other exchange of the connection, so they don't excuse it.
        let half = self.half.get().map(|since| since + self.head_timeout);
        quiet.into_iter().chain(half).min()
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        let left = self.0.active.get().saturating_sub(1);
        self.0.active.set(left);
        if left == 0 {
            self.0.since.set(None);
            if let Some(reader) = self.0.reader.take() {
                reader.wake();
            }
        }
    }
}

/// The connection.
#[derive(Debug)]
pub(super) struct Timed {
    stream: Socket,
    clock: Rc<Clock>,
    /// What was read and may be passed on.
    ready: Vec<u8>,
    speaks: Speaks,
    alarm: Alarm,
    stalled: Option<Instant>,
    linger: Option<Linger>,
}

#[derive(Debug)]
enum Speaks {
    Http1(Checked),
    Http2(Frames),
    /// What a tunnel carries, which is not looked at.
    Anything,
}

/// What stands between an HTTP/1 client and hyper.
#[derive(Debug)]
struct Checked {
    scanner: Scanner,
    /// The beginning of a line, held back until its end comes; or what follows a wish for another protocol.
    held: Vec<u8>,
    bad: Option<Malformed>,
    /// Since when nothing more of a body has come.
    starved: Option<Instant>,
}

/// It was answered; what still comes is thrown away, since closing a socket with unread bytes would reset it, and the
/// client might never see the answer.
#[derive(Debug)]
struct Linger {
    until: Instant,
    bytes: usize,
    /// The answer and its end are on their way.
    closed: bool,
}

impl Linger {
    fn new() -> Self {
        Linger { until: Instant::now() + LINGER, bytes: LINGER_BYTES, closed: false }
    }

    /// Ready when the client has said all, or too much, or has had its time.
    fn poll(&mut self, cx: &mut Context<'_>, stream: &mut Socket, alarm: &mut Alarm) -> Poll<()> {
        if !self.closed && Pin::new(&mut *stream).poll_shutdown(cx).is_pending() {
            return alarm.poll(cx, self.until);
        }
        self.closed = true;
        loop {
            let mut bytes = [0; 4096];
            let mut buf = ReadBuf::new(&mut bytes);
            let Poll::Ready(read) = Pin::new(&mut *stream).poll_read(cx, &mut buf) else {
                return alarm.poll(cx, self.until);
            };
            let more = buf.filled().len();
            self.bytes = self.bytes.saturating_sub(more);
            if read.is_err() || more == 0 || self.bytes == 0 || Instant::now() >= self.until {
                return Poll::Ready(());
            }
        }
    }
}

/// How long, and for how many bytes, a refused client is listened to.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1 << 20;

impl Checked {
    /// Looks at what was put into `buf` after its first `before` bytes, and leaves there what may be passed on at once.
    fn take_in(&mut self, ready: &mut Vec<u8>, buf: &mut ReadBuf<'_>, before: usize) {
        let new = &buf.filled()[before..];
        if self.held.is_empty() {
            let found = self.scanner.scan(new, 0);
            self.bad = found.bad;
            self.held.extend_from_slice(&new[found.good..]);
            buf.set_filled(before + found.good);
        } else {
            let searched = self.held.len();
            self.held.extend_from_slice(new);
            buf.set_filled(before);
            self.release(ready, searched);
        }
    }

    /// Looks at what is held.
    fn release(&mut self, ready: &mut Vec<u8>, searched: usize) {
        let found = self.scanner.scan(&self.held, searched);
        self.bad = found.bad;
        ready.extend(self.held.drain(..found.good));
    }
}

impl Timed {
    /// A connection of which `seen` was read already; `heads`: bytes and headers of a request's head, at most.
    pub(super) fn new(stream: Socket, seen: Vec<u8>, clock: Rc<Clock>, heads: (usize, usize)) -> Self {
        let (mut ready, speaks) = if clock.http2 {
            (seen, Speaks::Http2(Frames::default()))
        } else {
            let scanner = Scanner::new(heads.0, heads.1);
            (Vec::new(), Speaks::Http1(Checked { scanner, held: seen, bad: None, starved: None }))
        };
        let mut speaks = speaks;
        if let Speaks::Http1(checked) = &mut speaks {
            checked.release(&mut ready, 0);
        }
        Timed { stream, clock, ready, speaks, alarm: Alarm::default(), stalled: None, linger: None }
    }

    /// From now on it carries what is no HTTP.
    pub(super) fn into_tunnel(mut self) -> Self {
        if let Speaks::Http1(checked) = &mut self.speaks {
            self.ready.append(&mut checked.held);
        }
        self.speaks = Speaks::Anything;
        self
    }

    /// Answers what must not be forwarded, once everything before it was answered. Ends in an error.
    fn refuse(&mut self, cx: &mut Context<'_>, bad: Malformed, inside_body: bool) -> Poll<io::Result<()>> {
        self.clock.refused.set(Some(bad));
        if inside_body {
            // It breaks off for whoever reads it.
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        if self.clock.active.get() > 0 {
            self.clock.wake_when_idle(cx);
            return Poll::Pending;
        }
        // In the middle of what a slow client has not taken yet there is no room for an answer.
        if self.linger.is_none() && self.stalled.is_none() {
            let answer = Error::Malformed(bad).closing_answer();
            let _ = Pin::new(&mut self.stream).poll_write(cx, answer.as_bytes());
            let _ = Pin::new(&mut self.stream).poll_flush(cx);
        }
        let linger = self.linger.get_or_insert_with(Linger::new);
        linger.poll(cx, &mut self.stream, &mut self.alarm).map(|()| Err(io::ErrorKind::InvalidData.into()))
    }

    /// Pending until the deadline, then an error.
    fn wait<T>(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<io::Result<T>> {
        self.alarm.poll(cx, deadline).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    fn wrote(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let (Poll::Ready(Ok(bytes)), Speaks::Http2(_)) = (&polled, &self.speaks) {
            self.clock.flood.borrow_mut().wrote(*bytes);
        }
        self.taken(cx, polled)
    }

    fn taken<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stalled = None;
            return polled;
        }
        let since = *self.stalled.get_or_insert_with(Instant::now);
        self.wait(cx, since + self.clock.stall_timeout)
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        if self.clock.broken.get() {
            // Closing it is a reset now, without TLS's or TCP's own goodbye.
            let _ = SockRef::from(self.stream.tcp()).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for Timed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if !this.ready.is_empty() {
                let take = this.ready.len().min(buf.remaining());
                buf.put_slice(&this.ready[..take]);
                this.ready.drain(..take);
                return Poll::Ready(Ok(()));
            }
            if let Speaks::Http1(checked) = &mut this.speaks {
                if let Some(bad) = checked.bad {
                    let inside_body = checked.scanner.is_inside_body();
                    return this.refuse(cx, bad, inside_body);
                }
                if checked.scanner.waits() {
                    if this.clock.active.get() > 0 {
                        this.clock.wake_when_idle(cx);
                        return Poll::Pending;
                    }
                    checked.scanner.goes_on();
                    checked.release(&mut this.ready, 0);
                    continue;
                }
            }
            let before = buf.filled().len();
            match Pin::new(&mut this.stream).poll_read(cx, buf) {
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) if buf.filled().len() == before => {
                    // A client that has said all may close its half and wait for the answer (RFC 9112 §9.6); only a
                    // reset says that it is gone. hyper's own way to allow this would not see the reset.
                    let said_all = matches!(&this.speaks, Speaks::Http1(checked) if !checked.scanner.is_inside_body());
                    if said_all && this.clock.active.get() > 0 {
                        this.clock.wake_when_idle(cx);
                        return Poll::Pending;
                    }
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Ok(())) => match &mut this.speaks {
                    Speaks::Anything => return Poll::Ready(Ok(())),
                    Speaks::Http2(frames) => {
                        let advanced = frames.read(&buf.filled()[before..]);
                        this.clock.framed(frames, advanced);
                        if this.clock.refused.get().is_some() {
                            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
                        }
                        return Poll::Ready(Ok(()));
                    }
                    Speaks::Http1(checked) => {
                        this.clock.read();
                        checked.starved = None;
                        checked.take_in(&mut this.ready, buf, before);
                        if buf.filled().len() > before {
                            return Poll::Ready(Ok(()));
                        }
                    }
                },
                Poll::Pending => {
                    if let Speaks::Http1(checked) = &mut this.speaks
                        && checked.scanner.is_inside_body()
                        && this.clock.active.get() > 0
                    {
                        let since = *checked.starved.get_or_insert_with(Instant::now);
                        std::task::ready!(this.alarm.poll(cx, since + this.clock.stall_timeout));
                        checked.bad = Some(Malformed::BodyTimeout);
                        continue;
                    }
                    let Some(deadline) = this.clock.deadline() else {
                        this.clock.wake_when_idle(cx);
                        return Poll::Pending;
                    };
                    let over = std::task::ready!(this.wait::<()>(cx, deadline));
                    match &mut this.speaks {
                        Speaks::Http1(checked) if checked.scanner.is_inside_head(!checked.held.is_empty()) => {
                            checked.bad = Some(Malformed::HeadTimeout);
                        }
                        _ => return Poll::Ready(over),
                    }
                }
            }
        }
    }
}

impl AsyncWrite for Timed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.taken(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.clock.broken.get() {
            return Poll::Ready(Ok(()));
        }
        let this = &mut *self;
        // Whoever still sends a body that nobody reads any more.
        if matches!(&this.speaks, Speaks::Http1(checked) if checked.scanner.is_inside_body()) {
            let linger = this.linger.get_or_insert_with(Linger::new);
            return linger.poll(cx, &mut this.stream, &mut this.alarm).map(Ok);
        }
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}
