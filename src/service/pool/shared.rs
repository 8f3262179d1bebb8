//! HTTP/2 connections to one endpoint: one for all requests, and another where its streams run out.

use super::ConnectError;
use crate::base::local::LocalExec;
use crate::http::request::body::RequestBody;
use crate::http::tls::Socket;
use crate::http::tls::client::Connector;
use crate::service::admission::Open;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

/// Connections to one endpoint, however few streams each takes.
const MOST: usize = 16;

/// The connections to one endpoint.
#[derive(Debug, Default)]
pub(super) struct Connections {
    open: Vec<(Multiplexed, Option<Arc<Connector>>)>,
    connecting: Option<(Opening, Option<Arc<Connector>>)>,
}

/// Somebody is connecting; the result comes to all who wait.
pub(super) type Opening = watch::Receiver<Option<Result<Multiplexed, ConnectError>>>;

/// How a request comes to a connection.
pub(super) enum Way {
    Use(Multiplexed),
    /// For the one that is being opened.
    Wait(Opening),
    Open,
}

/// An HTTP/2 connection.
#[derive(Debug, Clone)]
pub struct Multiplexed {
    pub(crate) sender: http2::SendRequest<RequestBody>,
    pub(crate) opened: Instant,
    state: Rc<State>,
}

#[derive(Debug)]
struct State {
    /// Requests on it.
    streams: Cell<usize>,
    /// As many as the endpoint takes at once, as far as was looked.
    most: Cell<usize>,
    /// Its streams can be tunnels, the endpoint has said (RFC 8441 §3), as far as was looked.
    tunnels: Cell<bool>,
    /// Looks again.
    look: Notify,
    /// It takes no further request.
    leaving: Cell<bool>,
}

/// One request on a connection, until its response was read.
#[derive(Debug)]
pub struct Stream(Rc<State>);

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get().saturating_sub(1));
    }
}

impl Multiplexed {
    /// A request begins.
    pub fn enter(&self) -> Stream {
        self.state.streams.set(self.state.streams.get() + 1);
        Stream(Rc::clone(&self.state))
    }

    /// The endpoint lets no further request begin on it; those that it has seen go on.
    pub fn leave(&self) {
        self.state.leaving.set(true);
    }

    /// Its streams can be tunnels, as far as was looked; looks again.
    pub fn carries_tunnels(&self) -> bool {
        self.state.look.notify_one();
        self.state.tunnels.get()
    }

    fn is_usable(&self) -> bool {
        !self.state.leaving.get() && !self.sender.is_closed()
    }

    fn has_room(&self) -> bool {
        self.state.streams.get() < self.state.most.get()
    }
}

impl Connections {
    /// How the next request goes, opened on these terms.
    pub(super) fn way(&mut self, wanted: Option<&Arc<Connector>>) -> Way {
        self.open.retain(|(connection, _)| connection.is_usable());
        let fits = |tls: &Option<Arc<Connector>>| tls.as_ref() == wanted;
        let same = self.open.iter().filter(|(_, tls)| fits(tls)).map(|(connection, _)| connection);
        let (count, least) = (same.clone().count(), same.min_by_key(|connection| connection.state.streams.get()));
        match (least, &self.connecting) {
            (Some(least), _) if least.has_room() || count >= MOST => Way::Use(least.clone()),
            (_, Some((opening, tls))) if fits(tls) => Way::Wait(opening.clone()),
            _ => Way::Open,
        }
    }

    /// One is being opened.
    pub(super) fn opening(&mut self, opening: Opening, tls: Option<Arc<Connector>>) {
        self.connecting = Some((opening, tls));
    }

    /// It was, or could not be.
    pub(super) fn opened(&mut self, connection: Option<&Multiplexed>, tls: Option<Arc<Connector>>) {
        self.connecting = None;
        self.open.extend(connection.map(|connection| (connection.clone(), tls)));
    }

    /// The one with fewest requests that was opened on these terms.
    pub(super) fn least(&self, wanted: Option<&Arc<Connector>>) -> Option<&Multiplexed> {
        let same = self.open.iter().filter(|(_, tls)| tls.as_ref() == wanted).map(|(connection, _)| connection);
        same.min_by_key(|connection| connection.state.streams.get())
    }

    /// There is none, and none is being opened.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.connecting.is_none()
    }

    /// What is in flight on those that were opened before goes on; the next request opens another.
    pub(super) fn forget_before(&mut self, opened: Option<Instant>) {
        self.open
            .retain(|(connection, _)| connection.is_usable() && opened.is_none_or(|opened| connection.opened > opened));
    }
}

/// Begins HTTP/2 on a socket. `max_head`: bytes of a response's head. `keepalive`: where nothing has come for so long
/// while requests wait, the endpoint is asked for a sign of life, and has as long to give it; zero: never.
pub(super) async fn begin(
    address: std::net::SocketAddr,
    socket: Socket,
    max_head: usize,
    keepalive: Duration,
    open: Open,
) -> hyper::Result<Multiplexed> {
    let mut builder = http2::Builder::new(LocalExec);
    builder.timer(TokioTimer::new()).max_header_list_size(u32::try_from(max_head).unwrap_or(u32::MAX));
    if !keepalive.is_zero() {
        builder.keep_alive_interval(keepalive).keep_alive_timeout(keepalive);
    }
    let (sender, mut connection) = builder.handshake(TokioIo::new(socket)).await?;
    let state = Rc::new(State {
        streams: Cell::new(0),
        most: Cell::new(connection.current_max_send_streams()),
        tunnels: Cell::new(false),
        look: Notify::new(),
        leaving: Cell::new(false),
    });
    let told = Rc::clone(&state);
    tokio::task::spawn_local(async move {
        let ended = loop {
            // hyper reads the endpoint's settings on a task of its own, and tells nobody.
            told.tunnels.set(connection.is_extended_connect_protocol_enabled());
            told.most.set(connection.current_max_send_streams().max(1));
            let mut first = true;
            let driven = poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
                std::task::Poll::Ready(ended) => std::task::Poll::Ready(Some(ended)),
                // Woken by a request, most often.
                std::task::Poll::Pending if !first => std::task::Poll::Ready(None),
                std::task::Poll::Pending => {
                    first = false;
                    std::task::Poll::Pending
                }
            });
            let ended = tokio::select! {
                ended = driven => ended,
                () = told.look.notified() => None,
            };
            if let Some(ended) = ended {
                break ended;
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%address, %error, "upstream connection ended");
        }
        drop((connection, open));
    });
    Ok(Multiplexed { sender, opened: Instant::now(), state })
}
