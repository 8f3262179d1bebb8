//! Endpoints that left their service a while ago: they finish what they have, and one that comes back soon is who it was.

use crate::service::Endpoint;
use rustc_hash::FxHashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// So long an endpoint is remembered without a request in flight, ms. A registry that loses it for less has only flapped.
const REMEMBERED_MS: u64 = 30_000;
/// Endpoints of one service that are remembered; of more, those that leave later are not.
const MOST: usize = 20_000;

/// Those of one service. Control writes it, the admin looks at it; no request does.
#[derive(Debug, Default)]
pub struct Left(Mutex<FxHashMap<SocketAddr, Gone>>);

#[derive(Debug)]
struct Gone {
    endpoint: Arc<Endpoint>,
    at_ms: u64,
}

impl Left {
    fn gone(&self) -> MutexGuard<'_, FxHashMap<SocketAddr, Gone>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These have left at `at_ms`, in ms since the process started.
    pub fn leave<'a>(&self, endpoints: impl IntoIterator<Item = &'a Arc<Endpoint>>, at_ms: u64) {
        let mut gone = self.gone();
        for endpoint in endpoints {
            if gone.len() < MOST {
                gone.insert(endpoint.address, Gone { endpoint: Arc::clone(endpoint), at_ms });
            }
        }
    }

    /// The one at this address comes back.
    pub fn comes_back(&self, address: SocketAddr) -> Option<Arc<Endpoint>> {
        self.gone().remove(&address).map(|gone| gone.endpoint)
    }

    /// Forgets those that have finished and left long ago. True: there are others.
    pub fn tidy(&self, now_ms: u64) -> bool {
        let mut gone = self.gone();
        gone.retain(|_, Gone { endpoint, at_ms }| {
            endpoint.in_flight() > 0 || now_ms < at_ms.saturating_add(REMEMBERED_MS)
        });
        !gone.is_empty()
    }

    /// Those with requests in flight, by address.
    pub fn draining(&self) -> Vec<Arc<Endpoint>> {
        let gone = self.gone();
        let busy = gone.values().map(|gone| &gone.endpoint).filter(|endpoint| endpoint.in_flight() > 0);
        let mut draining: Vec<_> = busy.cloned().collect();
        draining.sort_unstable_by_key(|endpoint| endpoint.address);
        draining
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::InFlight;

    #[test]
    fn whoever_left_is_there_until_it_has_finished_and_for_a_while() {
        let endpoint = |id: u32| Arc::new(Endpoint::of("users", id, ([10, 0, 0, id as u8], 80).into()));
        let (busy, idle, back) = (endpoint(1), endpoint(2), endpoint(3));
        let left = Left::default();
        let request = InFlight::enter(&busy.live, 0);
        left.leave([&busy, &idle, &back], 1000);
        assert_eq!(left.draining().iter().map(|e| e.id).collect::<Vec<_>>(), [1]);
        assert!(left.comes_back(back.address).is_some_and(|e| Arc::ptr_eq(&e, &back)));
        assert!(left.comes_back(back.address).is_none());
        assert!(left.tidy(30_999));
        assert!(left.comes_back(idle.address).is_some());
        left.leave([&idle], 1000);
        assert!(left.tidy(31_000), "one has not finished");
        assert!(left.comes_back(idle.address).is_none());
        drop(request);
        assert!(left.draining().is_empty());
        assert!(!left.tidy(31_000));
    }
}
