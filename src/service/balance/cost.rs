//! What another request at an endpoint costs: the number that least-request and peak-ewma make small.

use super::Candidates;
use crate::base::chance::Chance;
use crate::service::endpoints::Ready;
use crate::service::{Endpoint, Service};

/// At this moment, for a service whose good answers take so long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost<'a> {
    ready: &'a Ready,
    now_ms: u64,
    mean_us: f32,
}

/// Two that are drawn may both be ill; then two others are, so many times.
const REDRAWS: usize = 2;

impl<'a> Cost<'a> {
    pub(super) fn now(service: &Service, ready: &'a Ready, now_ms: u64) -> Self {
        Cost { ready, now_ms, mean_us: service.live.pace.mean_us() }
    }

    /// What it can take, beside the others: its weight, or the part of it that one has which starts slowly.
    fn weight(self, endpoint: &Endpoint) -> f32 {
        endpoint.weight as f32 * self.ramp(endpoint)
    }

    /// The part of its weight that one has now which starts slowly; 1 for all others.
    pub(super) fn ramp(self, endpoint: &Endpoint) -> f32 {
        self.ready.ramp_permille(&endpoint.live, self.now_ms) as f32 / 1000.0
    }

    /// Requests in flight, failures of the last seconds as if they were, and this one, by weight. Without the failures,
    /// whoever fails fast looks idle, and draws all traffic (envoy#39737).
    pub(super) fn requests(self, endpoint: &Endpoint) -> f32 {
        (endpoint.in_flight() as f32 + endpoint.live.load.failures(self.now_ms) + 1.0) / self.weight(endpoint)
    }

    /// The same times the latency to expect.
    pub(super) fn wait(self, endpoint: &Endpoint) -> f32 {
        let load = &endpoint.live.load;
        let latency = match endpoint.in_flight() {
            // What it does while it gets warm is not what it will do.
            _ if self.ramp(endpoint) < 1.0 => self.mean_us,
            0 => load.expected_us(self.mean_us, self.now_ms),
            _ => load.expected_busy_us(self.mean_us, self.now_ms),
        };
        latency.max(1.0) * self.requests(endpoint)
    }

    /// Nothing is in flight to it, nobody has asked it for a while, and this request shall.
    pub(super) fn claims(self, endpoint: &Endpoint) -> bool {
        endpoint.in_flight() == 0 && endpoint.live.load.claim(self.now_ms)
    }

    /// The one that costs less of two drawn by chance. Should it be ill, so are both, and two others are drawn. With `claims`,
    /// whoever is drawn and was forgotten is taken at once.
    pub(super) fn better_of_two(
        self,
        candidates: Candidates<'_>,
        chance: &mut Chance,
        claims: bool,
        cost: impl Fn(&Endpoint) -> f32,
    ) -> u32 {
        let (mut least, mut best) = (f32::INFINITY, None);
        for _ in 0..=REDRAWS {
            let (one, two) = candidates.two(chance);
            for place in [one, two] {
                let endpoint = candidates.at(place);
                if claims && self.claims(endpoint) {
                    return place;
                }
                let cost = cost(endpoint);
                if cost < least {
                    (least, best) = (cost, Some(place));
                }
            }
            if best.is_some_and(|best| !self.is_ill(candidates.at(best))) {
                break;
            }
        }
        // There is one: what costs without end is no number that these functions give.
        best.unwrap_or_else(|| candidates.place(0))
    }

    fn is_ill(self, endpoint: &Endpoint) -> bool {
        endpoint.live.load.ill(endpoint.in_flight(), self.mean_us, self.now_ms)
    }
}
