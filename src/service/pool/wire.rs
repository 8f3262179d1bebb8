//! The socket under an upstream connection, with what hyper cannot tell: whether a byte of a request was written, and
//! whether the endpoint has closed or said something unasked.

use crate::http::tls::Socket;
use socket2::SockRef;
use std::cell::{Cell, RefCell};
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// An upstream socket; hyper owns it.
#[derive(Debug)]
pub struct Wire(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    stream: RefCell<Socket>,
    written: Rc<Cell<u64>>,
}

/// A look at a socket that hyper owns.
#[derive(Debug, Clone)]
pub(crate) struct View {
    inner: Weak<Inner>,
    written: Rc<Cell<u64>>,
}

impl Wire {
    pub(crate) fn new(stream: Socket) -> (Self, View) {
        let written = Rc::<Cell<u64>>::default();
        let inner = Rc::new(Inner { stream: RefCell::new(stream), written: Rc::clone(&written) });
        let view = View { inner: Rc::downgrade(&inner), written };
        (Wire(inner), view)
    }

    fn stream<T>(&self, act: impl FnOnce(Pin<&mut Socket>) -> T) -> T {
        act(Pin::new(&mut self.0.stream.borrow_mut()))
    }

    fn wrote(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = polled {
            self.0.written.set(self.0.written.get() + bytes as u64);
        }
        polled
    }
}

impl View {
    /// Bytes of HTTP that were taken to be written so far.
    pub(crate) fn written(&self) -> u64 {
        self.written.get()
    }

    /// Nothing has come while nobody asked. An end means that the endpoint has closed; a byte would be taken for the
    /// next response, which it cannot be.
    pub(crate) fn is_quiet(&self) -> bool {
        let Some(inner) = self.inner.upgrade() else { return false };
        let stream = inner.stream.borrow();
        let peeked = SockRef::from(stream.tcp()).peek(&mut [MaybeUninit::uninit()]);
        matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream(|stream| stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.wrote(self.stream(|stream| stream.poll_write(cx, buf)))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.wrote(self.stream(|stream| stream.poll_write_vectored(cx, bufs)))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream(|stream| stream.poll_shutdown(cx))
    }
}
