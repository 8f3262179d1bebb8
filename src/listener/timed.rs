//! A client's connection with its timers: a head that comes too slowly, a connection without a request, a client that
//! takes nothing. hyper has one timer for the first two and none for HTTP/2, so they live here.

use super::frames::Frames;
use crate::config::ConnectionLimits;
use crate::time::Alarm;
use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What a connection is waiting for, and since when.
#[derive(Debug)]
pub struct Clock {
    head_timeout: Duration,
    idle_timeout: Duration,
    stall_timeout: Duration,
    http2: bool,
    active: Cell<u32>,
    in_head: Cell<bool>,
    /// None: since it is asked for the next time. A request whose head comes in one piece never asks.
    since: Cell<Option<Instant>>,
    /// HTTP/2: since when a frame, other than a body's, or a header block has been coming.
    half: Cell<Option<Instant>>,
    /// Whoever reads without a timer, since an exchange is in progress. hyper may look for the next request before it
    /// lets go of the last body, so the end of an exchange has to make it look again.
    reader: RefCell<Option<Waker>>,
}

/// One exchange in progress on a connection.
#[derive(Debug)]
pub struct Active(Rc<Clock>);

impl Clock {
    /// A connection that began to speak.
    pub fn new(limits: &ConnectionLimits, http2: bool, began: Instant) -> Self {
        Clock {
            head_timeout: limits.head_timeout,
            idle_timeout: limits.idle_timeout,
            stall_timeout: limits.stall_timeout,
            http2,
            active: Cell::new(0),
            in_head: Cell::new(true),
            since: Cell::new(Some(began)),
            half: Cell::new(None),
            reader: RefCell::new(None),
        }
    }

    /// An exchange begins: its head is here.
    pub fn enter(clock: &Rc<Clock>) -> Active {
        clock.active.set(clock.active.get() + 1);
        clock.in_head.set(false);
        Active(Rc::clone(clock))
    }

    fn read(&self) {
        if self.active.get() == 0 && !self.in_head.get() && !self.http2 {
            self.in_head.set(true);
            self.since.set(None);
        }
    }

    /// HTTP/2: bytes have come, and `frames` has seen them; `advanced`: they began or ended a frame.
    fn framed(&self, frames: &Frames, advanced: bool) {
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
    stream: TcpStream,
    /// What was read to find out the protocol.
    seen: Vec<u8>,
    clock: Rc<Clock>,
    frames: Frames,
    alarm: Alarm,
    stalled: Option<Instant>,
}

impl Timed {
    /// A connection of which `seen` was read already.
    pub(super) fn new(stream: TcpStream, seen: Vec<u8>, clock: Rc<Clock>) -> Self {
        Timed { stream, seen, clock, frames: Frames::default(), alarm: Alarm::default(), stalled: None }
    }

    /// Pending until the deadline, then an error.
    fn wait<T>(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<io::Result<T>> {
        self.alarm.poll(cx, deadline).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    fn written(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if polled.is_ready() {
            self.stalled = None;
            return polled;
        }
        let since = *self.stalled.get_or_insert_with(Instant::now);
        self.wait(cx, since + self.clock.stall_timeout)
    }
}

impl AsyncRead for Timed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.seen.is_empty() {
            let take = this.seen.len().min(buf.remaining());
            buf.put_slice(&this.seen[..take]);
            this.seen.drain(..take);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, buf) {
            Poll::Ready(read) => {
                this.clock.read();
                if this.clock.http2 {
                    let advanced = this.frames.read(&buf.filled()[before..]);
                    this.clock.framed(&this.frames, advanced);
                }
                Poll::Ready(read)
            }
            Poll::Pending => match this.clock.deadline() {
                Some(deadline) => this.wait(cx, deadline),
                None => {
                    let mut reader = this.clock.reader.borrow_mut();
                    if !reader.as_ref().is_some_and(|reader| reader.will_wake(cx.waker())) {
                        *reader = Some(cx.waker().clone());
                    }
                    Poll::Pending
                }
            },
        }
    }
}

impl AsyncWrite for Timed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.written(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.written(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
