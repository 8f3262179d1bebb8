//! A client's connection with its timers: a head that comes too slowly, a connection without a request, a client that
//! takes nothing. hyper has one timer for the first two and none for HTTP/2, so they live here.

use super::clock::Clock;
use super::frames::Frames;
use super::linger::Linger;
use super::scanner::Scanner;
use crate::base::time::Alarm;
use crate::http::error::Error;
use crate::http::malformed::Malformed;
use crate::http::tls::Socket;
use socket2::SockRef;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How long a refused client is listened to.
const LINGER: Duration = Duration::from_secs(1);

/// The connection.
#[derive(Debug)]
pub(crate) struct Timed {
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
    pub(crate) fn new(stream: Socket, seen: Vec<u8>, clock: Rc<Clock>, heads: (usize, usize)) -> Self {
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
    pub(crate) fn into_tunnel(mut self) -> Self {
        if let Speaks::Http1(checked) = &mut self.speaks {
            self.ready.append(&mut checked.held);
        }
        self.speaks = Speaks::Anything;
        self
    }

    /// Answers what must not be forwarded, once everything before it was answered. Ends in an error.
    fn refuse(&mut self, cx: &mut Context<'_>, bad: Malformed, inside_body: bool) -> Poll<io::Result<()>> {
        self.clock.refuse(bad);
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
        let linger = self.linger.get_or_insert_with(|| Linger::new(LINGER));
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
                        if this.clock.refused().is_some() {
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
            let linger = this.linger.get_or_insert_with(|| Linger::new(LINGER));
            return linger.poll(cx, &mut this.stream, &mut this.alarm).map(Ok);
        }
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}
