//! The real program tells: metrics, the access log, what policies log, and no request waits for any of it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

use crate::support::program::{Program, echo, until};
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// A gateway with one service, `users`, and a route to it.
fn start(telemetry: &str, environment: &[(&str, &str)]) -> Program {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = format!("[[services.users.endpoints]]\naddress = \"{}\"\n", echo());
    std::fs::write(folder.path().join("services.toml"), endpoint).unwrap();
    let config = format!(
        "[telemetry]\n{telemetry}\n[sources.local]\nkind = \"file\"\npath = \"services.toml\"\n\
         [services.users]\nsource = \"local\"\n\
         [[routes]]\nname = \"people\"\nmatch = {{ path_prefix = \"/users\" }}\nservice = \"users\"\n"
    );
    Program::start(folder, &config, environment)
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
