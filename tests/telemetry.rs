//! The real program tells: metrics, the access log, what policies log, and no request waits for any of it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

use crate::support::gateway::Gateway;
use crate::support::program::{Program, echo, until};
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// A gateway with one service, `users`, and a route to it.
fn start(telemetry: &str, environment: &[(&str, &str)]) -> Program {
    let gateway = Gateway::with().named("users").endpoint(echo()).telemetry(telemetry).environment(environment);
    gateway.route("name = \"people\"\nmatch = { path_prefix = \"/users\" }").start()
}

#[test]
fn metrics_count_what_was_done() {
    let gateway = start("", &[]);
    for path in ["/users/1", "/users/2", "/nowhere"] {
        gateway.get(path, &[]);
    }
    // The exchange ends a moment after the client has its last byte.
    let good = "wayside_requests_total{route=\"people\",service=\"users\",code=\"2xx\"}";
    until("two requests", || gateway.metric(good) == Some(2.0));
    let expected = [
        ("wayside_requests_total{route=\"none\",service=\"none\",code=\"4xx\"}", 1.0),
        ("wayside_upstream_attempts_total{service=\"users\",outcome=\"2xx\"}", 2.0),
        ("wayside_endpoints{service=\"users\",health=\"healthy\"}", 1.0),
        ("wayside_discovery_stale{service=\"users\"}", 0.0),
        ("wayside_exchanges_in_flight", 0.0),
    ];
    for (sample, value) in expected {
        assert_eq!(gateway.metric(sample), Some(value), "{sample}");
    }
    assert!(gateway.metric("wayside_snapshot_generation").unwrap() >= 1.0);
    assert!(gateway.metric("wayside_discovery_age_seconds{service=\"users\"}").unwrap() < 60.0);
}

#[test]
fn each_exchange_has_its_line_and_the_last_ones_are_written_at_the_end() {
    let gateway = start("access_log = \"json\"", &[]);
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    gateway.get("/users/1?a=b", &[("traceparent", parent), ("user-agent", "one \"two\"")]);
    for _ in 0..50 {
        gateway.get("/nowhere", &[]);
    }
    let (lines, _) = gateway.stop();
    assert_eq!(lines.len(), 51);
    let lines: Vec<serde_json::Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let first = lines.iter().find(|line| line["path"] == "/users/1").unwrap();
    for (key, value) in [
        ("method", "GET"),
        ("host", "shop.example"),
        ("query", "a=b"),
        ("route", "people"),
        ("service", "users"),
        ("trace_id", "4bf92f3577b34da6a3ce929d0e0e4736"),
        ("user_agent", "one \"two\""),
        ("end", "complete"),
    ] {
        assert_eq!(first[key], value, "{key}");
    }
    assert_eq!(first["status"], 200);
    assert_eq!(lines.iter().filter(|line| line["error"] == "no_route").count(), 50);
}

#[test]
fn a_collector_that_hangs_slows_no_request_and_what_is_lost_is_counted() {
    // It takes connections, since the kernel does, and never answers.
    let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
    let otlp = format!("otlp = \"http://{}\"\nsample = 1.0", hanging.local_addr().unwrap());
    let timeout = Duration::from_secs(2);
    let ms = timeout.as_millis().to_string();
    let gateway = start(&otlp, &[("OTEL_EXPORTER_OTLP_TIMEOUT", &ms), ("OTEL_BSP_SCHEDULE_DELAY", "1")]);
    let mut slowest = Duration::ZERO;
    for _ in 0..100 {
        let started = Instant::now();
        assert!(gateway.get("/users", &[]).starts_with("HTTP/1.1 200"));
        slowest = slowest.max(started.elapsed());
    }
    assert!(slowest < timeout / 2, "{slowest:?}: as long as an export");
    until("spans that were not taken", || {
        gateway.metric("wayside_spans_dropped_total{reason=\"not_taken\"}").is_some_and(|lost| lost > 0.0)
    });
    assert_eq!(gateway.metric("wayside_spans_exported_total"), Some(0.0));
    let stopping = Instant::now();
    let (_, log) = gateway.stop();
    assert!(stopping.elapsed() < Duration::from_secs(15), "{:?}", stopping.elapsed());
    let told: Vec<&String> = log.iter().filter(|line| line.contains("spans lost")).collect();
    // Once at first, and once at the end.
    assert!((1..=2).contains(&told.len()), "{told:?}");
    assert!(told[0].contains(&hanging.local_addr().unwrap().to_string()), "{told:?}");
}

#[test]
fn spans_are_compressed_where_that_is_asked_for() {
    use std::io::{BufRead, BufReader, Read, Write};
    let collector = TcpListener::bind("127.0.0.1:0").unwrap();
    let otlp = format!("otlp = \"http://{}\"\nsample = 1.0", collector.local_addr().unwrap());
    let environment = [("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")];
    let gateway = start(&otlp, &environment);
    gateway.get("/users/1", &[]);
    let mut stream = BufReader::new(collector.accept().unwrap().0);
    let mut head = String::new();
    while stream.read_line(&mut head).unwrap() > 2 {}
    assert!(
        head.starts_with("POST /v1/traces ") && head.to_lowercase().contains("\r\ncontent-encoding: gzip\r\n"),
        "{head}"
    );
    // RFC 1952 §2.3.1.
    let mut magic = [0; 2];
    stream.read_exact(&mut magic).unwrap();
    assert_eq!(magic, [0x1f, 0x8b]);
    stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
    until("the collector took it", || gateway.metric("wayside_spans_exported_total") > Some(0.0));
}

#[test]
fn an_exporter_that_cannot_be_is_refused_before_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wayside.toml");
    let told = |config: &str, command: &str, variable: (&str, &str)| {
        std::fs::write(&file, format!("[gateway]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n{config}"))
            .unwrap();
        let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_wayside"));
        let told = program.arg(command).arg("--config").arg(&file).env(variable.0, variable.1).output().unwrap();
        assert_eq!(told.status.code(), Some(1));
        String::from_utf8(told.stderr).unwrap()
    };
    let endpoint = "[telemetry]\notlp = \"http://127.0.0.1:4317\"\n";
    for command in ["check", "run"] {
        let without = told("[telemetry]\notlp = \"collector:4317\"\n", command, ("A", "b"));
        assert!(
            without.contains("telemetry.otlp: `collector:4317` has no scheme; write `http://collector:4317`"),
            "{without}"
        );
        let by = told("", command, ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"));
        assert!(by.contains("OTEL_EXPORTER_OTLP_ENDPOINT: `collector:4317` has no scheme"), "{by}");
        let unknown = told(endpoint, command, ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"));
        assert!(unknown.contains("write `gzip` or `none`"), "{unknown}");
        let unknown = told(endpoint, command, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"));
        assert!(unknown.contains("write `grpc` or `http/protobuf`"), "{unknown}");
    }
}
