//! Which worker serves a fresh connection. The kernel spreads connections over the workers' sockets by a hash, so by
//! chance one gets many more than another, and long-lived ones stay where they are. A worker that has well more than the
//! mean hands a fresh one to the worker that has the fewest.

use super::opening::Opening;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// How many connections each worker has, and the way to hand one over.
#[derive(Debug)]
pub struct Spread(Vec<Seat>);

/// One worker's, on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Seat {
    open: AtomicUsize,
    /// Bounded by `gateway.max_connections`, since each one in it counts as open.
    fresh: UnboundedSender<Fresh>,
}

/// A connection for a worker that did not accept it.
#[derive(Debug)]
pub struct Fresh {
    pub(crate) stream: TcpStream,
    pub(crate) peer: SocketAddr,
    pub(crate) opening: Opening,
    pub(crate) open: Open,
}

/// Counts one open connection of a worker for as long as it lives.
#[derive(Debug)]
pub(crate) struct Open {
    spread: Arc<Spread>,
    worker: usize,
}

impl Spread {
    /// For so many workers; where each gets what others hand it.
    pub fn new(workers: usize) -> (Self, Vec<UnboundedReceiver<Fresh>>) {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..workers).map(|_| unbounded_channel()).unzip();
        let seats = senders.into_iter().map(|fresh| Seat { open: AtomicUsize::new(0), fresh });
        (Spread(seats.collect()), receivers)
    }

    /// Downstream connections that are open, all workers together.
    pub fn open(&self) -> usize {
        self.0.iter().map(|seat| seat.open.load(Relaxed)).sum()
    }

    /// The worker that shall serve what this one accepted.
    pub(crate) fn server(&self, accepted_by: usize) -> usize {
        server(self.0.iter().map(|seat| seat.open.load(Relaxed)), accepted_by)
    }

    /// Hands it to the worker that it counts for. Given back where that worker is gone.
    pub(crate) fn hand_over(&self, fresh: Fresh) -> Option<Fresh> {
        match self.0.get(fresh.open.worker) {
            Some(seat) => seat.fresh.send(fresh).err().map(|refused| refused.0),
            None => Some(fresh),
        }
    }
}

impl Open {
    pub(crate) fn enter(spread: &Arc<Spread>, worker: usize) -> Self {
        if let Some(seat) = spread.0.get(worker) {
            seat.open.fetch_add(1, Relaxed);
        }
        Open { spread: Arc::clone(spread), worker }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(seat) = self.spread.0.get(self.worker) {
            seat.open.fetch_sub(1, Relaxed);
        }
    }
}

/// How many more than the mean are well more: enough that chance alone does not move connections about.
fn slack(mean: usize) -> usize {
    2 + mean / 16
}

fn server(open: impl Iterator<Item = usize>, accepted_by: usize) -> usize {
    let (mut workers, mut total, mut own, mut fewest) = (0, 0, 0, (usize::MAX, accepted_by));
    for (worker, open) in open.enumerate() {
        workers += 1;
        total += open;
        if worker == accepted_by {
            own = open;
        }
        fewest = fewest.min((open, worker));
    }
    let mean = total / workers.max(1);
    if own < mean + slack(mean) { accepted_by } else { fewest.1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn no_worker_has_well_more_than_the_mean(
            workers in 1_usize..9,
            accepted_by in proptest::collection::vec(0_usize..8, 0..400),
        ) {
            let mut open = vec![0; workers];
            for worker in accepted_by {
                let server = server(open.iter().copied(), worker % workers);
                open[server] += 1;
            }
            let mean = open.iter().sum::<usize>() / workers;
            proptest::prop_assert!(open.iter().all(|open| *open <= mean + slack(mean) + 1), "{open:?}");
        }
    }

    #[test]
    fn a_small_difference_moves_nothing() {
        assert_eq!(server([11, 10, 9].into_iter(), 0), 0);
        assert_eq!(server([13, 10, 7].into_iter(), 0), 2);
        assert_eq!(server([0].into_iter(), 0), 0);
        assert_eq!(server([900].into_iter(), 0), 0);
    }
}
