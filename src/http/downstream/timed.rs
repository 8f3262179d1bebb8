//! A client's HTTP/2 connection with its timers: a head that comes too slowly, a connection without a request, a client
//! that takes nothing. hyper has none for HTTP/2, so they live here.

use super::clock::Clock;
use super::frames::Frames;
use super::opening::PREFACE;
use crate::base::time::Alarm;
use crate::http::tls::Socket;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The connection.
#[derive(Debug)]
pub(crate) struct Timed {
    stream: Socket,
    clock: Rc<Clock>,
    /// What was read and may be passed on.
    ready: Vec<u8>,
    frames: Frames,
    alarm: Alarm,
    stalled: Option<Instant>,
}

impl Timed {
    /// A connection of which `seen` was read already: its preface, and maybe more.
    pub(crate) fn new(stream: Socket, seen: Vec<u8>, clock: Rc<Clock>) -> Self {
        let mut frames = Frames::default();
        let advanced = frames.read(seen.get(PREFACE.len()..).unwrap_or(&[]));
        clock.framed(&mut frames, advanced);
        Timed { stream, clock, ready: seen, frames, alarm: Alarm::default(), stalled: None }
    }

    /// Pending until the deadline, then an error.
    fn wait<T>(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<io::Result<T>> {
        self.alarm.poll(cx, deadline).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    fn wrote(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &polled {
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

impl AsyncRead for Timed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.ready.is_empty() {
            let take = this.ready.len().min(buf.remaining());
            buf.put_slice(&this.ready[..take]);
            this.ready.drain(..take);
            if this.ready.is_empty() {
                this.ready = Vec::new();
            }
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {
                let advanced = this.frames.read(&buf.filled()[before..]);
                this.clock.framed(&mut this.frames, advanced);
                match this.clock.refused() {
                    Some(_) => Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
                    None => Poll::Ready(Ok(())),
                }
            }
            Poll::Pending => {
                let Some(deadline) = this.clock.deadline() else {
                    this.clock.wake_when_idle(cx);
                    return Poll::Pending;
                };
                this.wait(cx, deadline)
            }
            error => error,
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
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
