//! Balancing: which endpoint a request goes to. The plan narrows, a strategy picks.

mod hash;
mod least_request;
mod peak_ewma;
mod random;
mod round_robin;
mod sticky;
mod weighted_round_robin;

pub use sticky::Memory;

use crate::base::chance::Chance;
use crate::service::plan::{Plan, Strategy};
use crate::service::{Endpoint, Service, has_all};
use std::sync::Arc;

/// What a pick is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Whose endpoints.
    pub service: &'a Service,
    /// What a policy said about them.
    pub plan: &'a Plan,
    /// Ids of endpoints that were tried already.
    pub tried: &'a [u32],
    /// The key of `hash` and `sticky`.
    pub key: &'a str,
    /// Milliseconds since the process started, for what is remembered.
    pub now_ms: u64,
}

/// What a pick came to.
#[derive(Debug, Clone)]
pub struct Picked {
    /// Where to go.
    pub endpoint: Arc<Endpoint>,
    /// The strategy that chose it; none: the policy named it.
    pub strategy: Option<Strategy>,
    /// How many it was chosen from.
    pub candidates: usize,
    /// Named endpoints that were passed over, since they were unknown or not usable.
    pub passed_over: usize,
}

/// A worker's own part of balancing: buffers, schedules and chance. Nothing in here is shared.
#[derive(Debug)]
pub struct Balancer {
    /// Places of a pick's candidates; kept for its memory.
    places: Vec<u32>,
    schedules: weighted_round_robin::Schedules,
    chance: Chance,
    memory: Arc<Memory>,
}

impl Balancer {
    /// `seed` differs from worker to worker, so that they don't march in step.
    pub fn new(seed: u64, memory: Arc<Memory>) -> Self {
        Balancer { places: Vec::new(), schedules: Default::default(), chance: Chance(seed), memory }
    }

    /// Picks an endpoint. None: there is no usable one that was not tried yet.
    pub fn pick(&mut self, wanted: Wanted<'_>) -> Option<Picked> {
        let mut passed_over = 0;
        for id in wanted.plan.endpoints.iter().filter(|id| !wanted.tried.contains(id)) {
            match wanted.service.endpoint(*id).filter(|endpoint| endpoint.usable()) {
                Some(endpoint) => {
                    let endpoint = Arc::clone(endpoint);
                    return Some(Picked { endpoint, strategy: None, candidates: 1, passed_over });
                }
                None => passed_over += 1,
            }
        }
        narrow(&wanted, &mut self.places);
        let strategy = strategy(wanted.service, wanted.plan);
        let candidates = Candidates { endpoints: &wanted.service.endpoints, places: &self.places };
        let index = match candidates.len() {
            0 => return None,
            1 => 0,
            _ => match strategy {
                Strategy::RoundRobin => round_robin::pick(candidates, &wanted.service.live.turn),
                Strategy::WeightedRoundRobin => self.schedules.pick(&wanted.service.name, candidates, &mut self.chance),
                Strategy::Random => random::pick(candidates, &mut self.chance),
                Strategy::LeastRequest => least_request::pick(candidates, &mut self.chance),
                Strategy::PeakEwma => peak_ewma::pick(candidates, &mut self.chance),
                Strategy::Hash => hash::pick(candidates, wanted.key),
                Strategy::Sticky => sticky::pick(candidates, &wanted, &self.memory),
            },
        };
        let endpoint = Arc::clone(&candidates.endpoints[candidates.places[index] as usize]);
        Some(Picked { endpoint, strategy: Some(strategy), candidates: candidates.len(), passed_over })
    }

    /// Forgets schedules of services that are gone.
    pub fn retain(&mut self, known: impl Fn(&str) -> bool) {
        self.schedules.retain(known);
    }
}

/// What a strategy picks from. Places in the service's list instead of shares in its endpoints: all workers would write
/// to the same counts for each request.
#[derive(Clone, Copy)]
struct Candidates<'a> {
    endpoints: &'a [Arc<Endpoint>],
    places: &'a [u32],
}

impl<'a> Candidates<'a> {
    fn len(self) -> usize {
        self.places.len()
    }

    fn get(self, index: usize) -> &'a Endpoint {
        &self.endpoints[self.places[index] as usize]
    }

    fn iter(self) -> impl Iterator<Item = &'a Endpoint> {
        self.places.iter().map(move |place| &*self.endpoints[*place as usize])
    }
}

/// The strategy that picks for this request: the plan's, else the service's own.
pub fn strategy(service: &Service, plan: &Plan) -> Strategy {
    plan.strategy.unwrap_or(service.settings.strategy)
}

/// Leaves those endpoints that are usable, have weight, were not tried and fit the plan.
fn narrow(wanted: &Wanted<'_>, places: &mut Vec<u32>) {
    let endpoints = &wanted.service.endpoints;
    let subset = &wanted.plan.subset;
    let fits = |e: &Endpoint| e.is_candidate() && !wanted.tried.contains(&e.id) && has_all(&e.metadata, subset);
    places.clear();
    places.extend((0..).zip(endpoints).filter(|(_, endpoint)| fits(endpoint)).map(|(place, _)| place));
    for (key, value) in &wanted.plan.prefer {
        let fits = |place: &u32| endpoints[*place as usize].metadata.get(key) == Some(value);
        if places.iter().any(fits) {
            places.retain(fits);
        }
    }
}

#[cfg(test)]
mod tests;
