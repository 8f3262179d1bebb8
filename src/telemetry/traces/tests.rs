use super::*;
use std::net::TcpListener;

/// Nothing is sent that was not built with these ids.
fn span() -> SpanData {
    use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceState};
    SpanData {
        span_context: SpanContext::new(1_u128.into(), 2.into(), TraceFlags::SAMPLED, false, TraceState::NONE),
        parent_span_id: SpanId::INVALID,
        parent_span_is_remote: false,
        span_kind: SpanKind::Server,
        name: "GET".into(),
        start_time: std::time::SystemTime::now(),
        end_time: std::time::SystemTime::now(),
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: Default::default(),
        links: Default::default(),
        status: Status::Unset,
        instrumentation_scope: Default::default(),
    }
}

#[test]
fn spans_that_find_no_room_are_counted_and_not_even_built() {
    let queue = Queue::new(2);
    for _ in 0..2 {
        queue.push(3, || vec![span(), span(), span()]);
    }
    queue.push(3, || panic!("built"));
    assert_eq!(queue.counts.queued.load(Relaxed), 6);
    assert_eq!(queue.counts.queue_full.load(Relaxed), 3);
    assert_eq!(queue.batch().len(), 6);
    assert!(queue.batch().is_empty());
}

/// Waits for what another thread does.
fn until(mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(20), "it never came");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_collector_that_hangs_or_is_down_costs_spans_and_nothing_else() {
    // Connections come in and nobody says anything.
    let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
    let down = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for address in [hanging.local_addr().unwrap(), down] {
        for protocol in ["grpc", "http/protobuf"] {
            let env = |name: &str| match name {
                "OTEL_EXPORTER_OTLP_TIMEOUT" => Some("100".to_owned()),
                "OTEL_EXPORTER_OTLP_PROTOCOL" => Some(protocol.to_owned()),
                "OTEL_BSP_SCHEDULE_DELAY" => Some("10".to_owned()),
                "OTEL_BSP_MAX_QUEUE_SIZE" => Some("8".to_owned()),
                _ => None,
            };
            let settings = Settings::of(Some(&format!("http://{address}")), env).unwrap().unwrap();
            let traces = Traces::start(settings).unwrap();
            let queue = traces.queue();
            let counts = traces.counts();
            queue.push(1, || vec![span()]);
            until(|| counts.not_taken.load(Relaxed) == 1);
            // Far more than the thread can be rid of: no push waits, and in the end each span is accounted for.
            for _ in 0..10_000 {
                queue.push(1, || vec![span()]);
            }
            traces.stop();
            let [queued, full] = [&counts.queued, &counts.queue_full].map(|count| count.load(Relaxed));
            assert!(full > 0);
            assert_eq!(queued + full, 10_001);
            assert_eq!(counts.not_taken.load(Relaxed), queued, "{protocol} to {address}");
            assert_eq!(counts.exported.load(Relaxed), 0);
        }
    }
}
