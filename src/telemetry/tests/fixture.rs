//! Exchanges that never were on a wire, for the tests of what is told of them and for the bench of what that costs.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wayside::base::chance::Chance;
use wayside::control::config;
use wayside::gateway::Shared;
use wayside::http::downstream::clock::Clock;
use wayside::http::downstream::spread::Spread;
use wayside::http::request::{Head, Peer};
use wayside::http::settings::{Gateway, Telemetry as Settings};
use wayside::proxy::exchange::{Attempt, AttemptError, Exchange, PolicyCall};
use wayside::proxy::worker::Worker;
use wayside::service::balance::{Balancer, Memory};
use wayside::service::plan::Strategy;
use wayside::service::{Endpoint, Service};
use wayside::telemetry::Telemetry;

/// A worker that tells this way.
pub(crate) fn worker(telemetry: Telemetry) -> Rc<Worker> {
    let sticky = Arc::new(Memory::default());
    let shared = Arc::new(Shared {
        snapshot: arc_swap::ArcSwap::from_pointee(Default::default()),
        clients: Default::default(),
        spread: Spread::new(1).0,
        drain: tokio::sync::watch::Sender::new(false),
        sticky: Arc::clone(&sticky),
        telemetry,
    });
    Rc::new(Worker {
        index: 0,
        pools: Rc::default(),
        balancer: RefCell::new(Balancer::new(1, sticky)),
        calendar: Default::default(),
        complained: Default::default(),
        chance: RefCell::new(Chance(1)),
        recorder: shared.telemetry.recorder(),
        shared,
    })
}

/// An exchange with this request.
pub(crate) fn exchange(worker: &Rc<Worker>, request: http::request::Builder, settings: &Settings) -> Box<Exchange> {
    let clock = Rc::new(Clock::new(&Gateway::default().limits, false, Instant::now()));
    let (parts, ()) = request.body(()).unwrap().into_parts();
    let peer = Peer::new("127.0.0.9:4711".parse().unwrap());
    let mut exchange = Exchange::begin(worker, Arc::clone(&peer), Clock::enter(&clock), &parts.headers, settings);
    exchange.head = Some(Head::new(parts, peer, &[]));
    exchange
}

pub(crate) fn service(name: &str) -> Arc<Service> {
    let settings = Arc::new(config::default_settings(&Arc::from("local")));
    Arc::new(Service {
        name: name.into(),
        settings,
        endpoints: Vec::new(),
        reported: Arc::default(),
        live: Arc::default(),
    })
}

pub(crate) fn attempt(span_id: u64, outcome: Result<u16, AttemptError>) -> Attempt {
    let endpoint = Endpoint {
        id: 1,
        service: "users".into(),
        address: "127.0.0.1:9001".parse().unwrap(),
        weight: 1,
        zone: None,
        local: true,
        metadata: Default::default(),
        source_healthy: true,
        live: Arc::default(),
    };
    Attempt {
        span_id,
        endpoint: Arc::new(endpoint),
        strategy: Some(Strategy::LeastRequest.name()),
        candidates: 3,
        passed_over: 0,
        began: Duration::from_millis(1),
        took: Duration::from_millis(2),
        outcome,
    }
}

pub(crate) fn call(policy: &str, decision: &'static str) -> PolicyCall {
    PolicyCall {
        policy: policy.into(),
        version: None,
        decision,
        reason: String::new(),
        strategy: None,
        path: None,
        query: None,
        fault: None,
        logs: Vec::new(),
        began: Duration::from_micros(10),
        took: Duration::from_micros(5),
    }
}
