//! Slow start and panic, with a clock that is told.

use super::*;
use crate::base::time::process_ms;
use crate::service::balance::{Balancer, Memory, Wanted};
use crate::service::plan::{Plan, Strategy};
use crate::service::{Endpoints, Live, Service, ServiceLive, Settings};
use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};
use std::time::Duration;

const WINDOW_MS: u64 = 30_000;

/// A service of endpoints that are healthy since then, with these weights and tiers.
fn service(since_and_weight: &[(u64, u32, u32)], panic: Option<u32>) -> Service {
    let live = ServiceLive::default();
    live.group.declare(Some(Duration::from_millis(WINDOW_MS)), panic);
    let endpoint = |(index, (since_ms, weight, tier)): (usize, &(u64, u32, u32))| {
        let own = Live::new(true, *since_ms);
        own.join(&live.group);
        let address = ([10, 0, (index / 256) as u8, index as u8], 80).into();
        let (weight, tier, live) = (*weight, *tier, Arc::new(own));
        Arc::new(Endpoint { weight, tier, live, ..Endpoint::of("users", index as u32, address) })
    };
    Service {
        name: "users".into(),
        settings: Arc::new(Settings { panic, ..Settings::of("test") }),
        endpoints: since_and_weight.iter().enumerate().map(endpoint).collect(),
        reported: Arc::default(),
        digest: 0,
        tls: None,
        affinity: None,
        live: Arc::new(live),
    }
}

/// How often each endpoint is picked of so many times, all at the same moment.
fn picked(service: &Service, strategy: Strategy, now_ms: u64, picks: usize) -> Vec<usize> {
    let mut balancer = Balancer::new(7, Arc::new(Memory::default()));
    let plan = Plan { strategy: Some(strategy), ..Plan::default() };
    let mut counts = vec![0; service.endpoints.len()];
    for _ in 0..picks {
        let wanted = Wanted { service, plan: &plan, tried: &[], key: "", now_ms };
        counts[balancer.pick(wanted).unwrap().endpoint.id as usize] += 1;
    }
    counts
}

/// Field notes, row 21: newcomers got their whole share at once, or none at all, or all of them ramped for nobody.
#[test]
fn row_21_whoever_comes_gets_its_share_step_by_step_by_the_time_that_it_is_healthy() {
    let mut since = vec![(0, 1, 0); 10];
    since[3].0 = 1_000_000;
    let service = service(&since, None);
    for strategy in [Strategy::RoundRobin, Strategy::WeightedRoundRobin, Strategy::Random] {
        // Its share against the mean of the others, in percent: a tenth at first, a half in the middle, all of it at the end.
        let share = |after_ms: u64| {
            let counts = picked(&service, strategy, 1_000_000 + after_ms, 40_000);
            let others = counts.iter().sum::<usize>() - counts[3];
            counts[3] * 9 * 100 / others
        };
        let shares = [0, 1_500, 15_000, 27_000, 30_000, 3_000_000].map(share);
        for (share, expected) in shares.into_iter().zip([10, 10, 50, 90, 100, 100]) {
            assert!(share.abs_diff(expected) <= 6, "{strategy:?}: {shares:?}");
        }
    }
    // Another one comes back after it was put aside: it begins anew, and the first one goes on.
    let live = &service.endpoints[5].live;
    assert_eq!(live.eject_after(service.endpoints.ready().seen), Some(true));
    live.comes_back(5, 1_015_000);
    let ramps = |now_ms| [3, 5, 0].map(|at: usize| service.endpoints[at].live.ramp_permille(now_ms));
    assert_eq!(ramps(1_015_000), [500, 100, 1000]);
    assert_eq!(ramps(1_030_000), [1000, 500, 1000]);
    // So does one that checks, or failing connects, have put aside; one that was never put aside goes on.
    let live = &service.endpoints[6].live;
    let checks = |live: &Live| live.checked(false);
    let connects = |live: &Live| assert!((0..3).any(|_| live.connect_failed(Duration::ZERO)));
    for put_aside in [checks as fn(&Live), connects] {
        let began = process_ms();
        put_aside(live);
        assert!(!live.is_healthy());
        live.checked(true);
        assert!(live.is_healthy() && live.healthy_since_ms() >= began);
    }
    service.endpoints[7].live.checked(true);
    service.endpoints[7].live.on_probation();
    assert_eq!(service.endpoints[7].live.healthy_since_ms(), 0);
    // What is written anew in the configuration, or listed anew, begins nothing.
    service.live.group.declare(Some(Duration::from_millis(WINDOW_MS)), None);
    let again = Endpoints::after(&service.endpoints, service.endpoints.to_vec());
    assert_eq!(again[5].live.ramp_permille(1_030_000), 500);
    service.live.group.declare(None, None);
    assert_eq!(ramps(1_015_000), [1000; 3]);
}

/// The same row: two newcomers among 130 had no traffic to get warm by (envoy#29259).
#[test]
fn row_21_two_among_many_have_a_tenth_of_their_share_at_once() {
    let mut since = vec![(0, 1, 0); 132];
    (since[7].0, since[100].0) = (500_000, 500_000);
    let counts = picked(&service(&since, None), Strategy::RoundRobin, 500_000, 132_000);
    let newcomers = counts[7] + counts[100];
    assert!((100..350).contains(&newcomers), "{newcomers} of 2,000");
}

/// envoy#25283: a tier that came back had all traffic at once, since slow start only knew those of one tier.
#[test]
fn a_tier_that_comes_back_takes_what_its_endpoints_can_take_by_then() {
    let back = 1_000_000;
    let tiers = |first: u64| [(first, 1, 0), (first, 3, 0), (0, 1, 1), (0, 1, 1)];
    let service = |first: u64| service(&tiers(first), None);
    let share = |service: &Service, now_ms: u64| {
        let counts = picked(service, Strategy::WeightedRoundRobin, now_ms, 10_000);
        (counts[0] + counts[1]) / 100
    };
    let returning = service(back);
    // 1.4 times a tenth at first, and all of it as soon as 72 % can be taken.
    let shares = [0, 6_000, 15_000, 21_900, 30_000, 60_000].map(|after_ms| share(&returning, back + after_ms));
    for (share, expected) in shares.into_iter().zip([14, 28, 70, 100, 100, 100]) {
        assert!(share.abs_diff(expected) <= 2, "{shares:?}");
    }
    // Where all are new, as after a start, nobody waits for anybody.
    assert_eq!(share(&service(0), 0), 100);
    // Of one that has been there, only what is new counts less: three of four, and a tenth of the fourth.
    let mut some = tiers(0);
    some[0].0 = back;
    assert_eq!(share(&self::service(&some, None), back), 100);
    // Shares change while somebody starts slowly, and are then looked at no more.
    let returning = service(back);
    let until = |now_ms| returning.endpoints.ready_at(now_ms).shares_until_ms;
    assert_eq!(
        (until(back), until(back + 299), until(back + 300)),
        (Some(back + 300), Some(back + 300), Some(back + 600))
    );
    assert_eq!(until(back + 30_000), None);
    let last = Arc::clone(&returning.endpoints.ready_at(back + 40_000));
    assert!(Arc::ptr_eq(&last, &returning.endpoints.ready_at(back + 90_000)));
}

#[test]
fn where_all_are_new_nobody_starts_slowly() {
    let service = service(&[(1000, 1, 0), (1000, 3, 0), (1000, 1, 0)], None);
    let ready = service.endpoints.ready();
    for now_ms in [1000, 1001, 9_000, 31_000, 90_000] {
        assert!(service.endpoints.iter().all(|endpoint| ready.ramp_permille(&endpoint.live, now_ms) == 1000));
    }
    let counts = picked(&service, Strategy::WeightedRoundRobin, 1000, 500);
    assert_eq!(counts, [100, 300, 100]);
}

/// Field notes, row 23: traffic went to unhealthy hosts by surprise, or nowhere.
#[test]
fn row_23_all_are_used_only_where_that_is_asked_for_and_then_it_is_told() {
    let sick = |service: &Service, ids: &[usize]| {
        ids.iter().for_each(|id| service.endpoints[*id].live.checked(false));
    };
    let told = |service: &Service| {
        let wanted = Wanted { service, plan: &Plan::default(), tried: &[], key: "", now_ms: 0 };
        let picked = Balancer::new(7, Arc::default()).pick(wanted);
        (service.endpoints.ready().line.places.clone(), picked.map(|picked| picked.panic))
    };
    // By default: what is usable, however little that is, and nothing where nothing is.
    let off = service(&[(0, 1, 0); 4], None);
    sick(&off, &[0, 1, 2]);
    assert_eq!(told(&off), (vec![3], Some(false)));
    sick(&off, &[3]);
    assert_eq!(told(&off), (vec![], None));
    // With a threshold: below it, all with weight, and each pick says so.
    let mut weights = [(0, 1, 0); 5];
    weights[4].1 = 0;
    let on = service(&weights, Some(50));
    sick(&on, &[0, 1]);
    assert_eq!(told(&on), (vec![2, 3], Some(false)), "half of those with weight are well");
    sick(&on, &[2]);
    assert_eq!(told(&on), (vec![0, 1, 2, 3], Some(true)));
    assert_eq!(on.endpoints.ready().usable, 2, "what is well is counted as it is");
    sick(&on, &[3]);
    assert_eq!(told(&on), (vec![0, 1, 2, 3], Some(true)));
    on.endpoints[0].live.checked(true);
    on.endpoints[1].live.checked(true);
    assert_eq!(told(&on), (vec![0, 1], Some(false)));
    // A threshold that is declared later counts at once.
    off.live.group.declare(None, Some(1));
    assert_eq!(told(&off), (vec![0, 1, 2, 3], Some(true)));
}

#[test]
fn a_tier_that_is_gone_is_no_panic_while_another_one_is_well() {
    let tiers = [(0, 1, 0), (0, 1, 0), (0, 1, 1), (0, 1, 1), (0, 1, 1)];
    let service = service(&tiers, Some(50));
    let sick = |ids: &[usize]| ids.iter().for_each(|id| service.endpoints[*id].live.checked(false));
    let line = || (service.endpoints.ready().line.places.clone(), service.endpoints.ready().panic);
    sick(&[0, 1]);
    assert_eq!(line(), (vec![2, 3, 4], false));
    sick(&[2]);
    assert_eq!(line(), (vec![3, 4], false), "two of five, but two of three in their tier");
    sick(&[3]);
    assert_eq!(line(), (vec![2, 3, 4], true));
    sick(&[4]);
    assert_eq!(line(), (vec![0, 1], true));
}

proptest! {
    #[test]
    fn a_line_is_those_that_are_usable_or_in_a_panic_all_of_a_tier(
        endpoints in prop::collection::vec((0u64..100_000, 0u32..3, 0u32..3), 0..20),
        sick in prop::collection::vec(0usize..20, 0..20),
        percent in 0u32..101,
        now_ms in 0u64..200_000,
    ) {
        let service = service(&endpoints, Some(percent).filter(|percent| *percent > 0));
        for id in sick {
            if let Some(endpoint) = service.endpoints.get(id) {
                endpoint.live.checked(false);
            }
        }
        let ready = service.endpoints.ready();
        let of = |fits: &dyn Fn(&Endpoint) -> bool| service.endpoints.iter().filter(|e| fits(e)).count();
        let on_line: Vec<&Arc<Endpoint>> = ready.line.places.iter().map(|place| &service.endpoints[*place as usize]).collect();
        prop_assert_eq!(ready.candidates, of(&|e| e.is_candidate()));
        prop_assert!(on_line.iter().all(|e| e.weight > 0 && e.tier == on_line[0].tier));
        if ready.panic {
            prop_assert!(ready.candidates * 100 < percent as usize * of(&|e| e.weight > 0));
            prop_assert_eq!(on_line.len(), of(&|e| e.weight > 0 && e.tier == on_line[0].tier));
        } else {
            prop_assert!(on_line.iter().all(|e| e.is_candidate()));
            prop_assert_eq!(on_line.is_empty(), ready.candidates == 0);
        }
        // Somebody always has its whole share, and nobody has none.
        let ramps: Vec<u32> = on_line.iter().map(|e| ready.ramp_permille(&e.live, now_ms)).collect();
        prop_assert!(ramps.iter().all(|ramp| (100..=1000).contains(ramp)));
        prop_assert!(ramps.is_empty() || ramps.contains(&1000), "{:?}", ramps);
    }
}
