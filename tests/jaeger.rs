//! Traces in a real Jaeger, over gRPC and over HTTP: first that what is sent is found at all, then what the program sends.
#![allow(clippy::unwrap_used, reason = "for tests")]

use crate::support::certificates::Authority;
use crate::support::gateway::Gateway;
use crate::support::program;
use crate::support::program::{Program, echo};
use crate::support::servers::{Jaeger, http};
use opentelemetry::KeyValue;
use opentelemetry::trace::{Span, TraceContextExt, Tracer, TracerProvider};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;

/// A runtime that runs on a thread of its own, as the exporter needs while the thread that ends a span waits for it.
fn runtime() -> tokio::runtime::Handle {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let handle = runtime.handle().clone();
    std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    handle
}

#[test]
fn a_span_sent_over_grpc_is_found() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let jaeger = runtime.block_on(Jaeger::start());
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(format!("http://{}", jaeger.otlp))
        .with_timeout(Duration::from_secs(5))
        .build()
        .unwrap();
    let resource = Resource::builder_empty().with_attribute(KeyValue::new("service.name", "smoke")).build();
    let provider = SdkTracerProvider::builder().with_resource(resource).with_simple_exporter(exporter).build();
    let tracer = provider.tracer("smoke");
    let mut parent = tracer.start("parent");
    parent.set_attribute(KeyValue::new("wayside.reason", "asked for"));
    let context = opentelemetry::Context::new().with_remote_span_context(parent.span_context().clone());
    tracer.start_with_context("child", &context).end();
    parent.end();
    let trace = parent.span_context().trace_id().to_string();

    let whole = |found: &Value| found["spans"].as_array().is_some_and(|spans| spans.len() == 2);
    let found = runtime.block_on(jaeger.traces("smoke", whole));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["traceID"], json!(trace));
    let spans = found[0]["spans"].as_array().unwrap();
    let named = |name: &str| spans.iter().find(|span| span["operationName"] == name).unwrap();
    assert_eq!(named("child")["references"][0]["spanID"], named("parent")["spanID"]);
    let tags = named("parent")["tags"].as_array().unwrap();
    assert!(tags.iter().any(|tag| tag["key"] == "wayside.reason" && tag["value"] == "asked for"), "{tags:?}");
    provider.shutdown().unwrap();
}

#[tokio::test]
async fn a_span_sent_over_http_is_found() {
    let jaeger = Jaeger::start().await;
    let name = json!({"key": "service.name", "value": {"stringValue": "plain"}});
    // Now, since old traces are not among those that a query finds by itself.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos().to_string();
    let span = json!({"traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "name": "one",
        "kind": 2, "startTimeUnixNano": now, "endTimeUnixNano": now});
    let body = json!({"resourceSpans": [{"resource": {"attributes": [name]}, "scopeSpans": [{"spans": [span]}]}]});
    let sent = http().post(format!("http://{}/v1/traces", jaeger.otlp_http)).json(&body).send().await.unwrap();
    assert!(sent.status().is_success(), "{sent:?}");
    let found = jaeger.traces("plain", |_| true).await;
    assert_eq!(found[0]["spans"][0]["operationName"], "one");
}

/// A gateway with a policy that sends `x-canary: 1` to users-v2; `telemetry` says where it traces to.
fn gateway(telemetry: &str, environment: &[(&str, &str)]) -> Program {
    Gateway::with()
        .named("users-v2")
        .endpoint(echo())
        .policy("canary.wasm", include_bytes!("../guest-examples/prebuilt/canary.wasm"))
        .telemetry(telemetry)
        .environment(environment)
        .start()
}

/// One request with a sampled parent through the program, read back from Jaeger.
async fn a_request_is_found(jaeger: &Jaeger, otlp: SocketAddr, environment: &[(&str, &str)]) {
    let gateway = gateway(&format!("otlp = \"http://{otlp}\"\nsample = 0.0"), environment);
    let parent = ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let canary = ("x-canary", "1");
    let answer = gateway.get("/users/1?a=b", &[parent, ("tracestate", "other=1"), canary, ("user-agent", "test/1")]);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // Not sampled by its parent, so there is no trace of it.
    let unsampled = ("traceparent", "00-5bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00");
    gateway.get("/users/2", &[unsampled, canary]);

    let found = jaeger.traces("wayside", |trace| trace["spans"].as_array().is_some_and(|spans| spans.len() == 3)).await;
    assert_eq!(found.len(), 1, "{found:?}");
    let trace = &found[0];
    assert_eq!(trace["traceID"], "4bf92f3577b34da6a3ce929d0e0e4736");
    let spans = trace["spans"].as_array().unwrap();
    let of_kind = |kind: &str| spans.iter().find(|span| tag(span, "span.kind") == kind).unwrap();
    let (server, client, policy) = (of_kind("server"), of_kind("client"), of_kind("internal"));
    assert_eq!(server["operationName"], "GET canary");
    assert_eq!(policy["operationName"], "policy canary");
    assert_eq!(client["operationName"], "GET");
    assert_eq!(server["references"][0]["spanID"], "00f067aa0ba902b7");
    for child in [policy, client] {
        assert_eq!(child["references"][0]["spanID"], server["spanID"]);
    }
    for (key, value) in [
        ("http.request.method", json!("GET")),
        ("url.path", json!("/users/1")),
        ("url.query", json!("a=b")),
        ("server.address", json!("shop.example")),
        ("client.address", json!("127.0.0.1")),
        ("http.route", json!("canary")),
        ("http.response.status_code", json!(200)),
        ("user_agent.original", json!("test/1")),
        ("wayside.policy", json!("canary")),
        ("wayside.decision", json!("forward")),
        ("wayside.reason", json!("asked for by header")),
    ] {
        assert_eq!(tag(server, key), value, "{key}");
    }
    assert_eq!(tag(policy, "wayside.policy.version").as_str().map(str::len), Some(12));
    assert_eq!(tag(policy, "wayside.candidates"), 1);
    assert_eq!(tag(client, "wayside.service"), "users-v2");
    assert_eq!(tag(client, "wayside.strategy"), "round-robin");
    // The upstream continues the trace under the attempt's span.
    let line = format!("traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-{}-01", client["spanID"].as_str().unwrap());
    assert!(answer.contains(&line) && answer.contains("tracestate: other=1"), "{line} is not in {answer}");
    let resource = &trace["processes"]["p1"];
    assert_eq!(resource["serviceName"], "wayside");
    // Jaeger may show them before the exporter has heard that it took them.
    program::until("all are counted", || gateway.metric("wayside_spans_exported_total") == Some(3.0));

    // What is in the queue at the end is sent then.
    gateway.get("/users/3", &[("traceparent", "00-6bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"), canary]);
    gateway.stop();
    let last = |trace: &Value| trace["traceID"] == "6bf92f3577b34da6a3ce929d0e0e4736";
    assert_eq!(jaeger.traces("wayside", last).await[0]["spans"].as_array().unwrap().len(), 3);
    let all = jaeger.get("/api/traces?service=wayside&limit=1000").await;
    assert_eq!(all["data"].as_array().unwrap().len(), 2);
}

fn tag(span: &Value, key: &str) -> Value {
    let tags = span["tags"].as_array().unwrap();
    tags.iter().find(|tag| tag["key"] == key).map(|tag| tag["value"].clone()).unwrap_or_default()
}

#[tokio::test]
async fn a_request_through_the_gateway_is_found_over_grpc() {
    let jaeger = Jaeger::start().await;
    a_request_is_found(&jaeger, jaeger.otlp, &[]).await;
}

#[tokio::test]
async fn a_request_through_the_gateway_is_found_over_http() {
    let jaeger = Jaeger::start().await;
    let http = [("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")];
    a_request_is_found(&jaeger, jaeger.otlp_http, &http).await;
}

#[tokio::test]
async fn the_collector_is_spoken_to_over_tls_and_shown_a_certificate() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    authority.issue(&["127.0.0.1"], folder.path(), "server");
    authority.client(folder.path(), "gateway");
    std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
    let jaeger = Jaeger::over_tls(folder.path()).await;
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (ca, chain, key) = (file("ca.pem"), file("gateway.pem"), file("gateway.key"));
    let own = [("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", &*chain), ("OTEL_EXPORTER_OTLP_CLIENT_KEY", &*key)];
    let trusted = ("OTEL_EXPORTER_OTLP_CERTIFICATE", &*ca);
    for (protocol, address, id) in [("grpc", jaeger.otlp, "4"), ("http/protobuf", jaeger.otlp_http, "5")] {
        let telemetry = format!("otlp = \"https://{address}\"");
        let protocol = ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol);
        let parent = format!("00-{id}bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        // Whoever does not trust it, or is not trusted, is rid of no span.
        let soon = ("OTEL_EXPORTER_OTLP_TIMEOUT", "1000");
        for missing in [&[own[0], own[1], protocol, soon][..], &[trusted, protocol, soon]] {
            let gateway = gateway(&telemetry, missing);
            gateway.get("/users/1", &[("traceparent", &parent), ("x-canary", "1")]);
            program::until("the spans are lost", || {
                gateway.metric("wayside_spans_dropped_total{reason=\"not_taken\"}") == Some(3.0)
            });
            assert_eq!(gateway.metric("wayside_spans_exported_total"), Some(0.0));
        }
        let gateway = gateway(&telemetry, &[own[0], own[1], trusted, protocol]);
        gateway.get("/users/1", &[("traceparent", &parent), ("x-canary", "1")]);
        let of_this = |trace: &Value| trace["traceID"].as_str().is_some_and(|trace| trace.starts_with(id));
        assert_eq!(jaeger.traces("wayside", of_this).await[0]["spans"].as_array().unwrap().len(), 3);
    }
}

#[tokio::test]
async fn the_sampler_is_open_telemetrys_where_the_configuration_names_none() {
    let jaeger = Jaeger::start().await;
    let telemetry = format!("otlp = \"http://{}\"", jaeger.otlp);
    let on = gateway(&telemetry, &[("OTEL_TRACES_SAMPLER", "always_on")]);
    let parent = ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00");
    let answer = on.get("/users/1", &[parent, ("x-canary", "1")]);
    let found = jaeger.traces("wayside", |trace| trace["traceID"] == "4bf92f3577b34da6a3ce929d0e0e4736").await;
    assert_eq!(found[0]["spans"].as_array().unwrap().len(), 3);
    assert!(
        answer.contains("traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-") && answer.contains("-01\r\n"),
        "{answer}"
    );

    // What the configuration says goes first.
    let off = gateway(&format!("{telemetry}\nsample = 0"), &[("OTEL_TRACES_SAMPLER", "always_on")]);
    let answer = off.get("/users/1", &[parent, ("x-canary", "1")]);
    assert!(answer.contains("-00\r\n"), "{answer}");
}
