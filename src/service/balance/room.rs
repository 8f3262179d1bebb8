//! Endpoints that have room, as `limits` say. Whoever has as many as it may is passed over, as if it had been tried.

use super::{Balancer, Picked, Wanted};
use crate::service::{Endpoint, InFlight, Service};
use smallvec::SmallVec;
use std::sync::Arc;

/// Endpoints that are passed over for one pick. Of as many no one is missed; of more, one with room may be.
const MOST: usize = 64;

impl Picked {
    /// This endpoint, which no strategy has chosen, if it has room; taken up then.
    pub fn held(service: &Service, endpoint: &Arc<Endpoint>, now_ms: u64) -> Option<Self> {
        let in_flight = match service.settings.limits.of_each(service.settings.http2()) {
            Some(most) => Some(InFlight::enter_below(&endpoint.live, most.get(), now_ms)?),
            None => None,
        };
        let endpoint = Arc::clone(endpoint);
        Some(Picked { endpoint, strategy: None, candidates: 1, passed_over: 0, panic: false, in_flight })
    }
}

impl Balancer {
    /// Picks an endpoint that has room, and takes it up. None: there is no usable one that was not tried yet, or all are full.
    pub fn pick_with_room(&mut self, wanted: Wanted<'_>) -> Option<Picked> {
        let settings = &wanted.service.settings;
        let Some(most) = settings.limits.of_each(settings.http2()) else { return self.pick(wanted) };
        let most = u64::from(most.get());
        let ready = wanted.service.endpoints.ready();
        let mut full: SmallVec<[u32; 8]> = wanted.tried.into();
        // Those that start slowly have less of it, as long as others have room.
        let mut ramps = true;
        for _ in 0..MOST {
            let Some(mut picked) = self.pick(Wanted { tried: &full, ..wanted }) else {
                if !std::mem::take(&mut ramps) {
                    return None;
                }
                full.truncate(wanted.tried.len());
                continue;
            };
            let live = &picked.endpoint.live;
            let permille = if ramps { ready.ramp_permille(live, wanted.now_ms) } else { 1000 };
            let most = u32::try_from((most * u64::from(permille) / 1000).max(1)).unwrap_or(u32::MAX);
            picked.in_flight = InFlight::enter_below(live, most, wanted.now_ms);
            if picked.in_flight.is_some() {
                return Some(picked);
            }
            full.push(picked.endpoint.id);
        }
        None
    }
}
