//! What one call of a policy costs, the instance's way in and out included.
#![allow(missing_docs, reason = "criterion's macros write functions")]
#![allow(clippy::print_stderr, reason = "whoever runs it reads it")]

#[allow(dead_code, clippy::unwrap_used, clippy::panic, reason = "shared with tests, which use more of it")]
#[path = "../src/policy/tests/guest.rs"]
mod guest;

use criterion::{Criterion, criterion_group, criterion_main};
use guest::Guest;
use std::path::Path;
use std::sync::Arc;
use wayside::http::request::{Head, Peer};
use wayside::policy::{Engine, EngineSettings, Identity, Limits, Question, Version, Wall};
use wayside::service::catalog::Catalog;
use wayside::service::decision::said::Said;
use wayside::service::{Service, ServiceLive};

fn load(engine: &Engine, bytes: &[u8], config: &str) -> anyhow::Result<Arc<Version>> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), Engine::precompile(bytes).map_err(anyhow::Error::msg)?)?;
    let identity = Identity { name: "bench".into(), version: "0123456789ab".into(), component: config.to_owned() };
    let version = engine.load(file.path(), identity, config.to_owned(), Limits::default(), Arc::default());
    version.map_err(anyhow::Error::msg)
}

fn question() -> anyhow::Result<Question> {
    let service = Service {
        name: "users-v2".into(),
        settings: Arc::new(wayside::service::Settings::of("bench")),
        endpoints: Default::default(),
        reported: Arc::default(),
        digest: 0,
        tls: None,
        affinity: None,
        live: Arc::new(ServiceLive::default()),
    };
    let catalog: Arc<Catalog> = Arc::new([Arc::new(service)].into_iter().collect());
    let mut request = http::Request::get("/api/users?page=2").header("host", "shop.example");
    request = request.header("x-tier", "gold").header("x-tenant", "acme-19");
    request = request.header("cookie", "theme=dark; sid=user-7");
    for n in 0..10 {
        request = request.header(format!("x-header-{n}"), "some value of usual length");
    }
    let (parts, ()) = request.body(())?.into_parts();
    Ok(Question {
        head: Head::new(parts, Peer::new(([203, 0, 113, 7], 4711).into()), &[]),
        catalog,
        now_ms: 1_700_000_000_000,
        started: std::time::Instant::now(),
        seed: 7,
        wall: None,
    })
}

/// Reads a header, gives a reason, names a service.
fn header() -> Guest {
    let mut guest =
        Guest::new().import("request", "header", "(param i32 i32 i32)").import("plan", "reason", "(param i32 i32)");
    let [name, reason, users] = ["x-tier", "asked for by header", "users-v2"].map(|text| guest.text(text));
    guest.decide(&format!(
        "(call $request.header {name} (i32.const 64))
         (if (i32.eqz (i32.load8_u (i32.const 64))) (then (return (call $next))))
         (call $plan.reason {reason}) (call $forward {users})"
    ))
}

fn calls(criterion: &mut Criterion) {
    let mut run = || -> anyhow::Result<()> {
        let engine = Engine::new(EngineSettings::for_workers(1))?;
        let read = |path: &str| std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(path));
        let rules: String = (0..20).map(|n| format!("/api/users acme-{n} gold users-v2\n")).collect();
        let guests = [
            ("next", Guest::new().module(), ""),
            ("header, reason, forward", header().module(), ""),
            // In Rust: it reads a header and a cookie, hashes the user, gives a reason, and forwards.
            ("canary", read("guest-examples/prebuilt/canary.wasm")?, "100"),
            // It reads two headers and the path; the last of its 20 rules fits; it gives a reason, and forwards.
            ("tenant", read("guest-examples/prebuilt/tenant.wasm")?, &rules),
            // The same two as they were with 0.1.0 of the interface: a call for each input.
            ("canary, 0.1.0", read("tests/guests/published/canary-0.1.0.wasm")?, "100"),
            ("tenant, 0.1.0", read("tests/guests/published/tenant-0.1.0.wasm")?, &rules),
        ];
        for (name, bytes, config) in guests {
            let version = load(&engine, &bytes, config)?;
            let question = question()?;
            criterion.bench_function(name, |bencher| bencher.iter(|| version.decide(0, question.clone())));
            // The same where what it reads and does is noted for a record, and its decision made bytes.
            let noted = Question { wall: Some(Wall::noting()), ..question };
            criterion.bench_function(&format!("{name}, noted"), |bencher| {
                bencher.iter(|| {
                    let called = version.decide(0, noted.clone());
                    (Said::of(&called.outcome).bytes(), called)
                });
            });
        }
        Ok(())
    };
    if let Err(error) = run() {
        eprintln!("{error:#}");
        std::process::exit(1);
    }
}

criterion_group!(benches, calls);
criterion_main!(benches);
