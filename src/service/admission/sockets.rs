//! Connections to endpoints: how many are open, and who waits for one: `limits.connections` and the like.

use super::Limits;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed, Ordering::SeqCst};
use tokio::sync::Notify;

/// Of a service or of one of its endpoints, all workers together.
#[derive(Debug, Default)]
pub struct Sockets {
    open: AtomicU32,
    /// Requests that wait for a connection: for it to be opened, or until one may be.
    pending: AtomicU32,
    /// Those of them that wait until one may be.
    blocked: AtomicU32,
    closed: Notify,
}

/// Both that a connection belongs to.
#[derive(Debug, Clone)]
pub struct Both {
    /// The endpoint's.
    pub endpoint: Arc<Sockets>,
    /// Its service's.
    pub service: Arc<Sockets>,
}

/// A connection that is open, until it is dropped.
#[derive(Debug)]
pub struct Open(Both);

/// A request that waits for a connection, until it is dropped.
#[derive(Debug)]
pub struct Pending(Both);

/// One that waits until a connection may be opened.
struct Blocked<'a>(&'a Sockets);

/// One more, if there are fewer than `most`.
fn take(count: &AtomicU32, most: Option<NonZero<u32>>) -> bool {
    let more = |count| most.is_none_or(|most| count < most.get()).then_some(count + 1);
    count.fetch_update(SeqCst, SeqCst, more).is_ok()
}

impl Sockets {
    /// Connections that are open or being opened.
    pub fn open(&self) -> u32 {
        self.open.load(Relaxed)
    }

    /// Requests that wait for one.
    pub fn pending(&self) -> u32 {
        self.pending.load(Relaxed)
    }

    fn closes(&self) {
        self.open.fetch_sub(1, SeqCst);
        if self.blocked.load(SeqCst) > 0 {
            self.closed.notify_waiters();
        }
    }
}

impl Both {
    /// A request waits for a connection. None: as many do as may.
    pub fn wait(&self, limits: &Limits) -> Option<Pending> {
        if !take(&self.endpoint.pending, limits.endpoint_pending) {
            return None;
        }
        if !take(&self.service.pending, limits.pending) {
            self.endpoint.pending.fetch_sub(1, SeqCst);
            return None;
        }
        Some(Pending(self.clone()))
    }

    /// A connection is opened, if it may be.
    pub fn open(&self, limits: &Limits) -> Option<Open> {
        if !take(&self.endpoint.open, limits.endpoint_connections) {
            return None;
        }
        if !take(&self.service.open, limits.connections) {
            // Nobody is told: it is the service that all wait for, and would wake each other for ever.
            self.endpoint.open.fetch_sub(1, SeqCst);
            return None;
        }
        Some(Open(self.clone()))
    }

    /// The same as soon as it may be.
    pub async fn opens(&self, limits: &Limits) -> Open {
        let _blocked = (Blocked::new(&self.endpoint), Blocked::new(&self.service));
        loop {
            // Whoever closes one from now on wakes them.
            let closed = (self.endpoint.closed.notified(), self.service.closed.notified());
            if let Some(open) = self.open(limits) {
                return open;
            }
            tokio::select! {
                () = closed.0 => {}
                () = closed.1 => {}
            }
        }
    }

    /// Somebody waits until this one may open a connection, so that none should be kept idle.
    pub fn is_wanted(&self) -> bool {
        self.endpoint.blocked.load(Relaxed) > 0 || self.service.blocked.load(Relaxed) > 0
    }
}

impl Open {
    /// Whose it is.
    pub fn of(&self) -> &Both {
        &self.0
    }

    /// One that counts whatever the limits say.
    pub fn anyway(both: &Both) -> Self {
        both.endpoint.open.fetch_add(1, SeqCst);
        both.service.open.fetch_add(1, SeqCst);
        Open(both.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.endpoint.closes();
        self.0.service.closes();
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.endpoint.pending.fetch_sub(1, SeqCst);
        self.0.service.pending.fetch_sub(1, SeqCst);
    }
}

impl<'a> Blocked<'a> {
    fn new(sockets: &'a Sockets) -> Self {
        sockets.blocked.fetch_add(1, SeqCst);
        Blocked(sockets)
    }
}

impl Drop for Blocked<'_> {
    fn drop(&mut self) {
        self.0.blocked.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(number: u32) -> Limits {
        Limits { connections: NonZero::new(number), pending: NonZero::new(number), ..Limits::default() }
    }

    fn both(service: &Arc<Sockets>) -> Both {
        Both { endpoint: Arc::default(), service: Arc::clone(service) }
    }

    #[test]
    fn all_endpoints_share_what_the_service_may_have() {
        let service = Arc::default();
        let (one, other) = (both(&service), both(&service));
        let (two, each) = (limits(2), Limits { endpoint_connections: NonZero::new(1), ..limits(2) });
        let first = one.open(&each).unwrap();
        assert!(one.open(&each).is_none() && service.open() == 1);
        let second = other.open(&each).unwrap();
        assert!(both(&service).open(&two).is_none());
        let anyway = Open::anyway(&one);
        assert_eq!((one.endpoint.open(), service.open()), (2, 3));
        drop((first, second, anyway));
        let waiting = (one.wait(&two).unwrap(), one.wait(&two).unwrap());
        assert!(other.wait(&two).is_none());
        drop(waiting);
        let counts = [&one.endpoint, &other.endpoint, &service].map(|of| (of.open(), of.pending()));
        assert_eq!(counts, [(0, 0); 3]);
    }

    #[tokio::test]
    async fn whoever_waits_has_the_next_one_that_is_closed() {
        let service = Arc::default();
        let (one, other) = (both(&service), both(&service));
        let limits = limits(1);
        let first = one.open(&limits).unwrap();
        let mut waits = std::pin::pin!(other.opens(&limits));
        let pending = std::future::poll_fn(|cx| std::task::Poll::Ready(waits.as_mut().poll(cx).is_pending())).await;
        assert!(pending && one.is_wanted() && !both(&Arc::default()).is_wanted());
        drop(first);
        drop(waits.await);
        assert!(!one.is_wanted());
        assert_eq!(service.open(), 0);
    }

    #[test]
    fn eight_threads_open_no_more_than_they_may() {
        let service: Arc<Sockets> = Arc::default();
        let both = both(&service);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    for _ in 0..1_000 {
                        let open = runtime.block_on(both.opens(&limits(3)));
                        assert!(service.open() <= 3);
                        std::thread::yield_now();
                        drop(open);
                    }
                });
            }
        });
        assert_eq!((service.open(), both.endpoint.open()), (0, 0));
    }
}
