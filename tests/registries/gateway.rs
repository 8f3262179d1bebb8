//! The whole gateway over real registries: what it knows outlives it, several sources are one service, and a fleet agrees.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "for tests")]

use crate::suite::{PATIENCE, Registry, entry};
use crate::support::etcd::Etcd;
use crate::support::program::{Program, echo, until};
use crate::support::servers::Consul;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::process::Command;
use std::time::Instant;
use wayside::discovery::Entry;

const ROUTE: &str = "[services.users]\nsource = \"prod\"\n[[routes]]\nservice = \"users\"\n";

fn gateway(config: &str) -> Program {
    Program::start(tempfile::tempdir().unwrap(), config, &[])
}

fn service(gateway: &Program, name: &str) -> Value {
    let services: Value = serde_json::from_str(&gateway.ask("/services")).unwrap();
    let services = services["services"].as_array().unwrap();
    services.iter().find(|service| service["name"] == name).cloned().unwrap_or_default()
}

fn answers(gateway: &Program, status: &str) -> bool {
    gateway.get("/", &[]).starts_with(&format!("HTTP/1.1 {status}"))
}

/// From the registration of a service's only endpoint to the first request that is answered by it, ms: median and the
/// 99th of a hundred.
pub async fn propagation<R: Registry>(registry: &R, name: &str, times: usize) {
    let origin: SocketAddr = echo().parse().unwrap();
    let config = format!(
        "[sources.prod]\n{}\n[services.routed]\nsource = \"prod\"\nallow_empty = true\nregistered_as = \"{}\"\n[[routes]]\n\
         service = \"routed\"\n",
        registry.table(registry.address()),
        registry.lookup("routed").registered_as
    );
    let gateway = gateway(&config);
    let mut took = Vec::new();
    for _ in 0..times {
        until("nobody is there", || answers(&gateway, "503"));
        let from = Instant::now();
        registry.put("routed", &Entry { address: origin, ..entry(1) }).await;
        while !answers(&gateway, "200") {
            assert!(from.elapsed() < PATIENCE, "no request was routed");
        }
        took.push(from.elapsed());
        registry.remove("routed", origin).await;
    }
    took.sort();
    let at = |percent: usize| took[(took.len() * percent / 100).min(took.len() - 1)].as_secs_f64() * 1000.0;
    crate::suite::say(&format!(
        "{name}: registered to routed, median {:.1} ms, p99 {:.1} ms of {times}",
        at(50),
        at(99)
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_starts_while_the_registry_is_down_goes_on_where_the_last_one_stood() {
    let mut etcd = Etcd::start().await;
    let origin = echo();
    etcd.put(format!("/services/users/{origin}").as_bytes(), br#"{"weight":3}"#, "0").await;
    let gateway = gateway(&format!("[sources.prod]\n{}\n{ROUTE}", Registry::table(&etcd, etcd.address)));
    until("it serves", || answers(&gateway, "200"));
    let state = gateway.folder().join(".wayside");
    until("it is kept", || {
        std::fs::read_dir(&state)
            .is_ok_and(|files| files.flatten().any(|file| file.path().extension().is_some_and(|e| e == "json")))
    });
    etcd.process.kill();
    let gateway = gateway.restart();
    assert!(answers(&gateway, "200"));
    let shown = service(&gateway, "users");
    assert_eq!((&shown["stale"], &shown["endpoints"][0]["weight"]), (&json!(true), &json!(3)), "{shown}");
    etcd.forget();
    etcd.start_again().await;
    // It comes back with nothing, which is doubted, since something is known.
    until("it is held", || service(&gateway, "users")["held"].is_string() || !answers(&gateway, "200"));
    assert!(answers(&gateway, "200"));
    etcd.put(format!("/services/users/{origin}").as_bytes(), b"", "0").await;
    until("it is as the registry says", || service(&gateway, "users")["endpoints"][0]["weight"] == 1);
    assert_eq!(service(&gateway, "users")["stale"], json!(false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_of_two_registries_keeps_the_part_of_the_one_that_lives() {
    let (consul, mut etcd) = (Consul::start().await, Etcd::start().await);
    let (first, second) = (echo(), echo());
    let port = |address: &str| address.parse::<SocketAddr>().unwrap().port();
    let users = json!({"ID": "a", "Name": "users", "Address": "127.0.0.1", "Port": port(&first)});
    consul.register(&users).await;
    etcd.put(format!("/services/users/{second}").as_bytes(), b"", "0").await;
    let config = format!(
        "[sources.consul]\nkind = \"consul\"\naddress = \"{}\"\n[sources.etcd]\n{}\n[services.users]\nsource = [\"consul\", \
         \"etcd\"]\nfailover = true\n[[routes]]\nservice = \"users\"\n",
        consul.url(),
        Registry::table(&etcd, etcd.address)
    );
    let gateway = gateway(&config);
    let addresses = || {
        let shown = service(&gateway, "users");
        let mut all: Vec<String> =
            shown["endpoints"].as_array().unwrap().iter().map(|e| e["address"].as_str().unwrap().to_owned()).collect();
        all.sort();
        all
    };
    let mut both = [first.clone(), second.clone()];
    both.sort();
    until("both are there", || addresses() == both);
    etcd.process.kill();
    until("a part is missing", || service(&gateway, "users")["partial"] == true);
    let shown = service(&gateway, "users");
    assert_eq!((&shown["stale"], &shown["source"]), (&json!(false), &json!("consul, etcd")));
    assert_eq!(gateway.metric("wayside_discovery_partial{service=\"users\"}"), Some(1.0));
    assert_eq!(addresses(), both);
    etcd.start_again().await;
    until("nothing is missing", || service(&gateway, "users")["partial"] == false);
    for _ in 0..20 {
        assert!(answers(&gateway, "200"));
    }
    consul.deregister("a").await;
    until("the other one is alone", || addresses() == std::slice::from_ref(&second));
    assert!(answers(&gateway, "200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn three_gateways_on_one_registry_agree_and_one_that_does_not_is_named() {
    let etcd = Etcd::start().await;
    for port in 9001..=9020 {
        etcd.put(format!("/services/users/127.0.0.1:{port}").as_bytes(), b"", "0").await;
    }
    let config = |more: &str| format!("[sources.prod]\n{}\n{ROUTE}{more}", Registry::table(&etcd, etcd.address));
    let fleet: Vec<Program> = (0..3).map(|_| gateway(&config(""))).collect();
    let ask = |gateways: &[&Program]| {
        let urls = gateways.iter().map(|gateway| format!("http://{}", gateway.admin));
        let fleet =
            Command::new(env!("CARGO_BIN_EXE_wayside")).args(["fleet", "--within", "3s"]).args(urls).output().unwrap();
        (fleet.status.code(), String::from_utf8(fleet.stdout).unwrap(), String::from_utf8(fleet.stderr).unwrap())
    };
    let all: Vec<&Program> = fleet.iter().collect();
    let (code, said, problem) = ask(&all);
    assert!(code == Some(0) && said.contains("all 3 know the same"), "{code:?} {said} {problem}");
    let other = gateway(&config("[services.more]\nsource = \"prod\"\n"));
    let (code, said, _) = ask(&[all[0], &other]);
    assert!(
        code == Some(1) && said.contains("configuration differs") && said.contains("service more differs"),
        "{said}"
    );
    assert!(!said.contains("service users differs"), "{said}");
    let digests = || {
        let of = |gateway: &Program| {
            let shown: Value = serde_json::from_str(&gateway.ask("/snapshot")).unwrap();
            shown["parts"]["services"]["users"].as_str().unwrap().to_owned()
        };
        fleet.iter().map(of).collect::<Vec<_>>()
    };
    let before = digests();
    assert!(before.iter().all(|digest| *digest == before[0]), "{before:?}");
    etcd.delete("/services/users/127.0.0.1:9001", false).await;
    until("all have followed", || digests().iter().all(|digest| *digest != before[0]));
    let after = digests();
    assert!(after.iter().all(|digest| *digest == after[0]), "{after:?}");
}
