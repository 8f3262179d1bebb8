//! The whole thread, with a real Consul and a real Jaeger: services come, go and die under load, the policy is
//! swapped, the registry dies, and a trace shows who decided and who answered.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

use crate::support::program::{Program, until};
use crate::support::servers::{Consul, Jaeger};
use crate::support::shop::{Load, Origin, drop_in, policies};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// In which traffic follows the registry.
const FOLLOWS: Duration = Duration::from_secs(1);
/// In which an endpoint that was killed is left alone.
const LEFT_ALONE: Duration = Duration::from_secs(2);

async fn register(consul: &Consul, id: &str, origin: &Origin) {
    let port = origin.address.port();
    consul.register(&json!({"ID": id, "Name": "shop", "Address": "127.0.0.1", "Port": port})).await;
    consul.listed("shop", id).await;
}

/// What `/services` says about the shop.
fn seen(gateway: &Program) -> Value {
    serde_json::from_str::<Value>(&gateway.ask("/services")).unwrap()["services"][0].clone()
}

fn endpoint(gateway: &Program, origin: &Origin) -> Option<Value> {
    let address = origin.address.to_string();
    seen(gateway)["endpoints"].as_array().unwrap().iter().find(|e| e["address"] == address).cloned()
}

fn tag<'a>(span: &'a Value, key: &str) -> &'a Value {
    span["tags"].as_array().unwrap().iter().find(|tag| tag["key"] == key).map_or(&Value::Null, |tag| &tag["value"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_routes_live_traffic_over_consul_and_jaeger_shows_why() {
    let [one, two] = policies(["one", "two"]);
    let (mut consul, jaeger) = (Consul::start().await, Jaeger::start().await);
    let (a, b, mut c, d) = (Origin::start("a"), Origin::start("b"), Origin::start("c"), Origin::start("d"));
    for (id, origin) in [("a", &a), ("b", &b), ("c", &c)] {
        register(&consul, id, origin).await;
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("policies")).unwrap();
    let file = folder.path().join("policies/shop.wasm");
    drop_in(&file, &one);
    let config = format!(
        "[policies]\ndirectory = \"policies\"\n[telemetry]\notlp = \"http://{}\"\nsample = 0.001\n\
         [sources.prod]\nkind = \"consul\"\naddress = \"{}\"\n[services.shop]\nsource = \"prod\"\n\
         health = {{ path = \"/health\", interval = \"500ms\" }}\n",
        jaeger.otlp,
        consul.url()
    );
    let gateway = Program::start(folder, &config, &[]);
    let (load, putting) = (Load::start(&gateway.address, 2), Load::putting(&gateway.address, 2));
    for origin in [&a, &b, &c] {
        until("each instance is sent requests", || origin.served() > 0);
    }

    let began = Instant::now();
    register(&consul, "d", &d).await;
    until("traffic follows", || d.served() > 0);
    let followed = began.elapsed();
    assert!(followed < FOLLOWS, "traffic followed after {followed:?}");
    println!("registered: traffic after {followed:.0?}");

    let began = Instant::now();
    consul.deregister("d").await;
    until("it is gone", || endpoint(&gateway, &d).is_none());
    let followed = began.elapsed();
    assert!(followed < FOLLOWS, "traffic followed after {followed:?}");
    println!("deregistered: gone after {followed:.0?}");
    // What was picked before is through by then.
    load.more(100);
    putting.more(100);
    let served = d.served();

    let began = Instant::now();
    c.kill();
    until("it is unhealthy", || endpoint(&gateway, &c).unwrap()["healthy"] == false);
    let noticed = began.elapsed();
    assert!(noticed < LEFT_ALONE, "noticed after {noticed:?}");
    println!("killed: unhealthy after {noticed:.0?}");
    load.more(100);
    putting.more(100);
    let sick = Origin::sick(c.address);
    load.more(5000);
    assert_eq!((sick.served(), d.served()), (0, served));

    consul.kill();
    until("the list is stale", || seen(&gateway)["stale"] == true);
    let age = |gateway: &Program| seen(gateway)["age_ms"].as_u64().unwrap();
    let before = age(&gateway);
    until("its age grows", || age(&gateway) > before);
    load.more(5000);
    assert_eq!(seen(&gateway)["endpoints"].as_array().unwrap().len(), 3);

    drop_in(&file, &two);
    until("the new version answers", || gateway.get("/shop", &[]).contains("x-policy: two\r\n"));
    let policies: Value = serde_json::from_str(&gateway.ask("/policies")).unwrap();
    let version = &policies["policies"][0]["version"];

    let id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{id}-00f067aa0ba902b7-01");
    let answer = gateway.get("/shop", &[("traceparent", &parent)]);
    let whole = |trace: &Value| trace["traceID"] == id && trace["spans"].as_array().unwrap().len() == 3;
    let trace = jaeger.traces("wayside", whole).await.remove(0);
    let spans = trace["spans"].as_array().unwrap();
    let of_kind = |kind: &str| spans.iter().find(|span| tag(span, "span.kind") == kind).unwrap();
    let policy = of_kind("internal");
    assert_eq!(tag(policy, "wayside.policy.version"), version);
    assert_eq!(tag(policy, "wayside.reason"), "the shop, says two");
    let answered = if answer.ends_with('a') { &a } else { &b };
    assert_eq!(tag(of_kind("client"), "wayside.endpoint"), &json!(answered.address.to_string()));
    println!("{} GET and {} PUT requests, 0 failed", load.end(), putting.end());
}
