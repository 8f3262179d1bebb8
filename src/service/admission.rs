//! Admission: how many exchanges with a service may be in flight, from this gateway. The settings limit them, its endpoints'
//! room does, and where it is adaptive, how long its answers take. Who is beyond that waits for a while, or is refused at
//! once: a service that hangs then costs its own requests, and not the gateway's memory.

pub mod adaptive;
mod limits;
mod lobby;
mod places;
pub mod queue;
mod sockets;

pub use limits::Limits;
pub use lobby::{Lobby, Room, Waits};
pub use places::{Entered, Over, Place, Places, Waiting};
pub use sockets::{Both, Open, Sockets};

use crate::http::request::Head;
use adaptive::Gradient;
use queue::{Terms, Who};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::Duration;

/// A service's own; it belongs to the service's name.
#[derive(Debug, Default)]
pub struct Admission {
    /// Who is in.
    pub places: Arc<Places>,
    /// Connections to all endpoints.
    pub sockets: Arc<Sockets>,
    gradient: Mutex<Option<Gradient>>,
    /// Clients choose keys: nobody may find two that share a line.
    secret: RandomState,
}

impl Admission {
    /// What its service's settings say from `now_ms` on. What was learnt stays, unless it is about something else.
    pub fn declare(&self, limits: &Limits, adaptive: Option<adaptive::Settings>, now_ms: u64) {
        self.places.declare(limits.requests.map(Into::into), now_ms);
        if limits.room(|| 1, false) == u32::MAX {
            self.places.has_room(now_ms);
        }
        let mut gradient = self.gradient.lock().unwrap_or_else(PoisonError::into_inner);
        if gradient.as_ref().map(|gradient| gradient.settings) != adaptive {
            *gradient = adaptive.map(Gradient::new);
        }
        self.places.adapt(gradient.as_ref().map(Gradient::limit), now_ms);
    }

    /// A request comes, of which it is known at `now_ms` that it goes here. `room`: what its endpoints have room for, all
    /// together; `named`: with whom a policy lets it wait, and their weight.
    pub fn enter(
        &self,
        room: u32,
        queue: Option<&queue::Settings>,
        (head, named): (&Head, Option<&(String, u32)>),
        now_ms: u64,
    ) -> Entered {
        let terms = queue.map(|queue| terms(queue, named));
        let who = || queue.map_or_else(Who::default, |queue| self.who(queue, head, named));
        self.places.enter(room, terms, who, now_ms)
    }

    /// A request finds that the service has room, and none of the endpoints that suit it: it waits for one in its `lobby`, as
    /// others wait for the service.
    pub fn wait(
        &self,
        lobby: &Arc<Lobby>,
        suits: Box<dyn Fn(u32) -> bool + Send>,
        queue: &queue::Settings,
        (head, named): (&Head, Option<&(String, u32)>),
        now_ms: u64,
    ) -> Waits {
        self.places.count_queued();
        lobby.enter(suits, self.who(queue, head, named), terms(queue, named), now_ms)
    }

    fn who(&self, queue: &queue::Settings, head: &Head, named: Option<&(String, u32)>) -> Who {
        match named {
            Some((key, weight)) => Who { key: self.secret.hash_one(("named", key)), weight: *weight },
            None => Who { key: self.secret.hash_one(queue.key.of(head)), weight: 1 },
        }
    }

    /// A good answer came to the only attempt of a request, `took` after that had all of the request. Where others measure
    /// at the same moment, nobody waits.
    pub fn answered(&self, took: Duration, now_ms: u64) {
        let mut gradient = match self.gradient.try_lock() {
            Ok(gradient) => gradient,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let Some(gradient) = gradient.as_mut() else { return };
        let us = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        if gradient.answered(us, self.places.requests(), now_ms) {
            self.places.adapt(Some(gradient.limit()), now_ms);
        }
    }

    /// What latency says of how many requests the service can take.
    pub fn adaptive(&self) -> Option<u32> {
        let gradient = self.gradient.lock().unwrap_or_else(PoisonError::into_inner);
        gradient.as_ref().map(Gradient::limit)
    }
}

/// How a request of this queue waits, with whomever a policy has `named`.
fn terms(queue: &queue::Settings, named: Option<&(String, u32)>) -> Terms {
    let terms = queue.terms();
    Terms { keyed: terms.keyed || named.is_some(), ..terms }
}
