//! Exchanges that never were on a wire, and what is told of them.

mod fixture;

pub(super) use fixture::{attempt, call, service};

use super::*;
use crate::service::affinity::Standing;
use crate::service::decision::{Decision, Fault, FaultKind, LogLine};
use crate::service::plan::Strategy;
use crate::service::record::{Attempt, AttemptError, By, End, PolicyCall};
use opentelemetry::trace::{SpanKind, Status};
use opentelemetry_sdk::trace::SpanData;
use std::time::Duration;

/// One that tells nobody but the numbers.
pub(super) fn telemetry() -> Telemetry {
    Telemetry {
        traces: None,
        sampler: Sampler::DEFAULT,
        metrics: Arc::default(),
        access_log: Arc::new(Lines::start("lines", std::io::sink())),
        recording: Arc::new(Recording::new(Arc::default())),
    }
}

/// A record of this request, sampled.
pub(super) fn record(request: http::request::Builder) -> Record {
    fixture::record(request, true, AccessLog::Off)
}

fn spans(record: &Record, took: Duration) -> Vec<SpanData> {
    // Not the seed of the record's own ids.
    spans::build(record, took, &mut Chance(2))
}

fn tag(span: &SpanData, key: &str) -> Option<String> {
    span.attributes.iter().find(|one| one.key.as_str() == key).map(|one| one.value.to_string())
}

#[track_caller]
fn has(span: &SpanData, expected: &[(&str, &str)]) {
    for (key, value) in expected {
        assert_eq!(tag(span, key).as_deref(), Some(*value), "{key} of {}", span.name);
    }
}

#[test]
fn an_exchange_has_a_server_span_a_policy_span_and_a_client_span_for_each_attempt() {
    let request = http::Request::get("/users/1?a=1&sig=secret")
        .header("host", "Shop.Example:8080")
        .header("user-agent", "test/1")
        .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        .header("tracestate", "other=1");
    let mut record = record(request);
    record.route = Some("canary".into());
    record.service = Some(service("users"));
    record.calls.push(PolicyCall {
        reason: "asked for".into(),
        strategy: Some(Strategy::LeastRequest),
        path: Some("/v2".into()),
        logs: vec![LogLine { level: tracing::Level::INFO, message: "seen".into() }],
        ..call("canary", Decision::Forward)
    });
    record.attempts = vec![attempt(7, Err(AttemptError::Connect)), attempt(8, Ok(200))].into();
    record.status = 200;
    record.end = End::Complete;
    let spans = spans(&record, Duration::from_millis(5));
    let [server, policy, first, second] = &spans[..] else { panic!("{spans:?}") };

    assert_eq!((&*server.name, &server.span_kind), ("GET canary", &SpanKind::Server));
    assert_eq!(server.parent_span_id, 0x00f0_67aa_0ba9_02b7.into());
    assert!(server.parent_span_is_remote);
    assert_eq!(server.status, Status::Unset);
    assert_eq!(server.end_time.duration_since(server.start_time).unwrap(), Duration::from_millis(5));
    has(
        server,
        &[
            ("http.request.method", "GET"),
            ("url.scheme", "http"),
            ("url.path", "/users/1"),
            ("url.query", "a=1&sig=REDACTED"),
            ("server.address", "shop.example"),
            ("server.port", "8080"),
            ("client.address", "127.0.0.9"),
            ("network.protocol.version", "1.1"),
            ("http.route", "canary"),
            ("http.response.status_code", "200"),
            ("user_agent.original", "test/1"),
            ("wayside.policy", "canary"),
            ("wayside.decision", "forward"),
            ("wayside.reason", "asked for"),
            ("wayside.service.revision", "r7"),
        ],
    );
    assert_eq!(tag(server, "wayside.service.stale"), None);
    assert_eq!(tag(server, "error.type"), None);

    let trace = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128;
    for span in &spans {
        assert_eq!(span.span_context.trace_id(), trace.into());
        assert_eq!(span.span_context.trace_state().header(), "other=1");
        assert!(span.span_context.is_valid());
    }
    for child in &spans[1..] {
        assert_eq!(child.parent_span_id, server.span_context.span_id());
        assert!(!child.parent_span_is_remote);
    }
    assert_eq!(&*policy.name, "policy canary");
    has(policy, &[("wayside.service", "users"), ("wayside.strategy", "least-request"), ("wayside.candidates", "3")]);
    assert_eq!(policy.events.len(), 1);

    assert_eq!((&*first.name, first.span_context.span_id()), ("GET", 7.into()));
    has(first, &[("error.type", "connect_failed"), ("url.full", "http://127.0.0.1:9001/v2?a=1&sig=REDACTED")]);
    assert!(matches!(first.status, Status::Error { .. }));
    assert_eq!(tag(first, "http.request.resend_count"), None);
    has(second, &[("http.request.resend_count", "1"), ("server.port", "9001"), ("wayside.endpoint", "127.0.0.1:9001")]);
    assert_eq!(second.status, Status::Unset);
}

#[test]
fn an_endpoint_is_named_by_the_policy_or_is_the_one_that_the_client_belongs_to() {
    for (affinity, how) in [(None, "named by policy"), (Some(Standing::Hit), "affinity")] {
        let mut record = record(http::Request::get("/"));
        record.affinity = affinity;
        record.attempts = vec![Attempt { strategy: None, ..attempt(7, Ok(200)) }].into();
        let spans = spans(&record, Duration::ZERO);
        assert_eq!(tag(&spans[0], "wayside.affinity").as_deref(), affinity.map(Standing::name));
        has(&spans[1], &[("wayside.strategy", how)]);
    }
}

#[test]
fn only_the_gateways_own_and_the_upstreams_failures_are_errors() {
    let span = |status: u16, end: End| {
        let mut record = record(http::Request::get("/"));
        (record.status, record.end) = (status, end);
        spans(&record, Duration::from_millis(1)).remove(0)
    };
    let cases = [
        (404, End::Complete, false, None),
        (500, End::Complete, true, Some("500")),
        (200, End::UpstreamBroke, true, Some("upstream_broke")),
        (200, End::ClientGone, false, Some("client_gone")),
    ];
    for (status, end, error, kind) in cases {
        let span = span(status, end);
        assert_eq!(matches!(span.status, Status::Error { .. }), error, "{status} {end:?}");
        assert_eq!(tag(&span, "error.type").as_deref(), kind, "{status} {end:?}");
    }
}

#[test]
fn what_clients_and_policies_write_is_bounded() {
    let long = "x".repeat(5000);
    let request = http::Request::builder().method("MADEUP").uri(format!("/{long}?{long}")).header("user-agent", &long);
    let mut record = record(request);
    let fault = Some(Fault { kind: FaultKind::Trap, message: long.clone() });
    let logs = vec![LogLine { level: tracing::Level::WARN, message: long.clone() }];
    record.calls.push(PolicyCall { reason: long, fault, logs, ..call("p", Decision::Fault) });
    record.attempts = vec![attempt(7, Err(AttemptError::Unfinished))].into();
    let spans = spans(&record, Duration::from_millis(9));
    assert_eq!(spans[0].name, "HTTP");
    has(&spans[0], &[("http.request.method", "_OTHER"), ("http.request.method_original", "MADEUP")]);
    has(&spans[1], &[("wayside.fault", "trap"), ("error.type", "trap")]);
    let lasted = spans[2].end_time.duration_since(spans[2].start_time).unwrap();
    assert_eq!(lasted, Duration::from_millis(8), "an attempt that was cut off ends with the exchange");
    for span in &spans {
        let events = span.events.iter().flat_map(|event| &event.attributes);
        for one in span.attributes.iter().chain(events) {
            // A URL is made of a path and a query.
            assert!(one.value.to_string().len() <= 2 * safe::MAX + 100, "{}", one.key);
        }
    }
}

#[test]
fn the_url_of_an_attempt_says_whether_it_went_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap().cert.pem()).unwrap();
    let tls = crate::http::tls::client::Settings { server_name: None, ca: Some(ca), certificate: None };
    let tls = Arc::new(crate::http::tls::client::Connector::new(&tls, false).unwrap());
    let plain = service("users");
    let over_tls = crate::service::Service {
        name: "users".into(),
        settings: Arc::clone(&plain.settings),
        tls: Some(tls),
        affinity: None,
        endpoints: Default::default(),
        reported: Arc::default(),
        digest: 0,
        live: Arc::default(),
    };
    for (service, expected) in
        [(plain, "http://127.0.0.1:9001/a?b"), (Arc::new(over_tls), "https://127.0.0.1:9001/a?b")]
    {
        let mut record = record(http::Request::get("/a?b"));
        record.service = Some(service);
        record.attempts = vec![attempt(7, Ok(200))].into();
        has(&spans(&record, Duration::from_millis(1))[1], &[("url.full", expected)]);
    }
}

mod lines {
    use super::*;
    use crate::http::request::{Head, Peer};
    use http::HeaderValue;

    #[test]
    fn behind_a_trusted_proxy_the_client_is_who_it_says() {
        let said = || http::Request::get("/").header("x-forwarded-for", "6.6.6.6, [2001:db8::1]:443");
        for (trusted, client, peer) in
            [("127.0.0.0/8", "2001:db8::1", Some("127.0.0.9")), ("10.0.0.0/8", "127.0.0.9", None)]
        {
            let mut record = fixture::record(said(), true, AccessLog::Text);
            let (parts, ()) = said().body(()).unwrap().into_parts();
            let connected = Peer::new("127.0.0.9:4711".parse().unwrap());
            record.head = Some(Head::new(parts, connected, &[trusted.parse().unwrap()]));
            let text = access_log::line(&record, Duration::ZERO);
            assert_eq!(text.split(' ').nth(1), Some(client), "{text}");
            assert_eq!(text.split_once(" peer=").map(|(_, rest)| rest.trim_end()), peer, "{text}");
            record.access_log = AccessLog::Json;
            let json: serde_json::Value = serde_json::from_str(&access_log::line(&record, Duration::ZERO)).unwrap();
            assert_eq!((json["client"].as_str(), json["peer"].as_str()), (Some(client), peer));
        }
    }

    fn told(form: AccessLog, request: http::request::Builder, route: &str, reason: &str) -> String {
        let mut record = fixture::record(request, true, form);
        record.route = Some(route.into());
        record.service = Some(service("users"));
        record.calls.push(PolicyCall { reason: reason.into(), ..call("canary", Decision::Forward) });
        record.attempts = vec![attempt(7, Ok(200))].into();
        (record.status, record.end) = (200, End::Complete);
        (record.request_bytes, record.response_bytes) = (1, 2);
        access_log::line(&record, Duration::from_micros(1500))
    }

    #[test]
    fn a_line_says_what_happened() {
        let request = || http::Request::get("/a?b=1").header("host", "h").header("user-agent", "curl 8");
        let text = told(AccessLog::Text, request(), "all users", "asked for");
        let (time, rest) = text.split_once(' ').unwrap();
        assert!(humantime::parse_rfc3339(time).is_ok(), "{time}");
        let (before, trace) = rest.split_once(" trace=").unwrap();
        assert_eq!(
            before,
            "127.0.0.9 \"GET h/a?b=1 HTTP/1.1\" 200 1B/2B 1.500ms route=\"all users\" service=users \
             endpoint=127.0.0.1:9001 policy=canary decision=forward reason=\"asked for\""
        );
        assert_eq!(trace.len(), "4bf92f3577b34da6a3ce929d0e0e4736 agent=\"curl 8\"\n".len());

        let json: serde_json::Value =
            serde_json::from_str(&told(AccessLog::Json, request(), "all users", "asked for")).unwrap();
        assert_eq!(json["duration_ms"], 1.5);
        assert_eq!(json["path"], "/a");
        assert_eq!(json["query"], "b=1");
        assert_eq!(json["endpoint"], "127.0.0.1:9001");
        assert_eq!(json["policy"], "canary");
        assert_eq!(json["end"], "complete");
        assert_eq!(json["trace_id"].as_str().unwrap().len(), 32);
        assert_eq!(json["error"], serde_json::Value::Null);
    }

    proptest::proptest! {
        #[test]
        fn an_exchange_is_one_line_whatever_is_in_it(
            path: Vec<u8>, agent: Vec<u8>, host: Vec<u8>, method: Vec<u8>, route: String, reason: String,
        ) {
            let mut request = http::Request::builder();
            let target: Vec<u8> = [b"/".as_slice(), &path].concat();
            if let Ok(uri) = http::Uri::try_from(target) {
                request = request.uri(uri);
            }
            if let Ok(method) = http::Method::from_bytes(&method) {
                request = request.method(method);
            }
            for (name, value) in [("user-agent", agent), ("host", host)] {
                if let Ok(value) = HeaderValue::from_bytes(&value) {
                    request = request.header(name, value);
                }
            }
            let (parts, ()) = request.body(()).unwrap().into_parts();
            let request = || {
                let mut request = http::Request::builder().method(parts.method.clone()).uri(parts.uri.clone());
                request.headers_mut().unwrap().clone_from(&parts.headers);
                request
            };
            let text = told(AccessLog::Text, request(), &route, &reason);
            let line = text.strip_suffix('\n').unwrap();
            proptest::prop_assert!(!line.chars().any(char::is_control), "{:?}", line);
            let json = told(AccessLog::Json, request(), &route, &reason);
            let line = json.strip_suffix('\n').unwrap();
            proptest::prop_assert!(!line.contains(['\n', '\r']));
            let parsed: serde_json::Value = serde_json::from_str(line).unwrap();
            proptest::prop_assert_eq!(parsed["route"].as_str(), Some(safe::cut(&route)));
        }
    }
}

#[test]
fn what_a_policy_logs_is_in_the_process_log_on_one_line_at_its_level() {
    #[derive(Clone, Default)]
    struct Log(Arc<std::sync::Mutex<Vec<u8>>>);
    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let log = Log::default();
    let to = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_max_level(tracing::Level::INFO);
    let subscriber = subscriber.with_writer(move || to.clone()).finish();
    let mut record = record(http::Request::get("/"));
    let line = |level, message: &str| LogLine { level, message: message.into() };
    let logs = vec![line(tracing::Level::WARN, "one\nERROR two"), line(tracing::Level::DEBUG, "off")];
    record.calls.push(PolicyCall { logs, ..call("canary", Decision::Next) });
    let trace = format!("{:032x}", record.trace.trace_id);
    tracing::subscriber::with_default(subscriber, || guest_log::tell(&record));
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let [line] = &text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
    assert!(line.contains(" WARN ") && line.contains("one\\nERROR two"), "{line}");
    assert!(line.contains("policy=\"canary\"") && line.contains(&trace), "{line}");
}

#[test]
fn what_a_middleware_sends_stands_under_the_request_and_counts_as_none() {
    let by = || By { name: "outside".into(), kind: "forward_auth" };
    let mut outer = record(http::Request::get("/in"));
    outer.stopped_by = Some(by());
    let mut own = record(http::Request::get("/check"));
    own.trace = outer.trace.child(&mut Chance(3));
    own.own = Some(by());
    own.service = Some(service("auth"));
    own.attempts.push(attempt(7, Ok(200)));
    let (server, spans) = (&self::spans(&outer, Duration::from_secs(1))[0], spans(&own, Duration::from_secs(1)));
    has(server, &[("wayside.middleware", "outside"), ("wayside.middleware.kind", "forward_auth")]);
    let [internal, client] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!((&*internal.name, internal.span_kind.clone()), ("middleware outside", SpanKind::Internal));
    assert_eq!(internal.parent_span_id, server.span_context.span_id());
    assert_eq!(client.parent_span_id, internal.span_context.span_id());
    assert!(!internal.parent_span_is_remote && internal.span_context.trace_id() == server.span_context.trace_id());
    let telemetry = telemetry();
    let recorder = telemetry.recorder(0);
    recorder.finish(&own, Instant::now());
    let page = telemetry.metrics(&Snapshot::default(), 0, &Vitals::default());
    assert!(page.contains("wayside_upstream_attempts_total{service=\"auth\",outcome=\"2xx\"} 1"), "{page}");
    assert!(!page.contains("wayside_requests_total{"), "{page}");
    assert!(page.contains("wayside_exchanges_in_flight 0"), "{page}");
}
