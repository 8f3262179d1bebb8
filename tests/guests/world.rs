//! A small world to decide in: three services, a loader, and requests.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tempfile::TempDir;
use wayside::base::digest;
use wayside::http::request::{Head, Peer};
use wayside::policy::compile::Cache;
use wayside::policy::{Engine, EngineSettings, Identity, Limits, Question, Version};
use wayside::service::catalog::Catalog;
use wayside::service::decision::{Called, Outcome};
use wayside::service::{Endpoint, Live, Service, ServiceLive};

/// A path of this repository.
pub(crate) fn path(of: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(of)
}

/// Loads components the way that the gateway does.
pub(crate) struct Loader {
    engine: Engine,
    cache: Cache,
    _folder: TempDir,
}

impl Loader {
    pub(crate) fn new() -> Loader {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(&folder.path().join("cache"), Path::new(env!("CARGO_BIN_EXE_wayside"))).unwrap();
        Loader { engine: Engine::new(EngineSettings::for_workers(1)).unwrap(), cache, _folder: folder }
    }

    /// The component of this file, readied.
    pub(crate) async fn load(&self, file: &Path, config: &str, limits: Limits) -> Result<Arc<Version>, String> {
        let bytes = std::fs::read(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let compiled = self.cache.compiled(&bytes, &digest::full(&bytes)).await.map_err(|e| e.to_string())?;
        let (engine, config) = (self.engine.clone(), config.to_owned());
        let identity =
            Identity { name: "test".into(), version: "0123456789ab".into(), component: digest::full(&bytes) };
        let load = move || engine.load(&compiled, identity, config, limits, Arc::default());
        tokio::task::spawn_blocking(load).await.unwrap().map_err(|error| error.to_string())
    }
}

/// Services `users`, `users-v2` and `users-gold` with four endpoints each, in flight to them as the seed says.
pub(crate) fn catalog(seed: u32) -> Arc<Catalog> {
    let endpoint = |service: &'static str, index: u32| {
        let live = Live::default();
        live.in_flight.store((seed.wrapping_mul(index + 7) >> 3) % 5, Relaxed);
        live.checked(!(seed + index).is_multiple_of(4));
        Arc::new(Endpoint {
            local: index.is_multiple_of(2),
            live: Arc::new(live),
            ..Endpoint::of(service, 100 + index, ([10, 0, 0, 1], 8000).into())
        })
    };
    let service = |name: &'static str| {
        let service = Service {
            name: name.into(),
            settings: Arc::new(wayside::service::Settings::of("test")),
            endpoints: (0..4).map(|index| endpoint(name, index)).collect(),
            reported: Arc::default(),
            digest: 0,
            tls: None,
            affinity: None,
            live: Arc::new(ServiceLive::default()),
        };
        Arc::new(service)
    };
    Arc::new(["users", "users-v2", "users-gold"].into_iter().map(service).collect())
}

/// A GET request.
pub(crate) fn question(catalog: &Arc<Catalog>, uri: &str, headers: &[(&str, &str)], client: [u8; 4]) -> Question {
    let mut request = http::Request::builder().uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let parts = request.body(()).unwrap().into_parts().0;
    Question {
        head: Head::new(parts, Peer::new((client, 4711).into()), &[]),
        catalog: catalog.clone(),
        now_ms: 1_700_000_000_000,
        started: std::time::Instant::now(),
        seed: 7,
        wall: None,
    }
}

/// The outcome in a line, without what a catalog holds.
pub(crate) fn said(called: &Called) -> String {
    let outcome = match &called.outcome {
        Outcome::Next => "next".to_owned(),
        Outcome::Forward(forward) => format!("{} {:?} {:?}", forward.service.name, forward.plan, forward.edits),
        Outcome::Respond(answer) => format!("{answer:?}"),
        Outcome::Fault(fault) => format!("{fault:?}"),
    };
    format!("{outcome} ({})", called.reason)
}
