//! How endpoints are found out to be well or not, by real servers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on must fail")]

use crate::support::certificates::Authority;
use crate::support::gateway::Gateway;
use crate::support::program::{Program, echo, until};
use crate::support::servers::{self, Process};
use rustix::process::Signal;
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
