//! Friendly and hostile guests, each in a gateway's place: a version that was compiled, loaded and asked.

mod guest;

use super::*;
use crate::base::digest;
use crate::discovery::Observed;
use crate::http::request::{Head, Peer};
use crate::service::catalog::Catalog;
use crate::service::decision::{Called, FaultKind, Forward, Outcome};
use crate::service::{Endpoint, Live, Service, ServiceLive};
use guest::Guest;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::{Duration, Instant};

const WORKERS: usize = 2;
const NOW_MS: u64 = 1_700_000_000_123;

fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| Engine::new(EngineSettings::for_workers(WORKERS)).unwrap())
}

/// Wall time means little on a machine that runs other tests.
fn limits() -> Limits {
    Limits { wall: Duration::from_secs(20), ..Limits::default() }
}

fn try_load(guest: Guest, limits: Limits, live: Arc<PolicyLive>, config: &str) -> Result<Arc<Version>, String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    let module = guest.module();
    std::fs::write(file.path(), Engine::precompile(&module)?).unwrap();
    let identity = identity(&digest::full(&module));
    engine().load(file.path(), identity, config.to_owned(), limits, live).map_err(|error| error.to_string())
}

/// A version of the policy `test`.
fn identity(component: &str) -> Identity {
    Identity { name: "test".into(), version: "0123456789ab".into(), component: component.to_owned() }
}

fn load_with(guest: Guest, limits: Limits) -> Arc<Version> {
    try_load(guest, limits, Arc::default(), "").unwrap()
}

fn load(guest: Guest) -> Arc<Version> {
    load_with(guest, limits())
}

fn catalog() -> Arc<Catalog> {
    static CATALOG: LazyLock<Arc<Catalog>> = LazyLock::new(|| {
        let endpoint = |n: u8| {
            let live = Live::default();
            live.in_flight.store(10 - u32::from(n), Relaxed);
            Arc::new(Endpoint {
                id: 100 + u32::from(n),
                service: "users".into(),
                address: ([10, 0, 0, n], 80).into(),
                weight: 1,
                zone: None,
                local: n.is_multiple_of(2),
                tier: 0,
                metadata: [("version".to_owned(), format!("v{}", n % 2))].into(),
                source_healthy: n != 5,
                live: Arc::new(live),
            })
        };
        let service = Service {
            name: "users".into(),
            settings: Arc::new(crate::service::Settings::of("test")),
            endpoints: (1..=5).map(endpoint).collect(),
            reported: Arc::new(Observed { revision: "r7".into(), held: Some("too few".into()), ..Observed::default() }),
            digest: 0,
            tls: None,
            affinity: None,
            live: Arc::new(ServiceLive::default()),
        };
        Arc::new([Arc::new(service)].into_iter().collect())
    });
    Arc::clone(&CATALOG)
}

fn question() -> Question {
    let request =
        http::Request::get("http://Shop.example:80/a/b?user=a%20b").header("x-canary", "1").header("x-n", "2");
    let (parts, ()) = request.body(()).unwrap().into_parts();
    Question {
        head: Head::new(parts, Peer::new(([203, 0, 113, 7], 4711).into()), &[]),
        catalog: catalog(),
        now_ms: NOW_MS,
        started: Instant::now(),
        seed: 42,
        wall: None,
    }
}

fn ask(version: &Version) -> Called {
    version.decide(0, question())
}

#[track_caller]
fn forward(called: Called) -> Forward {
    match called.outcome {
        Outcome::Forward(forward) => Arc::into_inner(forward).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn fault(called: Called) -> (FaultKind, String) {
    match called.outcome {
        Outcome::Fault(fault) => (fault.kind, fault.message),
        other => panic!("{other:?}"),
    }
}

/// Waits for what another thread does.
#[track_caller]
pub(super) fn until(done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "it never happened");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn full(version: &Version) -> bool {
    version.stats().ready == WORKERS * engine().settings().ready_per_worker
}

mod answers;
mod bounds;
mod interface;
