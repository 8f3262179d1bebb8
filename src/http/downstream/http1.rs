//! A client's HTTP/1 connection: what is read of it, and what is written to it. Its task reads heads and writes
//! responses; whoever wants the body of the request in progress reads that.

use super::clock::Clock;
use super::linger::Linger;
use crate::base::time::Alarm;
use crate::http::h1::flow::Flow;
use crate::http::h1::head::{Parsed, Parser};
use crate::http::h1::scratch::Scratch;
use crate::http::malformed::Malformed;
use crate::http::tls::Socket;
use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use socket2::SockRef;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How long a client is listened to that still sends when it was answered.
const LINGER: Duration = Duration::from_secs(1);

/// Pieces of an unwanted body that are thrown away, so that the connection can be used again.
const SKIPPED: u32 = 16;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The connection.
#[derive(Debug)]
pub struct Client {
    socket: RefCell<Socket>,
    scratch: Rc<Scratch>,
    clock: Rc<Clock>,
    /// What was read and is of no request yet: the beginning of a head, or more.
    held: RefCell<BytesMut>,
    body: RefCell<Coming>,
    /// It has said all.
    ended: Cell<bool>,
}

/// The body of the request in progress.
#[derive(Debug)]
struct Coming {
    flow: Flow,
    /// What was read of it and what follows.
    read: Bytes,
    /// Its client waits until it is asked for it.
    expects: bool,
    /// Nobody wants it any more.
    unwanted: bool,
    /// Pieces of it that were read.
    pieces: u64,
    /// Whoever waits for its end.
    waiting: Option<Waker>,
}

/// A hold on the body of the request in progress.
#[derive(Debug)]
pub struct Body(Rc<Client>);

/// Half a body is all that came.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The connection broke, or ended.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is no body in chunks.
    #[error("{}", .0.reason())]
    Malformed(Malformed),
}

impl Client {
    /// A connection of which `seen` was read already.
    pub fn new(socket: Socket, seen: &[u8], scratch: Rc<Scratch>, clock: Rc<Clock>) -> Rc<Self> {
        let body =
            Coming { flow: Flow::Over, read: Bytes::new(), expects: false, unwanted: true, pieces: 0, waiting: None };
        Rc::new(Client {
            socket: RefCell::new(socket),
            scratch,
            clock,
            held: RefCell::new(BytesMut::from(seen)),
            body: RefCell::new(body),
            ended: Cell::new(false),
        })
    }

    fn poll_read<T>(&self, cx: &mut Context<'_>, see: impl FnOnce(&[u8]) -> T) -> Poll<io::Result<T>> {
        self.scratch.read(|into| self.socket.borrow_mut().poll_read_some(cx, into), see)
    }

    fn poll_take(&self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        self.scratch.take(cx, &mut *self.socket.borrow_mut())
    }

    /// The next request's head. None: the connection has ended.
    ///
    /// # Errors
    /// What came must not be forwarded.
    pub fn poll_head(&self, cx: &mut Context<'_>, parser: &mut Parser) -> Poll<Result<Option<Parsed>, Malformed>> {
        let mut held = self.held.borrow_mut();
        if !held.is_empty()
            && parser.is_fresh()
            && let Some(found) = parser.read(&held)?
        {
            let _ = held.split_to(found.bytes);
            // What follows has its own beginning, so that the room of what went before is free.
            *held = BytesMut::from(&held[..]);
            return Poll::Ready(Ok(Some(found)));
        }
        loop {
            let read = self.poll_read(cx, |new| {
                if new.is_empty() {
                    return Some(Ok(None));
                }
                let before = held.len();
                let read = if before == 0 {
                    // Nearly always all of it, and nothing more.
                    parser.read(new)
                } else {
                    held.extend_from_slice(new);
                    parser.read(&held)
                };
                match read {
                    Err(bad) => Some(Err(bad)),
                    Ok(Some(found)) if before == 0 => {
                        held.extend_from_slice(&new[found.bytes..]);
                        Some(Ok(Some(found)))
                    }
                    Ok(Some(found)) => {
                        *held = BytesMut::from(&held[found.bytes..]);
                        Some(Ok(Some(found)))
                    }
                    Ok(None) if before == 0 => {
                        held.extend_from_slice(new);
                        None
                    }
                    Ok(None) => None,
                }
            });
            match ready!(read) {
                Ok(Some(end)) => return Poll::Ready(end),
                // The beginning of a head.
                Ok(None) => {}
                Err(_) => return Poll::Ready(Ok(None)),
            }
        }
    }

    /// Something of a head has come.
    pub fn has_begun(&self) -> bool {
        !self.held.borrow().is_empty()
    }

    /// A request begins whose body ends so; `expects`: its client waits until it is asked for it.
    pub fn begin(self: &Rc<Self>, flow: Flow, expects: bool) -> Option<Body> {
        let has_body = !flow.is_over();
        let read = if has_body { self.held.take().freeze() } else { Bytes::new() };
        *self.body.borrow_mut() = Coming { flow, read, expects, unwanted: !has_body, pieces: 0, waiting: None };
        has_body.then(|| Body(Rc::clone(self)))
    }

    /// Ready when the body of the request in progress is over, or nobody reads it any more: whether it is over.
    pub fn poll_body_over(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut body = self.body.borrow_mut();
        if body.flow.is_over() || body.unwanted {
            return Poll::Ready(body.flow.is_over());
        }
        body.waiting = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The body of the request in progress is over.
    pub fn is_body_over(&self) -> bool {
        self.body.borrow().flow.is_over()
    }

    /// How many pieces of the body of the request in progress were read.
    pub fn pieces(&self) -> u64 {
        self.body.borrow().pieces
    }

    /// Throws away what is left of a body that nobody wants, as far as it is here: whether that is all of it.
    pub fn skip_body(&self) -> bool {
        let mut body = self.body.borrow_mut();
        let body = &mut *body;
        let cx = &mut Context::from_waker(Waker::noop());
        // A client that was not asked for its body may send it or not.
        for _ in 0..SKIPPED {
            match body.flow.next(&mut body.read) {
                Ok(_) if body.flow.is_over() => {
                    self.held.borrow_mut().extend_from_slice(&std::mem::take(&mut body.read));
                    return true;
                }
                Ok(Some(_)) => {}
                Ok(None) if body.expects => return false,
                Ok(None) => match self.poll_take(cx) {
                    Poll::Ready(Ok(read)) if !read.is_empty() => body.read = read,
                    _ => return false,
                },
                Err(_) => return false,
            }
        }
        false
    }

    /// Ready when the client is gone; only looked for where nothing else reads. A client that has said all may close its
    /// half and wait for the answer (RFC 9112 §9.6), so only a reset says so.
    pub fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.ended.get() || self.has_begun() || !self.is_body_over() {
            return Poll::Pending;
        }
        let read = self.poll_read(cx, |new| {
            self.held.borrow_mut().extend_from_slice(new);
            new.is_empty()
        });
        match ready!(read) {
            Err(_) => Poll::Ready(()),
            Ok(ended) => {
                self.ended.set(ended);
                Poll::Pending
            }
        }
    }

    /// Writes some of these.
    pub fn poll_write_some(&self, cx: &mut Context<'_>, bytes: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.socket.borrow_mut().poll_write_some(cx, bytes)
    }

    /// Nothing that was written is held back any longer.
    pub fn poll_flushed(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.socket.borrow_mut()).poll_flush(cx)
    }

    /// Ends the connection, so that its client sees what it was told last.
    pub async fn close(&self, alarm: &mut Alarm) {
        let more = !self.is_body_over() || self.has_begun();
        let mut linger = Linger::new(LINGER);
        poll_fn(|cx| {
            let mut socket = self.socket.borrow_mut();
            match &mut *socket {
                _ if more => linger.poll(cx, &mut socket, alarm),
                // Closing it says the same.
                Socket::Plain(_) => Poll::Ready(()),
                Socket::Tls(stream) => match Pin::new(stream).poll_shutdown(cx) {
                    Poll::Ready(_) => Poll::Ready(()),
                    Poll::Pending => alarm.poll(cx, linger.until()),
                },
            }
        })
        .await;
    }

    /// What it said before it was given another protocol.
    pub fn take_held(&self) -> Bytes {
        self.held.take().freeze()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if self.clock.broken.get() {
            // Closing it is a reset now, without TLS's or TCP's own goodbye.
            let _ = SockRef::from(self.socket.get_mut().tcp()).set_linger(Some(Duration::ZERO));
        }
    }
}

impl Body {
    /// The next piece, or the trailers.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let client = &*self.0;
        let mut body = client.body.borrow_mut();
        let body = &mut *body;
        if body.expects && body.read.is_empty() {
            let asked = ready!(client.poll_write_some(cx, &[IoSlice::new(CONTINUE)]))?;
            if asked < CONTINUE.len() {
                // It has left no room for a line.
                return Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::WriteZero).into())));
            }
            let _ = client.poll_flushed(cx)?;
        }
        body.expects = false;
        loop {
            let next = body.flow.next(&mut body.read);
            let frame = match next {
                Ok(frame) => frame,
                Err(bad) => {
                    client.clock.refuse(bad);
                    body.unwanted = true;
                    return Poll::Ready(Some(Err(BodyError::Malformed(bad))));
                }
            };
            if body.flow.is_over() {
                client.held.borrow_mut().extend_from_slice(&std::mem::take(&mut body.read));
                body.wake();
                return Poll::Ready(frame.map(Ok));
            }
            if frame.is_some() {
                body.pieces += 1;
                return Poll::Ready(frame.map(Ok));
            }
            body.read = ready!(client.poll_take(cx))?;
            if body.read.is_empty() {
                return Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())));
            }
        }
    }

    /// All of it was read.
    pub fn is_over(&self) -> bool {
        self.0.is_body_over()
    }

    /// How much more comes, as far as it was said.
    pub fn size_hint(&self) -> SizeHint {
        self.0.body.borrow().flow.size_hint()
    }
}

impl Coming {
    fn wake(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let mut body = self.0.body.borrow_mut();
        body.unwanted = true;
        body.wake();
    }
}

/// The connection once it carries what is no HTTP.
#[derive(Debug)]
pub struct Tunnelled(pub Rc<Client>);

impl AsyncRead for Tunnelled {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.socket.borrow_mut()).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tunnelled {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll_write_some(cx, &[IoSlice::new(buf)])
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_flushed(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.socket.borrow_mut()).poll_shutdown(cx)
    }
}
