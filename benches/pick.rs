//! What a pick costs, for each strategy, over services of four sizes: of all endpoints, of those that a plan leaves, for a
//! second attempt, and after a change of health.
#![allow(missing_docs, reason = "criterion's macros write functions")]

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;
use wayside::service::balance::{Balancer, Memory, Wanted};
use wayside::service::plan::Plan;
use wayside::service::plan::Strategy;
use wayside::service::{Endpoint, Live, Pace, Service, ServiceLive, Settings};

const STRATEGIES: [Strategy; 8] = [
    Strategy::RoundRobin,
    Strategy::WeightedRoundRobin,
    Strategy::Random,
    Strategy::LeastRequest,
    Strategy::PeakEwma,
    Strategy::Hash,
    Strategy::Maglev,
    Strategy::Sticky,
];

fn service(strategy: Strategy, size: u16) -> Service {
    let endpoint = |index: u16| {
        let live = Live::default();
        live.load.answered(Duration::from_micros(1000 + u64::from(index)), &Pace::default(), 0);
        Arc::new(Endpoint {
            weight: 1 + u32::from(index % 3),
            metadata: [("version".to_owned(), format!("v{}", index % 2))].into(),
            live: Arc::new(live),
            ..Endpoint::of("users", index.into(), ([10, 0, 0, 1], 10_000 + index).into())
        })
    };
    Service {
        name: "users".into(),
        settings: Arc::new(Settings { strategy, ..Settings::of("bench") }),
        endpoints: (0..size).map(endpoint).collect(),
        reported: Arc::default(),
        digest: 0,
        tls: None,
        affinity: None,
        live: Arc::new(ServiceLive::default()),
    }
}

const SIZES: [u16; 4] = [3, 100, 1_000, 10_000];

/// Picks for a thousand users, so that what is remembered for them has a usual size.
fn picks(criterion: &mut Criterion) {
    let keys: Vec<String> = (0..1000).map(|user| format!("user-{user}")).collect();
    let half = Plan { subset: vec![("version".to_owned(), "v1".to_owned())], ..Plan::default() };
    let cases = [("", Plan::default(), &[][..]), (" of half", half, &[]), (" again", Plan::default(), &[2])];
    for strategy in STRATEGIES {
        for (case, plan, tried) in &cases {
            let mut group = criterion.benchmark_group(format!("{}{case}", strategy.name()));
            for size in SIZES {
                let service = service(strategy, size);
                let mut balancer = Balancer::new(7, Arc::new(Memory::default()));
                let mut turn = 0;
                group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
                    bencher.iter(|| {
                        turn = (turn + 1) % keys.len();
                        let wanted = Wanted { service: &service, plan, tried, key: &keys[turn], now_ms: 0 };
                        balancer.pick(black_box(wanted))
                    });
                });
            }
            group.finish();
        }
    }
}

/// A pick for which all endpoints are walked over, since the health of one has changed.
fn changes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("after a change of health");
    for size in SIZES {
        let service = service(Strategy::RoundRobin, size);
        let mut balancer = Balancer::new(7, Arc::new(Memory::default()));
        let (plan, mut healthy) = (Plan::default(), true);
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| {
                healthy = !healthy;
                service.endpoints[1].live.checked(healthy);
                let wanted = Wanted { service: &service, plan: &plan, tried: &[], key: "", now_ms: 0 };
                balancer.pick(black_box(wanted))
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(500)).sample_size(20);
    targets = picks, changes
}
criterion_main!(benches);
