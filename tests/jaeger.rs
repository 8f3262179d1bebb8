//! The Jaeger that other tests read traces from: what the exporter sends is found, over gRPC and over HTTP.
#![allow(clippy::unwrap_used, reason = "for tests")]

#[path = "support/servers.rs"]
mod servers;

use opentelemetry::KeyValue;
use opentelemetry::trace::{Span, TraceContextExt, Tracer, TracerProvider};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use serde_json::{Value, json};
use servers::{Jaeger, http};
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
