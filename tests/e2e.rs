//! The whole thread, with a real Consul and a real Jaeger: services come, go and die under load, the policy is
//! swapped, the registry dies, and a trace shows who decided and who answered.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

use crate::support::etcd::Etcd;
use crate::support::program::{Program, until};
use crate::support::servers::{Consul, Jaeger, free_ports};
use crate::support::shop::{Load, Origin, drop_in, policies};
use serde_json::{Value, json};
use std::process::{Child, Command};
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

/// A service that answers with its name and, through the gateway, with what the next one answers.
const SERVICE: &str = r#"
import http.server, urllib.request, sys
name, port, gateway, following = sys.argv[1:5]
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        text = name
        if following != '-':
            passed = {key: self.headers[key] for key in ('traceparent', 'x-tenant', 'x-tier') if self.headers[key]}
            text += ' ' + urllib.request.urlopen(urllib.request.Request(f'http://{gateway}/{following}', headers=passed)).read().decode()
        self.send_response(200); self.send_header('content-length', str(len(text))); self.end_headers()
        self.wfile.write(text.encode())
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(('127.0.0.1', int(port)), Handler).serve_forever()
"#;

struct Registered(Child);

impl Registered {
    fn start(registry: &str, name: &str, gateway: &str, following: &str) -> Self {
        let [port] = free_ports();
        let mut command = Command::new(env!("CARGO_BIN_EXE_wayside"));
        command.args([
            "register",
            "--registry",
            registry,
            "--service",
            name,
            "--address",
            &format!("127.0.0.1:{port}"),
            "--",
        ]);
        command.args(["python3", "-c", SERVICE, name, &port.to_string(), gateway, following]);
        Registered(command.spawn().unwrap())
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        // So that it ends its service, too.
        let id = rustix::process::Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap();
        let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_policy_routes_a_chain_over_two_registries_and_it_is_one_trace() {
    let (consul, etcd, jaeger) = (Consul::start().await, Etcd::start().await, Jaeger::start().await);
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("policies")).unwrap();
    let policy = |name: &str| folder.path().join("policies").join(name);
    drop_in(&policy("tenant.wasm"), include_bytes!("../guest-examples/prebuilt/tenant.wasm"));
    let rules = "/a acme gold a\n/b acme gold b\n/c acme gold c";
    drop_in(&policy("tenant.toml"), format!("config = \"\"\"\n{rules}\n\"\"\"\n").as_bytes());
    let config = format!(
        "[policies]\ndirectory = \"policies\"\n[telemetry]\notlp = \"http://{}\"\nsample = 0.001\n\
         [sources.consul]\nkind = \"consul\"\naddress = \"{}\"\n[sources.etcd]\nkind = \"etcd\"\naddress = \"{}\"\n\
         [services.a]\nsource = \"consul\"\n[services.b]\nsource = \"etcd\"\n[services.c]\nsource = [\"consul\", \"etcd\"]\n",
        jaeger.otlp,
        consul.url(),
        etcd.address
    );
    let gateway = Program::start(folder, &config, &[]);
    let (first, second) = (format!("consul://{}", consul.address), format!("etcd://{}", etcd.address));
    let chain = [(&first, "a", "b"), (&second, "b", "c"), (&second, "c", "-")];
    let _chain =
        chain.map(|(registry, name, following)| Registered::start(registry, name, &gateway.address, following));
    let id = "5bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{id}-00f067aa0ba902b7-01");
    let tenant = [("x-tenant", "acme"), ("x-tier", "gold")];
    for path in ["/c", "/b", "/a"] {
        until("it is routed", || gateway.get(path, &tenant).starts_with("HTTP/1.1 200"));
    }
    let answer = gateway.get("/a", &[tenant[0], tenant[1], ("traceparent", &parent)]);
    assert!(answer.ends_with("a b c"), "{answer}");
    // Three requests, each with its policy's decision and its attempt.
    let whole = |trace: &Value| trace["traceID"] == id && trace["spans"].as_array().unwrap().len() == 9;
    let trace = jaeger.traces("wayside", whole).await.remove(0);
    let spans = trace["spans"].as_array().unwrap();
    let decided = spans.iter().filter(|span| tag(span, "span.kind") == "internal");
    let mut reasons: Vec<_> = decided.map(|span| tag(span, "wayside.reason").as_str().unwrap()).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, ["/a acme gold a", "/b acme gold b", "/c acme gold c"]);
    println!("a, b and c in one trace of {} spans, over Consul and etcd", spans.len());
}
