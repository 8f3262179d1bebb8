//! The gateway put together: sockets, workers, control, admin, and the order in which they start and end.

mod descriptors;
mod signals;
mod sockets;
mod thread;

use crate::admin::token::Token;
use crate::admin::{self, Admin};
use crate::control;
use crate::control::config::Config;
use crate::discovery::shelf::Mirror;
use crate::http::downstream::opening::Opening;
use crate::http::downstream::spread::{Fresh, Spread};
use crate::http::settings::Gateway;
use crate::http::tls::server::Acceptor;
use crate::proxy::worker::Shared;
use crate::service::balance::Memory;
use crate::snapshot::vitals::{Phase, Vitals};
use crate::snapshot::{self, Publisher};
use crate::telemetry::Telemetry;
use anyhow::{Context, anyhow, bail};
use signals::Signals;
use sockets::Group;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::{oneshot, watch};

/// Where a listener is, and whether it speaks TLS.
pub type Listening = (SocketAddr, bool);

/// Runs the gateway until a signal ends it and the drain is over; `mirror`: where its configuration is copied from. Once it serves, `ready` is given the addresses of
/// the listeners, in config order, and of the admin.
///
/// # Errors
/// A socket is taken, a source's settings cannot be used, a thread cannot be started, or a part of the gateway has ended
/// that must not.
pub fn run(config: Config, mirror: Option<Mirror>, ready: impl FnOnce(&[Listening], SocketAddr)) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let signals = {
        let _entered = runtime.enter();
        Signals::catch()?
    };
    descriptors::take(&config.gateway);
    let (publisher, snapshot) = snapshot::channel();
    let (spread, fresh) = Spread::new(config.gateway.workers);
    let shared = Arc::new(Shared {
        snapshot,
        spread: Arc::new(spread),
        clients: Arc::default(),
        drain: watch::Sender::new(false),
        sticky: Arc::new(Memory::default()),
        telemetry: Arc::new(Telemetry::start(&config.telemetry)?),
        vitals: Arc::new(Vitals::default()),
    });
    let following = runtime.spawn(async {
        match mirror {
            Some(mirror) => mirror.follow().await,
            None => std::future::pending().await,
        }
    });
    let ended = runtime.block_on(serve(config, publisher, &shared, fresh, following, signals, ready));
    // Nothing waits for what control still has in hand.
    runtime.shutdown_background();
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

/// From the first socket to the last response.
async fn serve(
    config: Config,
    publisher: Publisher,
    shared: &Arc<Shared>,
    fresh: Vec<UnboundedReceiver<Fresh>>,
    mut following: tokio::task::JoinHandle<()>,
    mut signals: Signals,
    ready: impl FnOnce(&[Listening], SocketAddr),
) -> anyhow::Result<()> {
    let gateway = config.gateway.clone();
    let listeners = bind(&gateway)?;
    let admin = start_admin(&gateway, shared)?;
    listeners.iter().filter_map(|(_, opening)| opening.tls.as_ref()).for_each(Acceptor::watch);
    let mut control = tokio::select! {
        started = control::start(config, publisher, Arc::clone(&shared.vitals)) => started?,
        () = signals.end() => return Ok(()),
    };
    let addresses: Vec<Listening> =
        listeners.iter().map(|(group, opening)| (group.address, opening.tls.is_some())).collect();
    let mut workers = Workers::start(listeners, fresh, shared)?;
    workers.begun().await?;
    shared.vitals.enter(Phase::Serving);
    ready(&addresses, admin);
    let lost = tokio::select! {
        () = signals.end() => None,
        ended = &mut control => Some(format!("control has ended{}", ended.err().map_or(String::new(), |e| format!(": {e}")))),
        _ = &mut following => Some("the copy of the configuration's shelf has ended".to_owned()),
        lost = workers.ended.recv() => Some(lost.unwrap_or_else(|| "the workers have ended".to_owned())),
    };
    if let Some(problem) = &lost {
        tracing::error!(problem, "the gateway cannot go on; draining");
    }
    tokio::select! {
        drained = drain(shared, workers) => drained?,
        () = signals.end() => bail!("told again to end while draining"),
    }
    lost.map_or(Ok(()), |problem| Err(anyhow!(problem)))
}

/// Takes the listeners' addresses, and reads their certificates.
fn bind(gateway: &Gateway) -> anyhow::Result<Vec<(Group, Opening)>> {
    let one = |listen: &crate::http::settings::Listen| {
        let group = Group::bind(listen.address, gateway.workers)?;
        let tls = listen.tls.as_ref().map(Acceptor::new).transpose();
        let tls = tls.map_err(|problem| anyhow!("gateway.listen: {}: {problem}", listen.address))?;
        Ok((group, Opening { proxy_protocol: listen.proxy_protocol, tls }))
    };
    gateway.listen.iter().map(one).collect()
}

/// The admin is there before anything else is, to say how that goes.
fn start_admin(gateway: &Gateway, shared: &Shared) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(gateway.admin);
    let listener = listener.with_context(|| format!("gateway.admin: cannot listen on {}", gateway.admin))?;
    let address = listener.local_addr()?;
    let admin = Admin {
        snapshot: shared.snapshot.clone(),
        vitals: Arc::clone(&shared.vitals),
        telemetry: Arc::clone(&shared.telemetry),
        spread: Arc::clone(&shared.spread),
        hosts: gateway.admin_hosts.clone().into(),
        token: Arc::new(Token::open(&gateway.state_directory)),
    };
    admin::serve(listener, admin)?;
    Ok(address)
}

/// The threads that carry traffic.
struct Workers {
    threads: Vec<JoinHandle<()>>,
    /// Each has begun to accept.
    begun: Vec<oneshot::Receiver<()>>,
    /// A worker has ended, and why.
    ended: UnboundedReceiver<String>,
}

impl Workers {
    /// Lets the listeners listen, and starts the threads that accept.
    fn start(
        listeners: Vec<(Group, Opening)>,
        fresh: Vec<UnboundedReceiver<Fresh>>,
        shared: &Arc<Shared>,
    ) -> anyhow::Result<Self> {
        let mut sockets: Vec<Vec<(TcpListener, Opening)>> = fresh.iter().map(|_| Vec::new()).collect();
        for (group, opening) in listeners {
            for (worker, socket) in sockets.iter_mut().zip(group.listen()?) {
                worker.push((socket, opening.clone()));
            }
        }
        let (tell, ended) = unbounded_channel();
        let (mut threads, mut begun) = (Vec::new(), Vec::new());
        for (index, (sockets, fresh)) in sockets.into_iter().zip(fresh).enumerate() {
            let (shared, tell) = (Arc::clone(shared), tell.clone());
            let (begins, begin) = oneshot::channel();
            begun.push(begin);
            let work = move || {
                let worked = std::panic::AssertUnwindSafe(|| thread::run(index, shared, sockets, fresh, begins));
                let problem = match std::panic::catch_unwind(worked) {
                    Ok(Ok(())) => format!("worker {index} has ended"),
                    Ok(Err(error)) => format!("worker {index}: {error:#}"),
                    Err(_) => format!("worker {index} panicked"),
                };
                // Nobody listens any more once the drain began.
                let _ = tell.send(problem);
            };
            threads.push(std::thread::Builder::new().name(format!("worker-{index}")).spawn(work)?);
        }
        Ok(Workers { threads, begun, ended })
    }

    /// Waits until all of them accept.
    async fn begun(&mut self) -> anyhow::Result<()> {
        for begun in std::mem::take(&mut self.begun) {
            if begun.await.is_err() {
                bail!(self.ended.recv().await.unwrap_or_else(|| "a worker has not begun".to_owned()));
            }
        }
        Ok(())
    }
}

/// Clients are asked to go, then nothing more is accepted, then what is in flight ends.
async fn drain(shared: &Shared, workers: Workers) -> anyhow::Result<()> {
    let delay = shared.snapshot.load().gateway.drain_delay;
    if !delay.is_zero() {
        tracing::info!(?delay, "leaving: not ready any more, and still accepting");
        shared.vitals.enter(Phase::Leaving);
        tokio::time::sleep(delay).await;
    }
    tracing::info!("draining");
    shared.vitals.enter(Phase::Draining);
    shared.drain.send_replace(true);
    let join = move || workers.threads.into_iter().try_for_each(JoinHandle::join);
    let joined = tokio::task::spawn_blocking(join).await?;
    joined.map_err(|_| anyhow!("a worker panicked"))
}
