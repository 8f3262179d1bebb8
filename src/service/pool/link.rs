//! An HTTP/1 connection to an endpoint. Nobody drives it: whoever has it polls it, so nothing is left of it when it is
//! dropped.

use crate::http::h1::scratch::Scratch;
use crate::http::tls::Socket;
use crate::http::tls::client::Connector;
use crate::service::admission::{Both, Open};
use bytes::Bytes;
use socket2::SockRef;
use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The connection; a clone is the same one, so that one can write while the other reads.
#[derive(Debug, Clone)]
pub struct Link(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    socket: RefCell<Socket>,
    written: Cell<u64>,
    opened: Instant,
    tls: Option<Arc<Connector>>,
    open: Open,
}

impl Link {
    pub(super) fn new(socket: Socket, tls: Option<Arc<Connector>>, open: Open) -> Self {
        let socket = RefCell::new(socket);
        Link(Rc::new(Inner { socket, written: Cell::new(0), opened: Instant::now(), tls, open }))
    }

    /// Where it counts as open.
    pub(super) fn counts(&self) -> &Both {
        self.0.open.of()
    }

    /// When it was opened.
    pub(super) fn opened(&self) -> Instant {
        self.0.opened
    }

    /// On which terms it was opened.
    pub(super) fn tls(&self) -> Option<&Arc<Connector>> {
        self.0.tls.as_ref()
    }

    /// Bytes of HTTP that were taken to be written so far.
    pub fn written(&self) -> u64 {
        self.0.written.get()
    }

    /// Reads a piece of a body; none: the endpoint has closed its side.
    pub fn poll_take(&self, cx: &mut Context<'_>, scratch: &Scratch) -> Poll<io::Result<Bytes>> {
        scratch.take(cx, &mut *self.0.socket.borrow_mut())
    }

    /// Reads once, and takes what stands behind as many bytes as `see` says; nothing to see: the endpoint has closed its
    /// side.
    pub fn poll_take_behind<T>(
        &self,
        cx: &mut Context<'_>,
        scratch: &Scratch,
        see: impl FnOnce(&[u8]) -> (T, usize),
    ) -> Poll<io::Result<(T, Bytes)>> {
        scratch.take_behind(cx, &mut *self.0.socket.borrow_mut(), see)
    }

    /// Writes some of these.
    pub fn poll_write_some(&self, cx: &mut Context<'_>, bytes: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let polled = self.0.socket.borrow_mut().poll_write_some(cx, bytes);
        if let Poll::Ready(Ok(bytes)) = polled {
            self.0.written.set(self.0.written.get() + bytes as u64);
        }
        polled
    }

    /// Nothing that was written is held back any longer.
    pub fn poll_flushed(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.socket.borrow_mut()).poll_flush(cx)
    }

    /// Nothing has come while nobody asked. An end means that the endpoint has closed; a byte would be taken for the
    /// next response, which it cannot be.
    pub(super) fn is_quiet(&self) -> bool {
        if let Socket::Plain(stream) = &*self.0.socket.borrow() {
            let peeked = SockRef::from(stream).peek(&mut [MaybeUninit::uninit()]);
            return matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        }
        // What TLS says for itself, such as tickets, is read on the way.
        self.0.socket.borrow_mut().poll_read_some(&mut Context::from_waker(Waker::noop()), &mut [0]).is_pending()
    }

    /// The same as far as the runtime has heard, which costs nothing.
    pub(super) fn seems_quiet(&self) -> bool {
        let cx = &mut Context::from_waker(Waker::noop());
        let heard = self.0.socket.borrow().tcp().poll_read_ready(cx).is_ready();
        !heard || self.is_quiet()
    }
}

impl AsyncRead for Link {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.socket.borrow_mut()).poll_read(cx, buf)
    }
}

impl AsyncWrite for Link {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.socket.borrow_mut()).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flushed(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.socket.borrow_mut()).poll_shutdown(cx)
    }
}
