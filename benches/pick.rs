//! What a pick costs, for each strategy, over services of three sizes.
#![allow(missing_docs, reason = "criterion's macros write functions")]

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use wayside::service::balance::{Balancer, Memory, Wanted};
use wayside::service::plan::Plan;
use wayside::service::plan::Strategy;
use wayside::service::{Endpoint, Live, Service, ServiceLive, Settings};

const STRATEGIES: [Strategy; 7] = [
    Strategy::RoundRobin,
    Strategy::WeightedRoundRobin,
    Strategy::Random,
    Strategy::LeastRequest,
    Strategy::PeakEwma,
    Strategy::Hash,
    Strategy::Sticky,
];

fn service(strategy: Strategy, size: u16) -> Service {
    let endpoint = |index: u16| {
        let live = Live::default();
        live.latency_us.store(1000 + u32::from(index), Relaxed);
        Arc::new(Endpoint {
            id: index.into(),
            service: "users".into(),
            address: ([10, 0, 0, 1], 10_000 + index).into(),
            weight: 1 + u32::from(index % 3),
            zone: None,
            local: true,
            metadata: Default::default(),
            source_healthy: true,
            live: Arc::new(live),
        })
    };
    Service {
        name: "users".into(),
        settings: Arc::new(Settings { strategy, ..Settings::of("bench") }),
        endpoints: (0..size).map(endpoint).collect(),
        reported: Arc::default(),
        tls: None,
        live: Arc::new(ServiceLive::default()),
    }
}

fn picks(criterion: &mut Criterion) {
    for strategy in STRATEGIES {
        let mut group = criterion.benchmark_group(strategy.name());
        for size in [3, 30, 300] {
            let service = service(strategy, size);
            let mut balancer = Balancer::new(7, Arc::new(Memory::default()));
            // A thousand users, so that what is remembered for them has a usual size.
            let keys: Vec<String> = (0..1000).map(|user| format!("user-{user}")).collect();
            let (plan, mut turn) = (Plan::default(), 0);
            group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
                bencher.iter(|| {
                    turn = (turn + 1) % keys.len();
                    let wanted = Wanted { service: &service, plan: &plan, tried: &[], key: &keys[turn], now_ms: 0 };
                    balancer.pick(black_box(wanted))
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, picks);
criterion_main!(benches);
