//! How endpoints are found out to be well or not, by real servers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on must fail")]

use crate::support::certificates::Authority;
use crate::support::gateway::Gateway;
use crate::support::program::{Program, echo, until};
use crate::support::saying::Saying;
use crate::support::servers::{self, Process};
use rustix::process::Signal;
use serde_json::Value;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

/// How many endpoints of the service are healthy.
fn healthy(gateway: &Program) -> Option<f64> {
    gateway.metric(r#"wayside_endpoints{service="shop",health="healthy"}"#)
}

/// grpc-go's health server, where `shop` is `SERVING`; with the certificate `server` of a folder, over TLS.
fn health_server(folder: &Path, tls: bool) -> (Process, u16) {
    let [port] = servers::free_ports();
    let mut command = Command::new(servers::program("grpc-health-server"));
    command.args([&format!("127.0.0.1:{port}"), "shop"]);
    if tls {
        command.args([folder.join("server.pem"), folder.join("server.key")]);
    }
    let server = Process::start(&mut command, &folder.join("server.log"));
    until("the server listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    (server, port)
}

#[test]
fn grpc_health_of_another_implementation_is_followed_with_tls_and_without() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.issue(&["127.0.0.1"], folder.path(), "server");
    for tls in [false, true] {
        let (server, port) = health_server(folder.path(), tls);
        let keys = "protocol = \"h2\"\nhealth = { kind = \"grpc\", service = \"shop\", interval = \"50ms\", timeout = \"5s\", initial = \"unhealthy\", unhealthy_after = 1, healthy_after = 1 }\n";
        let trust = if tls { "tls = { ca = \"ca.pem\" }" } else { "" };
        let gateway = Gateway::with()
            .file("ca.pem", authority.pem())
            .endpoint(format!("127.0.0.1:{port}"))
            .service(&format!("{keys}{trust}"))
            .start();
        until("it is serving", || healthy(&gateway) == Some(1.0));
        server.signal(Signal::USR1);
        until("it is not serving", || healthy(&gateway) == Some(0.0));
        server.signal(Signal::USR2);
        until("it is serving again", || healthy(&gateway) == Some(1.0));
    }
}

#[test]
fn what_nobody_has_found_well_takes_no_traffic_where_that_is_asked_for() {
    let endpoint = echo();
    // Takes connections and never says anything: the first check does not end.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    for (initial, status) in [("healthy", "HTTP/1.1 200"), ("unhealthy", "HTTP/1.1 503")] {
        let health = format!("health = {{ path = \"/\", port = {port}, timeout = \"1h\", initial = \"{initial}\" }}");
        let gateway = Gateway::with().endpoint(&endpoint).service(&health).start();
        let answer = gateway.get("/", &[]);
        assert!(answer.starts_with(status), "{initial}: {answer}");
        // A service that is checked no longer is not held back by what no check has said.
        let file = gateway.folder().join("wayside.toml");
        let config = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, config.replace(&health, "")).unwrap();
        until("it takes traffic", || gateway.get("/", &[]).starts_with("HTTP/1.1 200"));
    }
}

/// The states of the service's endpoints, in their order, as `/services` shows them.
fn states(gateway: &Program, list: &str) -> Vec<Value> {
    let shown: Value = serde_json::from_str(&gateway.ask("/services")).unwrap();
    let service = shown["services"].as_array().unwrap().iter().find(|service| service["name"] == "shop").unwrap();
    service[list].as_array().cloned().unwrap_or_default()
}

fn state(gateway: &Program, at: usize) -> String {
    states(gateway, "endpoints")[at]["state"].as_str().unwrap().to_owned()
}

#[test]
fn an_endpoint_that_answers_with_failures_is_ejected_told_and_comes_back() {
    let origins = [Saying::start(), Saying::start(), Saying::start()];
    // Its checks pass all the while, and take nothing back.
    let gateway = Gateway::with()
        .endpoints(origins.iter().map(|origin| origin.address))
        .service("strategy = \"round-robin\"\nhealth = { path = \"/health\", interval = \"10ms\" }")
        .service("slow_start = \"5s\"\noutlier = { consecutive = 3, base = \"500ms\", max = \"1s\" }")
        .start();
    origins[1].says(500);
    until("it is ejected", || {
        gateway.get("/", &[]);
        state(&gateway, 1) == "ejected"
    });
    let shown = &states(&gateway, "endpoints")[1];
    assert!(shown["ejected_until"].is_string() && shown["healthy"] == false, "{shown}");
    assert_eq!(gateway.metric(r#"wayside_endpoint_ejections_total{service="shop",cause="consecutive"}"#), Some(1.0));
    origins[1].says(200);
    until("it is back, and starts slowly", || {
        let shown = &states(&gateway, "endpoints")[1];
        shown["state"] == "healthy"
            && shown["ejected_until"].is_null()
            && shown["ramp"].as_u64().is_some_and(|r| r < 100)
    });
    assert_eq!(gateway.metric(r#"wayside_endpoints_ejected{service="shop"}"#), Some(0.0));
    gateway.logged("ejected");
    // The first failure is enough now.
    origins[1].says(502);
    let asked = origins[1].asked();
    until("it is ejected again", || {
        gateway.get("/", &[]);
        state(&gateway, 1) == "ejected"
    });
    assert_eq!(origins[1].asked(), asked + 1);
}

#[test]
fn too_few_that_are_well_make_a_panic_that_everybody_is_told_of() {
    let origins = [Saying::start(), Saying::start()];
    let gateway = Gateway::with()
        .telemetry("access_log = \"json\"")
        .endpoints(origins.iter().map(|origin| origin.address))
        .service(
            "panic = 60\nhealth = { path = \"/health\", expect = [500], interval = \"10ms\", unhealthy_after = 1 }",
        )
        .start();
    until("nobody is well", || healthy(&gateway) == Some(0.0));
    assert!(gateway.get("/", &[]).starts_with("HTTP/1.1 200"));
    assert_eq!(gateway.metric(r#"wayside_panic{service="shop"}"#), Some(1.0));
    let shown: Value = serde_json::from_str(&gateway.ask("/services")).unwrap();
    assert_eq!(shown["services"][0]["panic"], true);
    assert_eq!(state(&gateway, 0), "unhealthy");
    let (lines, _) = gateway.stop();
    assert!(lines.iter().any(|line| line.contains("\"panic\":true")), "{lines:?}");
}

#[test]
fn whoever_left_is_shown_as_draining_until_its_requests_are_over() {
    let origins = [Saying::start(), Saying::start()];
    let gateway = Gateway::with()
        .endpoints(origins.iter().map(|origin| origin.address))
        .service("strategy = \"round-robin\"")
        .start();
    origins.iter().for_each(|origin| origin.says(0));
    let asking: Vec<_> = (0..2)
        .map(|_| {
            let address = gateway.address.clone();
            std::thread::spawn(move || crate::support::program::get(&address, "/hold", &[]))
        })
        .collect();
    until("both are asked", || origins.iter().all(|origin| origin.asked() == 1));
    let file = gateway.folder().join("services.toml");
    let stays = format!("[[services.shop.endpoints]]\naddress = \"{}\"\n", origins[0].address);
    std::fs::write(&file, stays).unwrap();
    until("one is draining", || !states(&gateway, "draining").is_empty());
    let shown = states(&gateway, "draining");
    assert_eq!((shown.len(), &shown[0]["state"], &shown[0]["in_flight"]), (1, &"draining".into(), &1.into()));
    assert_eq!(shown[0]["address"], origins[1].address.to_string());
    assert_eq!(states(&gateway, "endpoints").len(), 1);
    assert_eq!(gateway.metric(r#"wayside_endpoints_draining{service="shop"}"#), Some(1.0));
    origins.iter().for_each(|origin| origin.says(200));
    for answer in asking {
        assert!(answer.join().unwrap().starts_with("HTTP/1.1 200"));
    }
    until("nobody is draining", || states(&gateway, "draining").is_empty());
}
