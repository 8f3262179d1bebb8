//! What telling costs a worker for each exchange.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

#[allow(clippy::unwrap_used, reason = "shared with tests")]
#[path = "../src/telemetry/tests/fixture.rs"]
mod fixture;

use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::sync::Arc;
use wayside::base::chance::Chance;
use wayside::http::request::Head;
use wayside::http::settings::{AccessLog, Telemetry as Settings};
use wayside::service::decision::Decision;
use wayside::service::decision::said::{Said, Sent};
use wayside::service::record::taped::{About, Call, Taped};
use wayside::service::record::{End, Record};
use wayside::service::tape::Tape;
use wayside::snapshot::Snapshot;
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

/// What recording costs a worker: the look where nothing is, the look at 1 %, and what one that is taken costs.
fn record_file(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    for (name, sample) in [("off", 0.0), ("at 1 %", 0.01), ("at 100 %", 1.0)] {
        let telemetry = Telemetry::start(&Settings::default()).unwrap();
        let recorder = telemetry.recorder(0);
        let directory = folder.path().join(name);
        let settings = wayside::service::tape::settings::Settings { sample, directory, ..Default::default() };
        recorder.tidy(&Snapshot { record: Arc::new(settings), ..Snapshot::default() });
        let (record, mut chance) = (record(false), Chance(1));
        let taped = taped(record.head.as_ref().unwrap());
        criterion.bench_function(&format!("record/{name}"), |bencher| {
            bencher.iter(|| {
                if recorder.records(chance.next_u64()) {
                    recorder.record(black_box(&record), black_box(&taped), std::time::Instant::now());
                }
            });
        });
        telemetry.stop();
    }
}

fn taped(head: &Arc<Head>) -> Taped {
    let mut tape = Tape::default();
    ["header x-canary", "cookie sid"].into_iter().for_each(|input| tape.saw(input, None));
    let sent = Sent { service: "users-v2".into(), ..Sent::default() };
    let version = About { policy: "canary".into(), version: "0123456789ab".into(), ..About::default() };
    let call = Call {
        version: Arc::new(version),
        tape,
        said: Said::Forward(Box::new(sent)),
        reason: "asked for by header".into(),
    };
    Taped { head: Arc::clone(head), catalog: Arc::default(), calls: [call].into_iter().collect() }
}

criterion_group!(benches, finish, record_file);
criterion_main!(benches);
