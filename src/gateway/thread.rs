//! A worker's thread: its runtime, its listeners, its tidying, its part of the drain.

use crate::base::chance::Chance;
use crate::base::seldom::Seldom;
use crate::base::time::Calendar;
use crate::http::downstream::opening::Opening;
use crate::http::downstream::spread::Fresh;
use crate::http::downstream::untaken::Untaken;
use crate::proxy::listener;
use crate::proxy::shedding::{Shedding, TICK};
use crate::proxy::worker::{Numbers, Shared, Worker};
use crate::service::balance::Balancer;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;

/// Runs a worker on this thread until the drain is over; tells when it has `begun` to accept.
///
/// # Errors
/// The runtime or a socket cannot be set up.
pub(super) fn run(
    index: usize,
    shared: Arc<Shared>,
    sockets: Vec<(std::net::TcpListener, Opening)>,
    fresh: UnboundedReceiver<Fresh>,
    begun: oneshot::Sender<()>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())?;
    runtime.block_on(async move {
        let mut chance = Chance::seeded();
        let worker = Rc::new(Worker {
            index,
            pools: Rc::default(),
            balancer: RefCell::new(Balancer::new(chance.next_u64(), Arc::clone(&shared.sticky))),
            numbers: Numbers::new(shared.telemetry.recording().seed(index)),
            chance: RefCell::new(chance),
            calendar: Cell::default(),
            untaken: Untaken::default(),
            shedding: Shedding::default(),
            date: RefCell::default(),
            recorder: shared.telemetry.recorder(index),
            shared,
        });
        // Before the first request: until then nothing may be kept.
        tidy(&worker);
        let mut accepting = Vec::new();
        for (socket, opening) in sockets {
            socket.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(socket)?;
            accepting.push(tokio::task::spawn_local(listener::accept(Rc::clone(&worker), listener, opening)));
        }
        tokio::task::spawn_local(listener::receive(Rc::clone(&worker), fresh));
        tokio::task::spawn_local(tidy_each_second(Rc::clone(&worker)));
        tokio::task::spawn_local(tick(Rc::clone(&worker)));
        // Whoever waits for it may have given up.
        let _ = begun.send(());
        let mut drain = worker.shared.drain.subscribe();
        // An error: the gateway is gone, which ends the worker as well.
        let _ = drain.wait_for(|draining| *draining).await;
        for accepts in accepting {
            // It ends by itself now; that it panicked would show in the log.
            let _ = accepts.await;
        }
        let deadline = tokio::time::Instant::now() + worker.shared.snapshot.load().gateway.drain_timeout;
        while worker.shared.spread.open() > 0 {
            let tick = Duration::from_millis(10);
            if tokio::time::Instant::now() + tick > deadline {
                tracing::warn!("the drain's time is over; cutting off what is in flight");
                break;
            }
            tokio::time::sleep(tick).await;
        }
        Ok(())
    })
}

/// Looks at the calendar, takes over the bounds on idle connections, and closes those that are too old or whose endpoint is
/// gone.
fn tidy(worker: &Worker) {
    let calendar = Calendar::look();
    worker.calendar.set(calendar);
    worker.date.replace(httpdate::fmt_http_date(calendar.at(Instant::now())));
    let snapshot = worker.shared.snapshot.load();
    if let Some(then) = Instant::now().checked_sub(snapshot.gateway.stall_timeout) {
        worker.untaken.let_go(then);
    }
    worker.pools.max_idle.set(snapshot.gateway.idle_upstream_connections.div_ceil(snapshot.gateway.workers));
    worker.pools.idle_timeout.set(snapshot.gateway.upstream_idle_timeout);
    worker.pools.lifetime.set(snapshot.gateway.upstream_lifetime);
    worker.pools.keepalive.set(snapshot.gateway.upstream_keepalive);
    worker.pools.max_head.set(snapshot.gateway.max_response_head_bytes);
    worker.pools.tidy(|id| snapshot.catalog.endpoint(id).is_some());
    worker.balancer.borrow_mut().retain(|service| snapshot.service(service).is_some());
    worker.recorder.tidy(&snapshot);
}

async fn tidy_each_second(worker: Rc<Worker>) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        tidy(&worker);
    }
}

/// Sees how late the worker gets to what is due. Where that does not matter, it looks seldom, so that a worker with nothing
/// to do sleeps.
async fn tick(worker: Rc<Worker>) {
    static SAID: Seldom = Seldom::each(Duration::from_secs(10));
    loop {
        let tolerated = worker.shared.snapshot.load().gateway.shed_when_late;
        let due = Instant::now() + if tolerated.is_zero() { Duration::from_secs(1) } else { TICK };
        tokio::time::sleep_until(due.into()).await;
        worker.shedding.ticked(due, Instant::now(), tolerated);
        let permille = worker.shedding.permille();
        if permille > 0
            && let Some(left_out) = SAID.may()
        {
            tracing::warn!(
                left_out,
                worker = worker.index,
                permille,
                "too much to do: a part of the requests is refused"
            );
        }
    }
}
