//! How the watches of one source share their agent, which takes so many connections of one address and no more
//! (`limits.http_max_conns_per_client`, 200 by default), and Consul's HTTP/1.1 carries one query on each.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

/// How long a query waits for a change where others wait for their turn, at most and at least: less would ask more of the
/// agent than a change is worth.
const SHORT: Duration = Duration::from_millis(500);
const SHORTEST: Duration = Duration::from_millis(100);
/// How long nobody shall be without a query: what changes then is seen when its turn comes, within a second.
const UNSEEN: Duration = Duration::from_millis(600);

/// The connections that there may be, and who wants one.
#[derive(Debug)]
pub(super) struct Share {
    turns: Semaphore,
    most: usize,
    watched: AtomicUsize,
}

impl Share {
    /// So many queries at once.
    pub(super) fn new(most: usize) -> Self {
        Share { turns: Semaphore::new(most), most, watched: AtomicUsize::new(0) }
    }

    /// So many services are watched from now on. True: they have to take turns.
    pub(super) fn watch(&self, services: usize) -> bool {
        self.watched.store(services, Relaxed);
        services > self.most
    }

    /// Waits for its turn, first come, first served; it ends with what this gives. None never comes: nobody closes it.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.turns.acquire().await.ok()
    }

    /// Others are asking at this moment, beside the one who wants to know.
    pub(super) fn is_shared(&self) -> bool {
        self.turns.available_permits() + 1 < self.most
    }

    /// How long a query waits for a change: as long as is wished while there is a connection for each service, else a
    /// moment, which is the shorter the more others wait. A change that comes while others have their turn is seen at once
    /// in the next one.
    pub(super) fn wait(&self, wish: Duration) -> Duration {
        let rounds = self.watched.load(Relaxed).saturating_sub(self.most) as f64 / self.most as f64;
        if rounds <= 0.0 {
            return wish;
        }
        wish.min(UNSEEN.div_f64(rounds.max(1.0)).clamp(SHORTEST, SHORT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_has_to_take_turns_does_not_wait_for_long() {
        let share = Share::new(2);
        let minute = Duration::from_secs(60);
        assert!(!share.watch(2));
        assert_eq!(share.wait(minute), minute);
        assert!(share.watch(3));
        assert_eq!(share.wait(minute), SHORT);
        assert_eq!(share.wait(Duration::ZERO), Duration::ZERO);
        for (services, ms) in [(4, 500), (8, 200), (10, 150), (100, 100)] {
            share.watch(services);
            assert_eq!(share.wait(minute), Duration::from_millis(ms), "{services}");
        }
        let first = share.turn().await;
        assert!(!share.is_shared());
        let second = share.turn().await;
        assert!(share.is_shared());
        let moment = Duration::from_millis(1);
        assert!(tokio::time::timeout(moment, share.turn()).await.is_err());
        drop(first);
        assert!(share.turn().await.is_some());
        drop(second);
    }
}
