//! From a fresh connection to the first bytes of HTTP: who it is really from, TLS, and which HTTP it speaks.

use super::linger::Linger;
use crate::base::time::Alarm;
use crate::http::error::Error;
use crate::http::h1::scratch::Scratch;
use crate::http::malformed::Malformed;
use crate::http::tls::Socket;
use crate::http::tls::problem::in_words;
use crate::http::tls::server::Acceptor;
use ppp::{HeaderResult, v1, v2};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What an HTTP/2 client says first (RFC 9113 §3.4).
pub(crate) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How a header of the PROXY protocol's version 2 begins, and how long it is before its addresses.
const PROXY_V2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const PROXY_V2_BYTES: usize = 16;
/// What is read at most after these; addresses of sockets and a few words about TLS are less.
const PROXY_V2_MORE: usize = 4096;
/// The shortest and the longest header of version 1.
const PROXY_V1_BYTES: (usize, usize) = (b"PROXY UNKNOWN\r\n".len(), 107);
/// How long a refused client is listened to.
const LINGER: Duration = Duration::from_millis(500);

/// What comes before HTTP on a listener's connections.
#[derive(Debug, Clone, Default)]
pub struct Opening {
    /// A header of the PROXY protocol, which says for whom a load balancer connects.
    pub proxy_protocol: bool,
    /// TLS.
    pub tls: Option<Acceptor>,
}

/// A connection on which HTTP has begun.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) socket: Socket,
    /// Its first bytes; none: it ended before.
    pub(crate) seen: Vec<u8>,
    pub(crate) http2: bool,
    /// From whom it is.
    pub(crate) peer: SocketAddr,
}

/// Why HTTP never began.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unopened {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("{}", .0.reason())]
    Refused(Malformed),
    #[error("TLS handshake: {}", in_words(.0))]
    Handshake(#[source] io::Error),
    #[error("plain HTTP on a port of TLS")]
    Plain,
    #[error("not HTTP/2, on which it had agreed")]
    Preface,
}

impl Opening {
    /// Must be given a time: it waits for the client.
    pub(crate) async fn open(
        &self,
        mut stream: TcpStream,
        peer: SocketAddr,
        scratch: &Scratch,
    ) -> Result<Opened, Unopened> {
        let peer = if self.proxy_protocol { proxied(&mut stream).await?.unwrap_or(peer) } else { peer };
        let mut socket = match &self.tls {
            None => Socket::Plain(stream),
            Some(tls) => {
                let mut first = [0];
                let said = stream.peek(&mut first).await?;
                // A load balancer that looks whether somebody listens says nothing: no handshake has failed.
                if said == 0 {
                    return Ok(Opened { socket: Socket::Plain(stream), seen: Vec::new(), http2: false, peer });
                }
                if first[0].is_ascii_uppercase() {
                    return refuse_plain(stream).await;
                }
                tls.accept(stream).await.map_err(Unopened::Handshake)?
            }
        };
        let mut seen = Vec::new();
        while PREFACE.starts_with(&seen) && seen.len() < PREFACE.len() {
            let read = poll_fn(|cx| {
                scratch.read(
                    |into| socket.poll_read_some(cx, into),
                    |new| {
                        seen.extend_from_slice(new);
                        new.len()
                    },
                )
            });
            if read.await? == 0 {
                break;
            }
        }
        let preface = seen.starts_with(PREFACE);
        let http2 = match socket.agreed() {
            // RFC 9113 §3.4: whoever has agreed on HTTP/2 must begin so.
            Some(b"h2") if !preface && !seen.is_empty() => {
                close(socket).await;
                return Err(Unopened::Preface);
            }
            Some(protocol) => protocol == b"h2",
            None => preface,
        };
        Ok(Opened { socket, seen, http2, peer })
    }
}

/// For whom a load balancer connects, by its header (haproxy's `proxy-protocol.txt`), of which not a byte too many is
/// read. None: for itself.
async fn proxied(stream: &mut TcpStream) -> Result<Option<SocketAddr>, Unopened> {
    let (shortest, longest) = PROXY_V1_BYTES;
    let mut header = vec![0; shortest];
    stream.read_exact(&mut header).await?;
    if header.starts_with(PROXY_V2) {
        header.resize(PROXY_V2_BYTES, 0);
        stream.read_exact(&mut header[shortest..]).await?;
        let more = usize::from(u16::from_be_bytes([header[14], header[15]]));
        if more > PROXY_V2_MORE {
            return Err(Unopened::Refused(Malformed::ProxyHeader));
        }
        header.resize(PROXY_V2_BYTES + more, 0);
        stream.read_exact(&mut header[PROXY_V2_BYTES..]).await?;
    } else {
        while header.starts_with(b"PROXY ") && !header.ends_with(b"\n") && header.len() < longest {
            header.push(stream.read_u8().await?);
        }
    }
    match HeaderResult::parse(&header) {
        HeaderResult::V1(Ok(header)) => Ok(match header.addresses {
            v1::Addresses::Unknown => None,
            v1::Addresses::Tcp4(from) => Some((from.source_address, from.source_port).into()),
            v1::Addresses::Tcp6(from) => Some((from.source_address, from.source_port).into()),
        }),
        HeaderResult::V2(Ok(header)) => Ok(match (header.command, header.addresses) {
            (v2::Command::Local, _) | (_, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => None,
            (_, v2::Addresses::IPv4(from)) => Some((from.source_address, from.source_port).into()),
            (_, v2::Addresses::IPv6(from)) => Some((from.source_address, from.source_port).into()),
        }),
        _ => Err(Unopened::Refused(Malformed::ProxyHeader)),
    }
}

/// No handshake begins with a letter, but every request does: whoever sends one to a port of TLS is told so.
async fn refuse_plain(mut stream: TcpStream) -> Result<Opened, Unopened> {
    stream.write_all(Error::PlainHttp.closing_answer().as_bytes()).await?;
    close(Socket::Plain(stream)).await;
    Err(Unopened::Plain)
}

/// Ends a connection so that its client sees what it was told.
async fn close(mut socket: Socket) {
    let (mut linger, mut alarm) = (Linger::new(LINGER), Alarm::default());
    poll_fn(|cx| linger.poll(cx, &mut socket, &mut alarm)).await;
}
