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
    /// For ids, sampling and seeds.
    pub chance: RefCell<Chance>,
    /// As it was looked at within the last second.
    pub calendar: Cell<Calendar>,
    /// The same as `Date` says it (RFC 9110 §5.6.7).
    pub date: RefCell<String>,
    /// Its way to tell.
    pub recorder: Recorder,
}
