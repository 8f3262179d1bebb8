//! Accepting clients, finding out what they speak, and handing their requests to the proxy.

use crate::base::seldom::Seldom;
use crate::http::downstream::clients::{Clients, Share};
use crate::http::downstream::clock::Clock;
use crate::http::downstream::http1::Client;
use crate::http::downstream::opening::{Opened, Opening, Unopened};
use crate::http::downstream::spread::{Fresh, Open};
use crate::http::downstream::timed::Timed;
use crate::http::request::Peer;
use crate::http::request::client;
use crate::http::settings::Gateway;
use crate::http::tls::Socket;
use crate::http::tls::problem::in_words;
use crate::http::tls::server::subject;
use crate::proxy::http1::{self, Served};
use crate::proxy::http2;
use crate::proxy::worker::Worker;
use crate::telemetry::Counter;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::UnboundedReceiver;

/// How long a connection that has said nothing yet is listened to once the drain began: its request may be on its way.
const GRACE: Duration = Duration::from_millis(500);
/// Connections that are accepted at most once the drain began.
const QUEUED: usize = 4096;
/// How often a client's place is looked for, and what is between two looks.
const LOOKS: u32 = 10;
const LOOK: Duration = Duration::from_millis(20);
/// What is wrong with connections is told once in this time; numbers tell the rest.
const COMPLAINT: Duration = Duration::from_secs(1);

/// Accepts until the drain begins, and then what is queued. An accept error never ends it.
pub async fn accept(worker: Rc<Worker>, listener: TcpListener, opening: Opening) {
    let mut drain = worker.shared.drain.subscribe();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = drain.wait_for(|draining| *draining) => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => admit(&worker, stream, peer, &opening),
            Err(error) => {
                // EMFILE and friends pass when connections end; spinning would not help them.
                static SAID: Seldom = Seldom::each(Duration::from_secs(10));
                if let Some(left_out) = SAID.may() {
                    tracing::warn!(%error, left_out, "cannot accept");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    // To their clients, these are established: closing the socket would reset them.
    for _ in 0..QUEUED {
        let queued = poll_fn(|cx| Poll::Ready(listener.poll_accept(cx))).await;
        let Poll::Ready(Ok((stream, peer))) = queued else { return };
        admit(&worker, stream, peer, &opening);
    }
}

/// Serves a connection or hands it to another worker, unless too many are open.
fn admit(worker: &Rc<Worker>, stream: TcpStream, peer: SocketAddr, opening: &Opening) {
    let shared = &worker.shared;
    let limits = shared.snapshot.load().gateway.clone();
    if shared.spread.open() >= limits.max_connections {
        return turn_away(worker, peer, "gateway.max_connections");
    }
    let server = shared.spread.server(worker.index);
    // Before the drain is asked for: a worker that drains stays while anything is open.
    let open = Open::enter(&shared.spread, server);
    if server == worker.index || *shared.drain.borrow() {
        return spawn(worker, (stream, opening.clone()), peer, limits, open);
    }
    let stream = match stream.into_std() {
        Ok(stream) => stream,
        Err(error) => return tracing::debug!(%peer, %error, "cannot be handed over"),
    };
    if let Some(fresh) = shared.spread.hand_over(Fresh { stream, peer, opening: opening.clone(), open }) {
        take_over(worker, fresh);
    }
}

/// A connection is closed at once, since as many as `key` allows are open.
fn turn_away(worker: &Worker, peer: SocketAddr, key: &str) {
    worker.recorder.count(Counter::TurnedAway);
    static SAID: Seldom = Seldom::each(COMPLAINT);
    if let Some(left_out) = SAID.may() {
        tracing::warn!(%peer, left_out, "closed: as many connections as {key} allows are open");
    }
}

/// Serves what other workers hand over.
pub async fn receive(worker: Rc<Worker>, mut fresh: UnboundedReceiver<Fresh>) {
    while let Some(fresh) = fresh.recv().await {
        take_over(&worker, fresh);
    }
}

fn take_over(worker: &Rc<Worker>, fresh: Fresh) {
    let Fresh { stream, peer, opening, open } = fresh;
    let limits = worker.shared.snapshot.load().gateway.clone();
    match TcpStream::from_std(stream) {
        Ok(stream) => spawn(worker, (stream, opening), peer, limits, open),
        Err(error) => tracing::debug!(%peer, %error, "cannot be taken over"),
    }
}

type Accepted = (TcpStream, Opening);

fn spawn(worker: &Rc<Worker>, accepted: Accepted, peer: SocketAddr, limits: Arc<Gateway>, open: Open) {
    let worker = Rc::clone(worker);
    tokio::task::spawn_local(async move {
        if let Err(error) = serve(worker, accepted, peer, limits).await {
            tracing::debug!(%peer, error, "connection ended");
        }
        drop(open);
    });
}

async fn serve(
    worker: Rc<Worker>,
    (stream, opening): Accepted,
    peer: SocketAddr,
    limits: Arc<Gateway>,
) -> Result<(), String> {
    // Nagle's algorithm would hold back the end of each response by up to 40 ms.
    let _ = stream.set_nodelay(true);
    let mut drain = worker.shared.drain.subscribe();
    let began = Instant::now();
    let leaving = async {
        drop(drain.wait_for(|draining| *draining).await);
        tokio::time::sleep(GRACE).await;
    };
    let opened = tokio::select! {
        opened = tokio::time::timeout(limits.head_timeout, opening.open(stream, peer, &worker.pools.scratch)) => opened,
        () = leaving => return Ok(()),
    };
    let opened = opened.map_err(|_| "no request in time")?;
    match &opened {
        Err(Unopened::Refused(bad)) => worker.recorder.refused(*bad),
        Err(Unopened::Handshake(error)) => {
            worker.recorder.count(Counter::HandshakeFailed);
            static SAID: Seldom = Seldom::each(COMPLAINT);
            if let Some(left_out) = SAID.may() {
                tracing::info!(%peer, error = in_words(error), left_out, "TLS handshake failed");
            }
        }
        _ => {}
    }
    let Opened { socket, seen, http2, peer } = opened.map_err(|error| error.to_string())?;
    if seen.is_empty() {
        return Ok(());
    }
    let shared = &worker.shared;
    let peer = match &socket {
        Socket::Plain(_) => Peer::new(peer),
        Socket::Tls(stream) => Peer::over_tls(peer, subject(stream)),
    };
    let address = peer.address;
    let is_proxy = client::is_trusted(&shared.snapshot.load().gateway.trusted_proxies, peer.ip);
    let most = if is_proxy { usize::MAX } else { limits.max_connections_per_client };
    let Some(_share) = place(&shared.clients, peer.ip, most).await else {
        turn_away(&worker, address, "gateway.max_connections_per_client");
        return Ok(());
    };
    let clock = Rc::new(Clock::new(&limits, http2, began));
    let ended = if http2 {
        http2::serve(&worker, Timed::new(socket, seen, Rc::clone(&clock)), &peer, &clock, &limits, drain).await
    } else {
        let client = Client::new(socket, &seen, Rc::clone(&worker.pools.scratch), Rc::clone(&clock));
        drop(seen);
        let (worker, clock) = (Rc::clone(&worker), Rc::clone(&clock));
        http1::serve(Served { worker, peer, client, clock, limits, began }, drain).await;
        Ok(())
    };
    match clock.refused() {
        Some(bad) => {
            worker.recorder.refused(bad);
            static SAID: Seldom = Seldom::each(COMPLAINT);
            if let Some(left_out) = SAID.may() {
                tracing::info!(peer = %address, kind = bad.name(), left_out, "refused: {}", bad.reason());
            }
            Err(format!("refused: {}", bad.name()))
        }
        None => ended.map_err(|error| error.to_string()),
    }
}

/// A place among the client's connections. One that it has just closed may be another worker's, which has not seen that
/// yet, so it is waited for a moment before the client is turned away.
async fn place(clients: &Arc<Clients>, ip: IpAddr, most: usize) -> Option<Share> {
    for _ in 0..LOOKS {
        if let Some(share) = Share::enter(clients, ip, most) {
            return Some(share);
        }
        tokio::time::sleep(LOOK).await;
    }
    Share::enter(clients, ip, most)
}
