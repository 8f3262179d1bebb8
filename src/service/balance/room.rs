//! Endpoints that have room, as `limits` say. Whoever has as many as it may is passed over, as if it had been tried.

use super::{Balancer, Picked, Wanted};
use crate::service::{Endpoint, InFlight, Live, Service};
use smallvec::SmallVec;
use std::sync::Arc;

/// Endpoints that are found full one after the other; then all that are full are looked for at once.
const DRAWS: usize = 8;
/// Picks after that: others may take the last room meanwhile.
const RACES: usize = 8;

impl Picked {
    /// This endpoint, which no strategy has chosen, if it has room; taken up then.
    pub fn held(service: &Service, endpoint: &Arc<Endpoint>, now_ms: u64) -> Option<Self> {
        let in_flight = match service.settings.limits.of_each(service.settings.http2()) {
            Some(most) => Some(InFlight::enter_below(endpoint, most.get(), now_ms)?),
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
        let ready = wanted.service.endpoints.ready_at(wanted.now_ms);
        // Those that start slowly have less of it, as long as others have room.
        let passes: &[bool] = if ready.ramps(wanted.now_ms) { &[true, false] } else { &[false] };
        let mut full: SmallVec<[u32; 8]> = SmallVec::new();
        for ramps in passes {
            let room = |live: &Live| match ramps {
                true => (u64::from(most.get()) * u64::from(ready.ramp_permille(live, wanted.now_ms)) / 1000).max(1),
                false => most.get().into(),
            };
            let room = |live: &Live| u32::try_from(room(live)).unwrap_or(u32::MAX);
            full.clear();
            full.extend_from_slice(wanted.tried);
            for draw in 0..DRAWS + RACES {
                if draw == DRAWS {
                    let is_full = |endpoint: &&Arc<Endpoint>| endpoint.in_flight() >= room(&endpoint.live);
                    full.extend(wanted.service.endpoints.iter().filter(is_full).map(|endpoint| endpoint.id));
                }
                let Some(mut picked) = self.pick(Wanted { tried: &full, ..wanted }) else { break };
                let most = room(&picked.endpoint.live);
                picked.in_flight = InFlight::enter_below(&picked.endpoint, most, wanted.now_ms);
                if picked.in_flight.is_some() {
                    return Some(picked);
                }
                full.push(picked.endpoint.id);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
