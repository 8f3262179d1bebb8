//! A bound on answers: the crate takes as much into memory as a server announces.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// So much is read after a question, bytes, with what is pushed in between. In memory it may become twenty times as much.
pub(super) const MOST: usize = 16 << 20;

/// What was read since the last question.
#[derive(Debug, Clone, Default)]
pub(super) struct Meter(Arc<(AtomicUsize, AtomicBool)>);

impl Meter {
    /// A question is asked.
    pub(super) fn start(&self) {
        self.0.0.store(0, Relaxed);
    }

    /// The connection ended for its answer was too large.
    pub(super) fn is_over(&self) -> bool {
        self.0.1.load(Relaxed)
    }

    fn count(&self, bytes: usize) -> io::Result<()> {
        if self.0.0.fetch_add(bytes, Relaxed).saturating_add(bytes) > MOST {
            self.0.1.store(true, Relaxed);
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(())
    }
}

/// A connection that fails when too much is read.
#[derive(Debug)]
pub(super) struct Bounded<S> {
    pub(super) inner: S,
    pub(super) meter: Meter,
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        match Pin::new(&mut self.inner).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => Poll::Ready(self.meter.count(buf.filled().len().saturating_sub(before))),
            other => other,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn only_so_much_is_read_after_a_question() {
        let meter = Meter::default();
        let mut endless = Bounded { inner: tokio::io::repeat(7), meter: meter.clone() };
        let mut into = vec![0; MOST / 2 + 1];
        for _ in 0..3 {
            meter.start();
            assert!(endless.read_exact(&mut into).await.is_ok() && !meter.is_over());
        }
        assert!(endless.read_exact(&mut into).await.is_err() && meter.is_over());
    }
}
