//! The gateway put together: sockets, workers, control, and the order in which they start and end.

use crate::control::config::Config;
use crate::http::downstream::clients::Clients;
use crate::http::downstream::opening::Opening;
use crate::http::downstream::spread::{Fresh, Spread};
use crate::http::tls::server::Acceptor;
use crate::service::balance::Memory;
use crate::snapshot::Snapshot;
use crate::telemetry::Telemetry;
use anyhow::Context;
use arc_swap::ArcSwap;
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;

/// What all workers see.
#[derive(Debug)]
pub struct Shared {
    /// The world; control alone publishes here.
    pub snapshot: ArcSwap<Snapshot>,
    /// Downstream connections of each worker.
    pub spread: Spread,
    /// And of each client.
    pub clients: Clients,
    /// True once the drain began.
    pub drain: watch::Sender<bool>,
    /// What the sticky strategy remembers.
    pub sticky: Arc<Memory>,
    /// What all workers tell.
    pub telemetry: Telemetry,
}

/// Connections that the kernel holds for a worker that is busy.
const BACKLOG: i32 = 4096;

/// Where a listener is, and whether it speaks TLS.
pub type Listening = (SocketAddr, bool);

/// Runs the gateway until a signal ends it and the drain is over. Once it serves, `ready` is given the addresses of
/// the listeners, in config order, and of the admin.
///
/// # Errors
/// A socket is taken, a source's settings cannot be used, a thread cannot be started.
pub fn run(config: Config, ready: impl FnOnce(&[Listening], SocketAddr)) -> anyhow::Result<()> {
    let (spread, fresh) = Spread::new(config.gateway.workers);
    let shared = Arc::new(Shared {
        snapshot: ArcSwap::from_pointee(Snapshot::default()),
        spread,
        clients: Clients::default(),
        drain: watch::Sender::new(false),
        sticky: Arc::new(Memory::default()),
        telemetry: Telemetry::start(&config.telemetry)?,
    });
    let ended = serve(config, &shared, fresh, ready);
    // The workers' last lines and spans are told.
    shared.telemetry.stop();
    ended
}

/// The one line that scripts wait for.
pub fn ready_line(listeners: &[Listening], admin: SocketAddr) -> String {
    let url = |(address, tls): &Listening| format!("{}://{address}", if *tls { "https" } else { "http" });
    let urls: Vec<String> = listeners.iter().map(url).collect();
    format!("ready {} admin http://{admin}", urls.join(" "))
}

fn serve(
    config: Config,
    shared: &Arc<Shared>,
    fresh: Vec<UnboundedReceiver<Fresh>>,
    ready: impl FnOnce(&[Listening], SocketAddr),
) -> anyhow::Result<()> {
    let workers = config.gateway.workers;
    let mut addresses = Vec::new();
    let mut sockets: Vec<Vec<(TcpListener, Opening)>> = (0..workers).map(|_| Vec::new()).collect();
    let mut acceptors = Vec::new();
    for listen in &config.gateway.listen {
        let (address, group) = bind(listen.address, workers)?;
        let tls = listen.tls.as_ref().map(Acceptor::new).transpose();
        let tls = tls.map_err(|problem| anyhow::anyhow!("gateway.listen: {}: {problem}", listen.address))?;
        addresses.push((address, tls.is_some()));
        for (worker, socket) in sockets.iter_mut().zip(group) {
            worker.push((socket, Opening { proxy_protocol: listen.proxy_protocol, tls: tls.clone() }));
        }
        acceptors.extend(tls);
    }
    let shared = Arc::clone(shared);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let ended = runtime.block_on(async move {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        acceptors.iter().for_each(Acceptor::watch);
        let admin = crate::control::start(config, Arc::clone(&shared)).await?;
        let threads: Vec<_> = sockets
            .into_iter()
            .zip(fresh)
            .enumerate()
            .map(|(index, (sockets, fresh))| {
                let shared = Arc::clone(&shared);
                let work = move || crate::proxy::worker::run(index, shared, sockets, fresh);
                std::thread::Builder::new().name(format!("worker-{index}")).spawn(work)
            })
            .collect::<std::io::Result<_>>()?;
        ready(&addresses, admin);
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("draining");
        shared.drain.send_replace(true);
        let joined =
            tokio::task::spawn_blocking(move || threads.into_iter().map(std::thread::JoinHandle::join).collect());
        let ended: Vec<_> = tokio::select! {
            ended = joined => ended?,
            _ = interrupt.recv() => anyhow::bail!("interrupted again while draining"),
            _ = terminate.recv() => anyhow::bail!("told again to end while draining"),
        };
        for worker in ended {
            worker.map_err(|_| anyhow::anyhow!("a worker panicked"))??;
        }
        Ok(())
    });
    // A second interrupt waits for no worker.
    runtime.shutdown_background();
    ended
}

/// One socket a worker on the same port. Bound once without sharing first, so that a second gateway on the port fails.
fn bind(address: SocketAddr, workers: usize) -> anyhow::Result<(SocketAddr, Vec<TcpListener>)> {
    let failed = || format!("gateway.listen: cannot listen on {address}");
    let probe = TcpListener::bind(address).with_context(failed)?;
    let address = probe.local_addr()?;
    drop(probe);
    let one = || -> std::io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    let group = (0..workers).map(|_| one()).collect::<std::io::Result<_>>().with_context(failed)?;
    Ok((address, group))
}
