//! Who waits for an endpoint: its service has room, but none of the endpoints that it may go to has. Each that gets room
//! is told to the first whom it suits, in the turns of the queue. Whoever is told must still take that room, and may find
//! that somebody else was faster; whoever goes away instead tells the next one.

use super::Over;
use super::queue::{Queue, Terms, Ticket, Who};
use crate::base::time::process_ms;
use smallvec::SmallVec;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed, Ordering::SeqCst, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// A service's. Nobody waits at first.
#[derive(Debug, Default)]
pub struct Lobby {
    waiting: AtomicU32,
    queue: Mutex<Queue<Guest>>,
}

/// Tells by its number whether an endpoint suits.
type Suits = Box<dyn Fn(u32) -> bool + Send>;
/// What came of waiting.
type Told = Result<Room, Over>;

/// Somebody who waits.
struct Guest {
    suits: Suits,
    tell: oneshot::Sender<Told>,
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Guest")
    }
}

/// An endpoint has room for one more. Dropped unused, it is the next one's.
#[derive(Debug)]
pub struct Room {
    of: Option<Arc<Lobby>>,
    endpoint: u32,
}

/// Somebody who waits for an endpoint, until it is dropped: then it leaves.
#[derive(Debug)]
pub struct Waits {
    of: Arc<Lobby>,
    ticket: Ticket,
    told: oneshot::Receiver<Told>,
}

impl Lobby {
    /// Somebody comes at `now_ms`. It must look for room once more then: what others left before is not told.
    pub fn enter(self: &Arc<Self>, suits: Suits, who: Who, terms: Terms, now_ms: u64) -> Waits {
        let (tell, told) = oneshot::channel();
        let (ticket, gone) = {
            let mut queue = self.lock();
            let (ticket, gone) = queue.push(Guest { suits, tell }, who, terms, now_ms);
            if gone.is_none() {
                self.waiting.fetch_add(1, SeqCst);
            }
            (ticket, gone)
        };
        if let Some(gone) = gone {
            // It may be the one who has just come. Should it be gone already, nobody is told.
            let _ = gone.tell.send(Err(Over::QueueFull));
        }
        // Whoever leaves an endpoint either sees that somebody waits, or has left before this one looks.
        fence(SeqCst);
        Waits { of: Arc::clone(self), ticket, told }
    }

    /// How many wait.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Relaxed)
    }

    /// The endpoint with this number has room for one more.
    pub fn has_room(self: &Arc<Self>, endpoint: u32) {
        if self.waiting.load(SeqCst) > 0 {
            self.tell(endpoint, process_ms());
        }
    }

    fn tell(self: &Arc<Self>, endpoint: u32, now_ms: u64) {
        loop {
            let mut expired = SmallVec::new();
            let next = {
                let mut queue = self.lock();
                let next = queue.pop_if(now_ms, &mut expired, |guest| (guest.suits)(endpoint));
                let gone = expired.len() + usize::from(next.is_some());
                // No more than there were.
                self.waiting.fetch_sub(u32::try_from(gone).unwrap_or(0), SeqCst);
                next
            };
            for late in expired {
                let _ = late.tell.send(Err(Over::QueueTimeout));
            }
            let Some(next) = next else { return };
            match next.tell.send(Ok(Room { of: Some(Arc::clone(self)), endpoint })) {
                Ok(()) => return,
                // It has gone meanwhile.
                Err(told) => drop(told.map(Room::is_taken)),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue<Guest>> {
        // Nothing that panics runs under this lock; should it ever, what it holds is still a queue.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Room {
    /// Whoever was told has looked for it, and found it or not.
    pub fn is_taken(mut self) {
        self.of = None;
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Some(of) = self.of.take() {
            of.has_room(self.endpoint);
        }
    }
}

impl Waits {
    /// What came of it.
    ///
    /// # Errors
    /// There was no room.
    pub async fn told(&mut self) -> Result<Room, Over> {
        // An error: the lobby itself is gone, which the service's end does.
        (&mut self.told).await.unwrap_or(Err(Over::QueueTimeout))
    }

    /// It has waited for long enough: what came of it in the end.
    ///
    /// # Errors
    /// There was no room.
    pub fn ends(mut self) -> Result<Room, Over> {
        if self.leaves() {
            return Err(Over::QueueTimeout);
        }
        // Whoever took it out of the queue has told it, or does so now.
        self.told.try_recv().unwrap_or(Err(Over::QueueTimeout))
    }

    /// Leaves the queue. False: somebody has taken it out of there.
    fn leaves(&self) -> bool {
        let left = self.of.lock().remove(self.ticket).is_some();
        if left {
            self.of.waiting.fetch_sub(1, SeqCst);
        }
        left
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        // Room that it was told of meanwhile is dropped with the channel, and is the next one's.
        self.leaves();
    }
}

#[cfg(test)]
mod tests;
