//! What telling costs a worker for each exchange.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

#[allow(clippy::unwrap_used, reason = "shared with tests")]
#[path = "../src/telemetry/tests/fixture.rs"]
mod fixture;

use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::rc::Rc;
use wayside::http::settings::{AccessLog, Telemetry as Settings};
use wayside::proxy::exchange::{End, Exchange};
use wayside::proxy::worker::Worker;
use wayside::telemetry::Telemetry;

/// One policy call and one attempt.
fn exchange(worker: &Rc<Worker>, settings: &Settings) -> Box<Exchange> {
    let request = http::Request::get("/api/users/1?a=b").header("host", "shop.example").header("user-agent", "bench/1");
    let mut exchange = fixture::exchange(worker, request, settings);
    exchange.route = Some("canary".into());
    exchange.service = Some(fixture::service("users"));
    let mut call = fixture::call("canary", "forward");
    call.reason = "asked for by header".into();
    exchange.calls.push(call);
    exchange.attempts.push(fixture::attempt(7, Ok(200)));
    (exchange.status, exchange.end) = (200, End::Complete);
    exchange
}

fn finish(criterion: &mut Criterion) {
    // Nobody listens there: the queue is full soon, so building is what a sampled exchange costs at most.
    let otlp = Some("http://127.0.0.1:9".to_owned());
    let cases = [
        ("unsampled", Settings { otlp: None, sample: Some(0.0), access_log: AccessLog::Off }),
        ("sampled, queue full", Settings { otlp, sample: Some(1.0), access_log: AccessLog::Off }),
    ];
    for (name, settings) in cases {
        let worker = fixture::worker(Telemetry::start(&settings).unwrap());
        let exchange = exchange(&worker, &settings);
        criterion.bench_function(&format!("finish/{name}"), |bencher| {
            bencher.iter(|| worker.recorder.finish(black_box(&exchange)));
        });
    }
}

criterion_group!(benches, finish);
criterion_main!(benches);
