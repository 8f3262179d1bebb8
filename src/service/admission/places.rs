//! A service's places: how many exchanges with it are in flight, and who waits. All workers share them. Whoever finds a
//! place free, with nobody waiting, takes it with one exchange of a word; a lock is taken only to wait, or to hand a place
//! to somebody who does.

use super::queue::{Queue, Terms, Ticket, Who};
use crate::base::time::process_ms;
use smallvec::SmallVec;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot::{self, error::TryRecvError};

/// Why somebody was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// The service has as many as it may, and no queue.
    Limit,
    /// And the queue is full.
    QueueFull,
    /// And nobody left in time.
    QueueTimeout,
    /// Each endpoint that it might have gone to has as many as it may.
    Endpoints,
    /// No more connections may be open, or no more requests wait for one.
    Connections,
}

impl Over {
    /// Each once, in the order of their declaration.
    pub const ALL: [Over; 5] = [Over::Limit, Over::QueueFull, Over::QueueTimeout, Over::Endpoints, Over::Connections];

    /// As logs, traces and metrics call it.
    pub fn name(self) -> &'static str {
        match self {
            Over::Limit => "limit",
            Over::QueueFull => "queue_full",
            Over::QueueTimeout => "queue_timeout",
            Over::Endpoints => "endpoints_full",
            Over::Connections => "connections",
        }
    }
}

/// A service's places. They begin without a limit.
#[derive(Debug)]
pub struct Places {
    /// In flight, and above [`WAITING`] how many wait: who knows one knows the other.
    word: AtomicU64,
    /// What the settings say.
    declared: AtomicU32,
    /// What all endpoints have room for, as the last one saw it who came.
    room: AtomicU32,
    /// What latency says.
    adaptive: AtomicU32,
    /// Of those in flight, streams: as many more may be in flight than latency says.
    streams: AtomicU32,
    waiting: Mutex<Queue<Tell>>,
    refused: [AtomicU64; Over::ALL.len()],
    queued: AtomicU64,
}

/// Tells somebody who waits what came of it.
type Tell = oneshot::Sender<Result<Place, Over>>;

/// The lowest bit of how many wait.
const WAITING: u32 = 32;

/// What becomes of somebody who comes.
#[derive(Debug)]
pub enum Entered {
    /// It is in.
    Place(Place),
    /// It may wait.
    Waits(Waiting),
    /// It may not come in.
    Refused(Over),
}

/// One exchange in flight, until it is dropped.
#[derive(Debug)]
pub struct Place {
    /// None: it has left.
    of: Option<Arc<Places>>,
    stream: bool,
}

/// Somebody who waits, until it is dropped: then it leaves the queue.
#[derive(Debug)]
pub struct Waiting {
    of: Arc<Places>,
    ticket: Ticket,
    told: oneshot::Receiver<Result<Place, Over>>,
}

impl Default for Places {
    fn default() -> Self {
        let none = || AtomicU32::new(u32::MAX);
        Places {
            word: AtomicU64::new(0),
            declared: none(),
            room: none(),
            adaptive: none(),
            streams: AtomicU32::new(0),
            waiting: Mutex::default(),
            refused: Default::default(),
            queued: AtomicU64::new(0),
        }
    }
}

fn in_flight(word: u64) -> u32 {
    word as u32
}

fn waiting(word: u64) -> u32 {
    (word >> WAITING) as u32
}

impl Places {
    /// How many may be in flight now.
    pub fn limit(&self) -> u32 {
        let adaptive = self.adaptive.load(Relaxed).saturating_add(self.streams.load(Relaxed));
        self.declared.load(Relaxed).min(self.room.load(Relaxed)).min(adaptive).max(1)
    }

    /// How many are.
    pub fn in_flight(&self) -> u32 {
        in_flight(self.word.load(Relaxed))
    }

    /// How many of them are requests, and no streams.
    pub fn requests(&self) -> u32 {
        self.in_flight().saturating_sub(self.streams.load(Relaxed))
    }

    /// How many wait.
    pub fn waiting(&self) -> u32 {
        waiting(self.word.load(Relaxed))
    }

    /// How often somebody was not let in, by why.
    pub fn refused(&self, over: Over) -> u64 {
        self.refused.get(over as usize).map_or(0, |count| count.load(Relaxed))
    }

    /// How often somebody has waited.
    pub fn queued(&self) -> u64 {
        self.queued.load(Relaxed)
    }

    /// Somebody has to wait.
    pub(super) fn count_queued(&self) {
        self.queued.fetch_add(1, Relaxed);
    }

    /// Somebody is not let in.
    pub fn refuse(&self, over: Over) {
        if let Some(count) = self.refused.get(over as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// What the settings say from now on.
    pub(super) fn declare(self: &Arc<Self>, limit: Option<u32>, now_ms: u64) {
        self.change(&self.declared, limit.unwrap_or(u32::MAX), now_ms);
    }

    /// What latency says from now on.
    pub(super) fn adapt(self: &Arc<Self>, limit: Option<u32>, now_ms: u64) {
        self.change(&self.adaptive, limit.unwrap_or(u32::MAX), now_ms);
    }

    /// Its endpoints have room for any number from now on.
    pub(super) fn has_room(self: &Arc<Self>, now_ms: u64) {
        self.change(&self.room, u32::MAX, now_ms);
    }

    fn change(self: &Arc<Self>, which: &AtomicU32, limit: u32, now_ms: u64) {
        if which.swap(limit, Relaxed) < limit {
            self.hand_on(now_ms);
        }
    }

    /// Somebody comes at `now_ms`. `room`: what all endpoints have room for; `who` is asked only where it may have to wait.
    pub fn enter(self: &Arc<Self>, room: u32, terms: Option<Terms>, who: impl FnOnce() -> Who, now_ms: u64) -> Entered {
        if self.room.load(Relaxed) != room {
            self.room.store(room, Relaxed);
        }
        if self.take(false) {
            return Entered::Place(self.place());
        }
        let Some(terms) = terms else {
            self.refuse(Over::Limit);
            return Entered::Refused(Over::Limit);
        };
        let who = who();
        let (tell, told) = oneshot::channel();
        let (ticket, gone) = {
            let mut queue = self.lock();
            // Counted before anybody can leave unseen: whoever leaves from now on finds that somebody waits.
            if !self.wait_or_take() {
                drop(queue);
                return Entered::Place(self.place());
            }
            let pushed = queue.push(tell, who, terms, now_ms);
            if pushed.1.is_some() {
                self.word.fetch_sub(1 << WAITING, AcqRel);
            }
            pushed
        };
        self.count_queued();
        if let Some(gone) = gone {
            self.refuse(Over::QueueFull);
            // Should it be gone already, nobody is told.
            let _ = gone.send(Err(Over::QueueFull));
        }
        // Its limit may have grown meanwhile.
        if self.in_flight() < self.limit() {
            self.hand_on(now_ms);
        }
        Entered::Waits(Waiting { of: Arc::clone(self), ticket, told })
    }

    /// Takes a place if one is free, and, unless it is `handed`, nobody waits for it.
    fn take(&self, handed: bool) -> bool {
        let taken = |word| {
            let may = in_flight(word) < self.limit() && (handed || waiting(word) == 0);
            may.then_some(word + 1)
        };
        self.word.fetch_update(AcqRel, Acquire, taken).is_ok()
    }

    /// One more waits; false: it has found a place instead.
    fn wait_or_take(&self) -> bool {
        let mut free = false;
        let next = |word| {
            free = in_flight(word) < self.limit() && waiting(word) == 0;
            Some(if free { word + 1 } else { word + (1 << WAITING) })
        };
        // It always has something to write, so this cannot fail.
        let _ = self.word.fetch_update(AcqRel, Acquire, next);
        !free
    }

    fn place(self: &Arc<Self>) -> Place {
        Place { of: Some(Arc::clone(self)), stream: false }
    }

    fn lock(&self) -> MutexGuard<'_, Queue<Tell>> {
        // Nothing that panics runs under this lock; should it ever, what it holds is still a queue.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands places that are free to whoever waits for one.
    fn hand_on(self: &Arc<Self>, now_ms: u64) {
        loop {
            let mut expired = SmallVec::new();
            let next = {
                let mut queue = self.lock();
                if self.waiting() == 0 || !self.take(true) {
                    return;
                }
                let next = queue.pop(now_ms, &mut expired);
                let gone = u64::from(next.is_some()) + expired.len() as u64;
                self.word.fetch_sub(gone << WAITING, AcqRel);
                if next.is_none() {
                    self.word.fetch_sub(1, AcqRel);
                }
                next
            };
            for late in expired {
                self.refuse(Over::QueueTimeout);
                let _ = late.send(Err(Over::QueueTimeout));
            }
            let Some(next) = next else { return };
            if let Err(Ok(place)) = next.send(Ok(self.place())) {
                // It has gone meanwhile: its place is the next one's.
                place.vacate();
            }
        }
    }

    /// One exchange is over.
    fn leave(self: &Arc<Self>, stream: bool, now_ms: impl FnOnce() -> u64) {
        if stream {
            self.streams.fetch_sub(1, Relaxed);
        }
        let before = self.word.fetch_sub(1, AcqRel);
        if waiting(before) > 0 {
            self.hand_on(now_ms());
        }
    }
}

impl Place {
    /// It is over at `now_ms`.
    pub fn leave(mut self, now_ms: u64) {
        if let Some(of) = self.of.take() {
            of.leave(self.stream, || now_ms);
        }
    }

    /// It goes on as a stream, which may last for ever, and says nothing of how many requests the service can take.
    pub fn streams(&mut self) {
        let Some(of) = self.of.as_ref().filter(|_| !self.stream) else { return };
        self.stream = true;
        of.streams.fetch_add(1, Relaxed);
        if of.waiting() > 0 {
            of.hand_on(process_ms());
        }
    }

    /// Nobody has it any more, and whoever calls this sees to whose it is next.
    fn vacate(mut self) {
        if let Some(of) = self.of.take() {
            of.word.fetch_sub(1, AcqRel);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(of) = self.of.take() {
            of.leave(self.stream, process_ms);
        }
    }
}

impl Waiting {
    /// What came of it.
    ///
    /// # Errors
    /// It was not let in.
    pub async fn told(&mut self) -> Result<Place, Over> {
        // An error: the queue itself is gone, which the service's end does.
        (&mut self.told).await.unwrap_or(Err(Over::QueueTimeout))
    }

    /// The same if it is known already.
    pub fn so_far(&mut self) -> Option<Result<Place, Over>> {
        match self.told.try_recv() {
            Ok(told) => Some(told),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Closed) => Some(Err(Over::QueueTimeout)),
        }
    }

    /// It has waited for long enough: what came of it in the end.
    ///
    /// # Errors
    /// It was not let in.
    pub fn ends(mut self) -> Result<Place, Over> {
        if self.leaves() {
            self.of.refuse(Over::QueueTimeout);
            return Err(Over::QueueTimeout);
        }
        // Whoever took it out of the queue has told it, or does so now.
        self.so_far().unwrap_or(Err(Over::QueueTimeout))
    }

    /// Leaves the queue. False: somebody has taken it out of there.
    fn leaves(&self) -> bool {
        let mut queue = self.of.lock();
        let left = queue.remove(self.ticket).is_some();
        if left {
            self.of.word.fetch_sub(1 << WAITING, AcqRel);
        }
        left
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // A place that it was handed meanwhile is dropped with the channel, and is the next one's.
        self.leaves();
    }
}

#[cfg(test)]
mod tests;
