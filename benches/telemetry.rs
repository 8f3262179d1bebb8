//! What telling costs a worker for each exchange.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

#[allow(clippy::unwrap_used, reason = "shared with tests")]
#[path = "../src/telemetry/tests/fixture.rs"]
mod fixture;

use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use wayside::http::settings::{AccessLog, Telemetry as Settings};
use wayside::service::decision::Decision;
use wayside::service::record::{End, Record};
use wayside::telemetry::Telemetry;

/// One policy call and one attempt.
fn record(sampled: bool) -> Record {
    let request = http::Request::get("/api/users/1?a=b").header("host", "shop.example").header("user-agent", "bench/1");
    let mut record = fixture::record(request, sampled, AccessLog::Off);
    record.route = Some("canary".into());
    record.service = Some(fixture::service("users"));
    let mut call = fixture::call("canary", Decision::Forward);
    call.reason = "asked for by header".into();
    record.calls.push(call);
    record.attempts.push(fixture::attempt(7, Ok(200)));
    (record.status, record.end) = (200, End::Complete);
    record
}

fn finish(criterion: &mut Criterion) {
    // Nobody listens there: the queue is full soon, so building is what a sampled exchange costs at most.
    let otlp = Some("http://127.0.0.1:9".to_owned());
    for (name, otlp, sampled) in [("unsampled", None, false), ("sampled, queue full", otlp, true)] {
        let settings = Settings { otlp, ..Settings::default() };
        let telemetry = Telemetry::start(&settings).unwrap();
        let (recorder, record) = (telemetry.recorder(0), record(sampled));
        criterion.bench_function(&format!("finish/{name}"), |bencher| {
            bencher.iter(|| recorder.finish(black_box(&record), std::time::Instant::now()));
        });
    }
}

criterion_group!(benches, finish);
criterion_main!(benches);
