//! Whoever has room is found, among however many who have none.

use super::super::tests::{balancer, service, strategies, wanted};
use super::super::{Strategy, Wanted};
use crate::service::admission::Limits;
use crate::service::plan::Plan;
use crate::service::{Endpoint, InFlight, Live, Service, Settings};
use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

fn limited(strategy: Strategy, weights: &[u32], each: u32) -> Service {
    let service = service(strategy, weights);
    let limits = Limits { endpoint_requests: NonZero::new(each), ..Limits::default() };
    let settings = Arc::new(Settings { limits, ..Settings::clone(&service.settings) });
    Service { settings, ..service }
}

/// So many requests in flight there.
fn busy(endpoint: &Arc<Endpoint>, count: u32) -> Vec<InFlight> {
    (0..count).map(|_| InFlight::enter(&endpoint.live, 0)).collect()
}

#[test]
fn the_only_one_of_200_that_has_room_is_found_by_every_request() {
    use Strategy::*;
    for strategy in [RoundRobin, WeightedRoundRobin, Random, LeastRequest, PeakEwma, Hash, Maglev, Sticky] {
        let service = limited(strategy, &[1; 200], 2);
        let free = &service.endpoints[137];
        let others = service.endpoints.iter().filter(|endpoint| endpoint.id != free.id);
        let _busy: Vec<_> = others.flat_map(|endpoint| busy(endpoint, 2)).collect();
        let mut balancer = balancer(7);
        for turn in 0..500 {
            let key = turn.to_string();
            let picked = balancer.pick_with_room(wanted(&service, &key));
            assert_eq!(picked.map(|picked| picked.endpoint.id), Some(free.id), "{strategy:?}, request {turn}");
        }
        let _last = busy(free, 2);
        assert!(balancer.pick_with_room(wanted(&service, "")).is_none(), "{strategy:?}");
    }
}

#[test]
fn a_newcomer_takes_what_nobody_else_has_room_for() {
    let (mut service, now_ms) = (limited(Strategy::RoundRobin, &[], 10), 1_000_000);
    let endpoint = |number: u32| {
        let live = Arc::new(Live::new(true, if number == 99 { now_ms } else { 0 }));
        Arc::new(Endpoint { live, ..Endpoint::of("users", number, ([10, 0, 0, number as u8], 80).into()) })
    };
    service.endpoints = (0..100).map(endpoint).collect();
    service.endpoints[0].live.group().unwrap().declare(Some(Duration::from_secs(30)), None);
    let newcomer = &service.endpoints[99];
    let _busy: Vec<_> = service.endpoints[..99].iter().flat_map(|endpoint| busy(endpoint, 10)).collect();
    let mut balancer = balancer(7);
    let mut taken = Vec::new();
    for _ in 0..10 {
        let picked = balancer.pick_with_room(Wanted { now_ms, ..wanted(&service, "") });
        assert_eq!(picked.as_ref().map(|picked| picked.endpoint.id), Some(newcomer.id));
        taken.push(picked);
    }
    assert!(balancer.pick_with_room(Wanted { now_ms, ..wanted(&service, "") }).is_none());
}

proptest! {
    #[test]
    fn room_is_found_if_there_is_any_and_never_exceeded(
        strategy in strategies(),
        in_flight in prop::collection::vec(0u32..3, 1..120),
        weights in prop::collection::vec(0u32..3, 120),
        tried in prop::collection::vec(100u32..230, 0..4),
        narrows in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let service = limited(strategy, &weights[..in_flight.len()], 2);
        // Most are full.
        let loads = service.endpoints.iter().zip(&in_flight);
        let mut held: Vec<InFlight> =
            loads.flat_map(|(endpoint, load)| busy(endpoint, if *load == 0 { 1 } else { 2 })).collect();
        let subset = if narrows { vec![("version".to_owned(), "v1".to_owned())] } else { Vec::new() };
        let plan = Plan { subset, ..Plan::default() };
        let fits = |endpoint: &Endpoint| {
            let version = !narrows || endpoint.metadata["version"] == "v1";
            version && endpoint.weight > 0 && !tried.contains(&endpoint.id)
        };
        let mut left: usize = service.endpoints.iter().filter(|e| fits(e) && e.in_flight() < 2).count();
        let mut balancer = balancer(seed);
        loop {
            let wanted = Wanted { plan: &plan, tried: &tried, ..wanted(&service, "k") };
            let Some(mut picked) = balancer.pick_with_room(wanted) else { break };
            prop_assert!(fits(&picked.endpoint) && picked.endpoint.in_flight() <= 2);
            held.push(picked.enter(0));
            prop_assert!(left > 0);
            left -= 1;
        }
        prop_assert_eq!(left, 0);
    }
}
