//! What telling costs a worker for each exchange.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

use criterion::{Criterion, criterion_group, criterion_main};
use std::cell::RefCell;
use std::hint::black_box;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wayside::balance::{Balancer, Chance, Memory};
use wayside::config::{AccessLog, Gateway, Telemetry as Settings, default_settings};
use wayside::exchange::{Attempt, End, Exchange, PolicyCall};
use wayside::gateway::Shared;
use wayside::listener::Clock;
use wayside::request::Head;
use wayside::service::{Endpoint, Service};
use wayside::telemetry::Telemetry;
use wayside::worker::Worker;

fn worker(settings: &Settings) -> Rc<Worker> {
    let sticky = Arc::new(Memory::default());
    let shared = Arc::new(Shared {
        snapshot: arc_swap::ArcSwap::from_pointee(Default::default()),
        connections: Default::default(),
        drain: tokio::sync::watch::Sender::new(false),
        sticky: Arc::clone(&sticky),
        telemetry: Telemetry::start(settings).unwrap(),
    });
    Rc::new(Worker {
        index: 0,
        pools: Rc::default(),
        balancer: RefCell::new(Balancer::new(1, sticky)),
        chance: RefCell::new(Chance(1)),
        recorder: shared.telemetry.recorder(),
        shared,
    })
}

/// One policy call and one attempt.
fn exchange(worker: &Rc<Worker>, settings: &Settings) -> Box<Exchange> {
    let clock = Rc::new(Clock::new(&Gateway::default().limits, false, Instant::now()));
    let request = http::Request::get("/api/users/1?a=b").header("host", "shop.example").header("user-agent", "bench/1");
    let (parts, ()) = request.body(()).unwrap().into_parts();
    let peer: SocketAddr = "127.0.0.1:4711".parse().unwrap();
    let mut exchange = Exchange::begin(worker, peer, Clock::enter(&clock), &parts.headers, settings);
    exchange.head = Some(Head::new(parts, peer.ip()));
    exchange.route = Some("canary".into());
    let settings = Arc::new(default_settings(&Arc::from("local")));
    exchange.service = Some(Arc::new(Service {
        name: "users".into(),
        settings,
        endpoints: Vec::new(),
        reported: Arc::default(),
        live: Arc::default(),
    }));
    exchange.calls.push(PolicyCall {
        policy: "canary".into(),
        version: None,
        decision: "forward",
        reason: "asked for by header".into(),
        strategy: None,
        path: None,
        query: None,
        fault: None,
        logs: Vec::new(),
        began: Duration::from_micros(1),
        took: Duration::from_micros(1),
    });
    exchange.attempts.push(Attempt {
        span_id: 7,
        endpoint: Arc::new(Endpoint {
            id: 1,
            service: "users".into(),
            address: "127.0.0.1:9001".parse().unwrap(),
            weight: 1,
            zone: None,
            local: true,
            metadata: Default::default(),
            source_healthy: true,
            live: Arc::default(),
        }),
        strategy: Some("round-robin"),
        candidates: 3,
        passed_over: 0,
        began: Duration::from_micros(5),
        took: Duration::from_micros(300),
        outcome: Ok(200),
    });
    (exchange.status, exchange.end) = (200, End::Complete);
    exchange
}

fn finish(criterion: &mut Criterion) {
    // Nobody listens there: the queue is full soon, so building is what a sampled exchange costs at most.
    let otlp = Some("http://127.0.0.1:9".to_owned());
    let cases = [
        ("unsampled", Settings { otlp: None, sample: 0.0, access_log: AccessLog::Off }),
        ("sampled, queue full", Settings { otlp, sample: 1.0, access_log: AccessLog::Off }),
    ];
    for (name, settings) in cases {
        let worker = worker(&settings);
        let exchange = exchange(&worker, &settings);
        criterion.bench_function(&format!("finish/{name}"), |bencher| {
            bencher.iter(|| worker.recorder.finish(black_box(&exchange)));
        });
    }
}

criterion_group!(benches, finish);
criterion_main!(benches);
