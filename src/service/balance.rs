//! Balancing: which endpoint a request goes to. The plan narrows, a strategy picks.

mod bound;
mod candidates;
mod cost;
mod hash;
mod lanes;
mod least_request;
mod narrowed;
mod peak_ewma;
mod random;
mod room;
mod round_robin;
mod sticky;
mod weighted_round_robin;

pub use sticky::Memory;

use crate::base::chance::Chance;
use crate::service::endpoints::Layout;
use crate::service::plan::{Plan, Strategy};
use crate::service::{Endpoint, InFlight, Service};
use candidates::Candidates;
use cost::Cost;
use narrowed::Narrowed;
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
    /// The key of `hash`, `maglev` and `sticky`.
    pub key: &'a str,
    /// Milliseconds since the process started, for what is remembered.
    pub now_ms: u64,
}

/// What a pick came to.
#[derive(Debug)]
pub struct Picked {
    /// Where to go.
    pub endpoint: Arc<Endpoint>,
    /// The strategy that chose it; none: the policy named it.
    pub strategy: Option<Strategy>,
    /// How many it was chosen from.
    pub candidates: usize,
    /// Named endpoints that were passed over, since they were unknown or not usable.
    pub passed_over: usize,
    /// So few were usable that it was chosen from all of them.
    pub panic: bool,
    /// The request counts there already.
    pub in_flight: Option<InFlight>,
}

impl Picked {
    /// Counts the request in flight there from `now_ms` on.
    pub fn enter(&mut self, now_ms: u64) -> InFlight {
        self.in_flight.take().unwrap_or_else(|| InFlight::enter(&self.endpoint.live, now_ms))
    }
}

/// Draws for one pick, where endpoints that start slowly let their turns pass.
const MOST_DRAWS: usize = 32;

/// A worker's own part of balancing: buffers, schedules and chance. Nothing in here is shared.
#[derive(Debug)]
pub struct Balancer {
    narrowed: Narrowed,
    /// A buffer.
    tried: Vec<usize>,
    schedules: weighted_round_robin::Schedules,
    chance: Chance,
    memory: Arc<Memory>,
}

impl Balancer {
    /// `seed` differs from worker to worker, so that they don't march in step.
    pub fn new(seed: u64, memory: Arc<Memory>) -> Self {
        let (narrowed, schedules) = Default::default();
        Balancer { narrowed, tried: Vec::new(), schedules, chance: Chance(seed), memory }
    }

    /// Picks an endpoint. None: there is no usable one that was not tried yet.
    pub fn pick(&mut self, wanted: Wanted<'_>) -> Option<Picked> {
        let endpoints = &wanted.service.endpoints;
        let mut passed_over = 0;
        for id in wanted.plan.endpoints.iter().filter(|id| !wanted.tried.contains(id)) {
            match endpoints.by_id(*id).filter(|endpoint| endpoint.usable()) {
                Some(endpoint) => {
                    let endpoint = Arc::clone(endpoint);
                    let picked =
                        Picked { endpoint, strategy: None, candidates: 1, passed_over, panic: false, in_flight: None };
                    return Some(picked);
                }
                None => passed_over += 1,
            }
        }
        let ready = endpoints.ready_at(wanted.now_ms);
        let (key, strategy) = (narrowed::key(&wanted), strategy(wanted.service, wanted.plan));
        let cost = Cost::now(wanted.service, &ready, wanted.now_ms);
        for (number, line) in lanes::lanes(&ready, &wanted, strategy, key != 0, &mut self.chance) {
            let line = match key {
                0 => (number, line),
                key => {
                    let key = key.wrapping_add(number);
                    (key, self.narrowed.line(key, &wanted, &ready, line))
                }
            };
            let candidates = Candidates::new(endpoints, line, wanted.tried, &mut self.tried);
            let mut draws = 0;
            let place = match candidates.len() {
                0 => continue,
                1 => candidates.place(0),
                _ => loop {
                    draws += 1;
                    let place = match strategy {
                        Strategy::RoundRobin => round_robin::pick(candidates, &wanted.service.live.turn),
                        Strategy::WeightedRoundRobin => {
                            self.schedules.pick(&wanted.service.name, candidates, &mut self.chance)
                        }
                        Strategy::Random => random::pick(candidates, &mut self.chance),
                        Strategy::LeastRequest => least_request::pick(candidates, cost, &mut self.chance),
                        Strategy::PeakEwma => peak_ewma::pick(candidates, cost, &mut self.chance),
                        Strategy::Hash => hash::pick(candidates, cost, &wanted, Layout::Race),
                        Strategy::Maglev => hash::pick(candidates, cost, &wanted, Layout::Maglev),
                        Strategy::Sticky => sticky::pick(candidates, cost, &wanted, &self.memory),
                    };
                    // One that starts slowly takes a turn by the share of its weight that it has by now.
                    let ramp = ready.ramp_permille(&candidates.at(place).live, wanted.now_ms);
                    let takes = ramp >= 1000 || !strategy.takes_turns() || self.chance.below(1000) < ramp as usize;
                    if takes || draws >= MOST_DRAWS {
                        break place;
                    }
                },
            };
            let endpoint = Arc::clone(endpoints.get(place as usize)?);
            let (strategy, candidates, panic) = (Some(strategy), candidates.len(), ready.panic);
            return Some(Picked { endpoint, strategy, candidates, passed_over, panic, in_flight: None });
        }
        None
    }

    /// Forgets what belongs to services that are gone, and what was not used since the last time.
    pub fn retain(&mut self, known: impl Fn(&str) -> bool) {
        self.narrowed.tidy();
        self.schedules.retain(known);
    }
}

/// Lays the table that the service's own strategy goes by, so that no request waits for it.
pub fn prepare(service: &Service) {
    hash::prepare(service);
}

/// The strategy that picks for this request: the plan's, else the service's own.
pub fn strategy(service: &Service, plan: &Plan) -> Strategy {
    plan.strategy.unwrap_or(service.settings.strategy)
}

#[cfg(test)]
mod tests;
