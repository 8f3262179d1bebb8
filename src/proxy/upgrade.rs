//! What comes after a 101: the client and the endpoint speak a protocol that the gateway does not look into, such as
//! WebSocket. Bytes pass both ways until both sides have said all, nothing was said for too long, or the drain's time
//! for them is over.

use super::exchange::Exchange;
use super::upstream::download;
use crate::http::downstream::clock::{self, Duplex};
use crate::http::settings::Gateway;
use crate::service::InFlight;
use crate::service::record::End;
use bytes::{Buf, Bytes};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// An exchange that goes on as a tunnel.
#[derive(Debug)]
pub struct Tunnel {
    /// It finishes with the tunnel.
    pub exchange: Box<Exchange>,
    /// Counts it at its endpoint.
    pub in_flight: InFlight,
    /// The way to the endpoint.
    pub endpoint: FarSide,
    /// Its times.
    pub gateway: Arc<Gateway>,
}

/// Where a tunnel leads to.
#[derive(Debug)]
pub enum FarSide {
    /// A whole connection.
    Http1(download::Http1),
    /// A stream of one.
    Http2(OnUpgrade),
}

impl FarSide {
    /// What carries the bytes, and what was read of them already. None: it has closed instead.
    async fn switched(self) -> Option<(Box<dyn Duplex>, Bytes)> {
        match self {
            FarSide::Http1(body) => {
                let (link, read) = body.into_tunnel()?;
                Some((Box::new(link), read))
            }
            FarSide::Http2(stream) => Some((Box::new(TokioIo::new(stream.await.ok()?)), Bytes::new())),
        }
    }
}

/// Begins a tunnel: on its stream of an HTTP/2 connection, else where the client's connection is handed over.
pub fn begin(tunnel: Tunnel, stream: Option<OnUpgrade>) {
    match stream {
        None => {
            let connection = tunnel.exchange.active.handle();
            connection.switch(clock::Tunnel::new(|io, read| tunnel.run(io, read)));
        }
        Some(stream) => {
            tokio::task::spawn_local(async move {
                if let Ok(upgraded) = stream.await {
                    tunnel.run(TokioIo::new(upgraded), Bytes::new()).await;
                }
            });
        }
    }
}

impl Tunnel {
    /// Carries bytes between the client and the endpoint; `read` is what the client had said before the 101.
    pub async fn run(self, client: impl AsyncRead + AsyncWrite + Unpin, read: Bytes) {
        let Tunnel { mut exchange, in_flight, endpoint, gateway } = self;
        let Some((io, early)) = endpoint.switched().await else {
            exchange.record.end = End::UpstreamBroke;
            return;
        };
        let (up, down) = (Cell::new(0), Cell::new(0));
        let mut client = Side { io: client, read, bytes: &up };
        let mut endpoint = Side { io, read: early, bytes: &down };
        let mut drain = exchange.worker.shared.drain.subscribe();
        let copying = tokio::io::copy_bidirectional(&mut client, &mut endpoint);
        let quiet = async {
            let moved = || up.get() + down.get();
            let mut before = None;
            while before != Some(moved()) {
                before = Some(moved());
                tokio::time::sleep(gateway.upgrade_idle_timeout).await;
            }
        };
        let drained = async {
            let _ = drain.wait_for(|draining| *draining).await;
            tokio::time::sleep(gateway.upgrade_drain_timeout).await;
        };
        let end = tokio::select! {
            copied = copying => if copied.is_ok() { End::Complete } else { End::ClientGone },
            () = quiet => End::TimedOut,
            () = drained => End::TimedOut,
        };
        exchange.record.end = end;
        exchange.record.request_bytes = up.get();
        exchange.record.response_bytes = down.get();
        drop(in_flight);
    }
}

/// One side of a tunnel: what was read of it already comes first, and what is read is counted.
struct Side<'a, T> {
    io: T,
    read: Bytes,
    bytes: &'a Cell<u64>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Side<'_, T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if self.read.is_empty() {
            std::task::ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        } else {
            let take = self.read.len().min(buf.remaining());
            buf.put_slice(&self.read[..take]);
            self.read.advance(take);
        }
        self.bytes.set(self.bytes.get() + (buf.filled().len() - before) as u64);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Side<'_, T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
