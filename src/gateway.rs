//! The gateway put together: sockets, workers, control, admin, and the order in which they start and end.

mod sockets;
mod thread;

use crate::admin;
use crate::control;
use crate::control::config::Config;
use crate::http::downstream::opening::Opening;
use crate::http::downstream::spread::{Fresh, Spread};
use crate::http::tls::server::Acceptor;
use crate::proxy::worker::Shared;
use crate::service::balance::Memory;
use crate::snapshot::{self, Publisher};
use crate::telemetry::Telemetry;
use anyhow::Context;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;

/// Where a listener is, and whether it speaks TLS.
pub type Listening = (SocketAddr, bool);

/// Runs the gateway until a signal ends it and the drain is over. Once it serves, `ready` is given the addresses of
/// the listeners, in config order, and of the admin.
///
/// # Errors
/// A socket is taken, a source's settings cannot be used, a thread cannot be started.
pub fn run(config: Config, ready: impl FnOnce(&[Listening], SocketAddr)) -> anyhow::Result<()> {
    let (publisher, snapshot) = snapshot::channel();
    let (spread, fresh) = Spread::new(config.gateway.workers);
    let shared = Arc::new(Shared {
        snapshot,
        spread: Arc::new(spread),
        clients: Arc::default(),
        drain: watch::Sender::new(false),
        sticky: Arc::new(Memory::default()),
        telemetry: Telemetry::start(&config.telemetry)?,
    });
    let ended = serve(config, publisher, &shared, fresh, ready);
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
    publisher: Publisher,
    shared: &Arc<Shared>,
    fresh: Vec<UnboundedReceiver<Fresh>>,
    ready: impl FnOnce(&[Listening], SocketAddr),
) -> anyhow::Result<()> {
    let workers = config.gateway.workers;
    let mut addresses = Vec::new();
    let mut sockets: Vec<Vec<(TcpListener, Opening)>> = (0..workers).map(|_| Vec::new()).collect();
    let mut acceptors = Vec::new();
    for listen in &config.gateway.listen {
        let (address, group) = sockets::bind(listen.address, workers)?;
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
        let listener = tokio::net::TcpListener::bind(config.gateway.admin)
            .await
            .with_context(|| format!("gateway.admin: cannot listen on {}", config.gateway.admin))?;
        let admin = listener.local_addr()?;
        control::start(config, publisher).await?;
        tokio::spawn(admin::serve(listener, Arc::clone(&shared)));
        let threads: Vec<_> = sockets
            .into_iter()
            .zip(fresh)
            .enumerate()
            .map(|(index, (sockets, fresh))| {
                let shared = Arc::clone(&shared);
                let work = move || thread::run(index, shared, sockets, fresh);
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
