//! How much of a service's traffic an endpoint may have in flight (Mirrokni, Thorup & Zadimoghaddam 2018).

use super::Candidates;
use crate::service::{Crowd, Endpoint};

/// A number of requests for each unit of weight.
#[derive(Clone, Copy)]
pub(super) struct Bound {
    /// What each may have for each unit of weight.
    each: f64,
}

impl Bound {
    /// So many times its share.
    pub(super) fn new(bound: f64, crowd: &Crowd, candidates: Candidates<'_>, now_ms: u64) -> Self {
        let sum = || candidates.iter().map(|(_, endpoint)| u64::from(endpoint.in_flight())).sum();
        let total = crowd.total(now_ms, sum) as f64;
        Bound { each: bound * (total + 1.0) / (candidates.line() as f64).max(1.0) }
    }

    /// It may have one more.
    pub(super) fn leaves_room(self, endpoint: &Endpoint) -> bool {
        f64::from(endpoint.in_flight()) + 1.0 <= (self.each * f64::from(endpoint.weight)).ceil()
    }
}
