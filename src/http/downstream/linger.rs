//! The end of a connection whose client may still be sending.

use crate::base::time::Alarm;
use crate::http::tls::Socket;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// For how many bytes a refused client is listened to.
const BYTES: usize = 1 << 20;

/// It was answered; what still comes is thrown away, since closing a socket with unread bytes would reset it, and the
/// client might never see the answer.
#[derive(Debug)]
pub(crate) struct Linger {
    until: Instant,
    bytes: usize,
    /// The answer and its end are on their way.
    closed: bool,
}

impl Linger {
    /// A refused client is listened to for so long.
    pub(crate) fn new(within: Duration) -> Self {
        Linger { until: Instant::now() + within, bytes: BYTES, closed: false }
    }

    /// When it has had its time.
    pub(crate) fn until(&self) -> Instant {
        self.until
    }

    /// Ready when the client has said all, or too much, or has had its time.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, stream: &mut Socket, alarm: &mut Alarm) -> Poll<()> {
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
