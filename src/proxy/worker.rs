//! What one worker has: an OS thread's own upstream connections, balancing, chance and way to tell; and what all share.

use super::shedding::Shedding;
use crate::base::chance::Chance;
use crate::base::time::Calendar;
use crate::http::downstream::clients::Clients;
use crate::http::downstream::spread::Spread;
use crate::http::downstream::untaken::Untaken;
use crate::service::balance::{Balancer, Memory};
use crate::service::pool::Pools;
use crate::snapshot::Current;
use crate::snapshot::vitals::Vitals;
use crate::telemetry::{Recorder, Telemetry};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::watch;

/// What all workers see.
#[derive(Debug)]
pub struct Shared {
    /// The world.
    pub snapshot: Current,
    /// Downstream connections of each worker.
    pub spread: Arc<Spread>,
    /// And of each client.
    pub clients: Arc<Clients>,
    /// True once the drain began.
    pub drain: watch::Sender<bool>,
    /// What the sticky strategy remembers.
    pub sticky: Arc<Memory>,
    /// What all workers tell.
    pub telemetry: Arc<Telemetry>,
    /// How the gateway itself is doing.
    pub vitals: Arc<Vitals>,
}

/// What a worker has for itself. Nothing in here is shared with another thread but `shared`.
#[derive(Debug)]
pub struct Worker {
    /// From 0.
    pub index: usize,
    /// What all workers see.
    pub shared: Arc<Shared>,
    /// Its upstream connections.
    pub pools: Rc<Pools>,
    /// Responses on streams of which clients take nothing.
    pub untaken: Untaken,
    /// What it refuses, since it has too much to do.
    pub shedding: Shedding,
    /// Its part of balancing.
    pub balancer: RefCell<Balancer>,
    /// For ids, sampling and picks.
    pub chance: RefCell<Chance>,
    /// Its exchanges.
    pub numbers: Numbers,
    /// As it was looked at within the last second.
    pub calendar: Cell<Calendar>,
    /// The same as `Date` says it (RFC 9110 §5.6.7).
    pub date: RefCell<String>,
    /// Its way to tell.
    pub recorder: Recorder,
}

/// Numbers a worker's exchanges, each of which has a seed that follows from its number: nothing else that draws by chance
/// moves it.
#[derive(Debug)]
pub struct Numbers {
    seed: u64,
    last: Cell<u64>,
}

impl Numbers {
    /// From 1, with seeds that follow from this one.
    pub fn new(seed: u64) -> Self {
        Numbers { seed, last: Cell::new(0) }
    }

    /// The next one's number and seed.
    pub fn next(&self) -> (u64, u64) {
        let number = self.last.get().wrapping_add(1);
        self.last.set(number);
        (number, Chance::at(self.seed, number))
    }
}
