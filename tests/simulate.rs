//! The strategies before modelled endpoints, on a virtual clock: what they must hold whatever is wrong with an endpoint.
//! The picks and the counts are the gateway's own code. `make simulate` prints them side by side and draws them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on must fail")]

mod admission;
mod engine;
mod model;
mod picture;
mod release;

use engine::{SECOND, Scene};
use model::{Fault, Model};
use wayside::service::Settings;
use wayside::service::plan::Strategy::{self, Hash, LeastRequest, PeakEwma};

/// Three, twenty and two hundred endpoints: how many, slots of each, ms for each request.
const FEW: (usize, usize, u64) = (3, 8, 4);
const SOME: (usize, usize, u64) = (20, 4, 10);
const MANY: (usize, usize, u64) = (200, 4, 50);

/// Those that go by what endpoints do.
const WATCHFUL: [Strategy; 2] = [LeastRequest, PeakEwma];

/// From the second second on, one endpoint of these is ill; what counts is what comes then.
fn one_ill(strategy: Strategy, size: (usize, usize, u64), fault: Fault) -> Scene {
    let seconds = if size == MANY { 8 } else { 11 };
    Scene { from: 2 * SECOND, ..Scene::of(strategy, size, 0.6, seconds).with(fault, 1, 2..100) }
}

/// envoy#39737: whoever fails fast looks idle, and draws all traffic. Without ejection, checks or retries.
#[test]
fn row_20_nobody_who_fails_draws_traffic() {
    for strategy in WATCHFUL {
        for size in [FEW, SOME, MANY] {
            for fault in [Fault::Refuses, Fault::Fails, Fault::Hangs] {
                // Chance may be kind: the small ones are run with more of it.
                let seeds = if size == FEW { 7..12 } else { 7..8 };
                for seed in seeds {
                    let scene = Scene { seed, ..one_ill(strategy, size, fault) };
                    let (outcome, seconds) = (scene.run(), scene.seconds as usize);
                    let (lost, share) = (outcome.lost(), outcome.share(0, 5..seconds));
                    assert!(
                        lost < 0.01 && share < 0.03,
                        "{strategy:?} {size:?} {fault:?} {seed}: {lost} lost, {share} of its share"
                    );
                }
            }
        }
    }
}

#[test]
fn a_second_attempt_saves_what_one_endpoint_loses() {
    for (strategy, fault) in [(LeastRequest, Fault::Refuses), (LeastRequest, Fault::Fails), (PeakEwma, Fault::Fails)] {
        let scene = Scene { attempts: 2, ..one_ill(strategy, FEW, fault) };
        assert_eq!(scene.run().lost, 0, "{strategy:?} {fault:?}");
    }
}

#[test]
fn a_slow_one_costs_nothing_but_its_own_time() {
    for strategy in WATCHFUL {
        for size in [FEW, SOME] {
            let outcome = one_ill(strategy, size, Fault::Slow(10.0)).run();
            let (share, p50) = (outcome.share(0, 5..11), outcome.percentile(0.5));
            assert!(outcome.lost == 0 && share < 0.25, "{strategy:?} {size:?}: {} lost, {share}", outcome.lost);
            assert!(p50 < 1.5 * size.2 as f64, "{strategy:?} {size:?}: {p50} ms");
        }
    }
}

#[test]
fn a_third_that_is_lost_at_once_is_left_alone() {
    for strategy in WATCHFUL {
        for fault in [Fault::Refuses, Fault::Hangs] {
            let scene = Scene::of(strategy, SOME, 0.4, 10).with(fault, 7, 2..100);
            let outcome = Scene { from: 2 * SECOND, ..scene }.run();
            assert!(outcome.lost() < 0.01, "{strategy:?} {fault:?}: {}", outcome.lost());
        }
    }
}

/// traefik#12306 and its like: a latency that is never measured again keeps its endpoint out for ever.
#[test]
fn row_20_whoever_was_slow_for_a_while_comes_back() {
    for (size, seed) in [(FEW, 7), (FEW, 8), (FEW, 9), (SOME, 7), (SOME, 8), (MANY, 7), (MANY, 8)] {
        let scene = Scene { seed, ..Scene::of(PeakEwma, size, 0.6, 20) };
        let share = scene.with(Fault::Slow(30.0), 1, 3..5).run().share(0, 15..20);
        assert!(share >= 0.5, "{size:?} {seed}: {share} of its share");
    }
}

#[test]
fn whoever_only_traffic_makes_fast_gets_some() {
    let cold = Scene::of(PeakEwma, SOME, 0.6, 12).with(Fault::Cold(10.0, 1_000_000), 1, 0..100);
    let share = cold.run().share(0, 2..12);
    assert!(share >= 0.05, "{share} of its share");
}

/// traefik#12306: of 1,500 endpoints, five had the traffic.
#[test]
fn row_20_nobody_of_1500_is_forgotten() {
    for strategy in WATCHFUL {
        let scene = Scene { rate: 6_000.0, ..Scene::of(strategy, (1_500, 4, 50), 0.1, 23) };
        let (least, most) = scene.run().shares(3..23);
        assert!(least >= 0.3 && most < 2.0, "{strategy:?}: from {least} to {most}");
    }
}

#[test]
fn each_has_its_weight() {
    for size in [FEW, SOME] {
        let mut scene = Scene::of(LeastRequest, size, 0.8, 13);
        let (least, most) = scene.run().shares(3..13);
        assert!(least > 0.9 && most < 1.1, "{size:?}: from {least} to {most}");
        // Each second one is twice as large, and says so.
        let small = scene.endpoints[0].clone();
        scene.endpoints = (0..size.0).map(|place| Model::new(small.slots * (1 + place % 2), small.mean_us)).collect();
        scene.weights = (0..size.0).map(|place| 1 + place as u32 % 2).collect();
        let weight: u32 = scene.weights.iter().sum();
        scene.rate *= f64::from(weight) / size.0 as f64;
        let outcome = scene.run();
        for place in 0..size.0 {
            let fair = scene.weights[place] as f64 * size.0 as f64 / f64::from(weight);
            let share = outcome.share(place, 3..13) / fair;
            assert!((0.85..1.15).contains(&share), "{size:?}: {share} of what {} weighs", scene.weights[place]);
        }
    }
}

/// Were the first of equals taken, sixty gateways would all send to it: the median was ten times as long.
#[test]
fn sixty_gateways_do_not_march_in_step() {
    let median = |gateways| Scene { gateways, ..Scene::of(LeastRequest, SOME, 0.8, 8) }.run().percentile(0.5);
    let (one, sixty) = (median(1), median(60));
    assert!(sixty < 2.0 * one, "{one} ms with one gateway, {sixty} ms with sixty");
}

/// Three zones of eight, a gateway in each: from the fourth second to the eighth, one zone is gone, which checks find after
/// a second.
fn zones(when: std::ops::Range<u64>) -> Scene {
    let mut scene = Scene { gateways: 3, zones: 3, ..Scene::of(LeastRequest, (24, 4, 10), 0.5, 12) };
    scene.settings.zone_aware = true;
    scene.checks = Some(SECOND);
    for place in (0..24).step_by(3) {
        scene.endpoints[place].fault = Some((Fault::Refuses, when.start * SECOND..when.end * SECOND));
    }
    scene
}

#[test]
fn traffic_stays_in_its_zone_and_a_lost_one_is_shared_by_the_others() {
    let well = zones(99..100).run();
    assert_eq!((well.stayed.0, well.lost), (well.stayed.1, 0));
    let lost = Scene { from: 5 * SECOND + SECOND / 10, ..zones(4..8) }.run();
    // What comes after the checks have found it, until they find that it is well again.
    let shares: Vec<f64> = (0..24).map(|place| lost.share(place, 6..9)).collect();
    assert_eq!(lost.lost, 0);
    for (place, share) in shares.into_iter().enumerate() {
        let fair = if place % 3 == 0 { 0.0 } else { 1.5 };
        assert!((share - fair).abs() < 0.2, "{place}: {share}");
    }
    // The zone as a whole; each of its endpoints varies by chance.
    let back = (0..24).step_by(3).map(|place| lost.share(place, 10..12)).sum::<f64>() / 8.0;
    assert!((0.9..1.1).contains(&back), "{back}");
}

#[test]
fn half_of_the_first_tier_carries_what_it_can_and_the_next_takes_the_rest() {
    let mut scene = Scene::of(LeastRequest, SOME, 0.25, 12).with(Fault::Refuses, 5, 4..8);
    scene.settings.failover = true;
    scene.checks = Some(SECOND);
    scene.tiers = (0..20).map(|place| u32::from(place >= 10)).collect();
    let outcome = Scene { from: 5 * SECOND + SECOND / 10, ..scene }.run();
    let first = |seconds: std::ops::Range<usize>| {
        (0..10).map(|place| outcome.share(place, seconds.clone())).sum::<f64>() / 20.0
    };
    assert_eq!((first(2..4), outcome.lost), (1.0, 0));
    // 1.4 times what is healthy of it.
    assert!((0.67..0.73).contains(&first(6..9)), "{}", first(6..9));
    assert_eq!(first(10..12), 1.0);
}

#[test]
fn a_hot_key_takes_no_more_than_its_bound() {
    let scene = |hash_bound| {
        let scene = Scene { hot: 0.3, ..Scene::of(Hash, SOME, 0.6, 8) };
        Scene { settings: Settings { hash_bound, ..scene.settings.clone() }, ..scene }.run()
    };
    let (bound, free) = (scene(Some(1.25)), scene(None));
    // Of two in flight on the average, the bound is three.
    assert!(bound.most <= 2.0 && free.most > 8.0, "{} {}", bound.most, free.most);
    assert!(bound.lost == 0 && free.lost() > 0.1, "{} {}", bound.lost, free.lost());
}
