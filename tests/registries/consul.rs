//! The `consul` source against a real Consul, as all sources have to be, with host names, and with many services.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "for tests; it tells times")]

use crate::suite::{self, PATIENCE, Registry, ports};
use crate::support::knot::Knot;
use crate::support::servers::{Consul, Process};
use crate::support::watched::{Watched, lookup};
use serde_json::json;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Instant;
use wayside::discovery::{Entry, Observed};

fn table(address: SocketAddr, more: &str) -> String {
    format!("kind = \"consul\"\naddress = \"http://{address}\"\nconfirm_after = \"1s\"\n{more}")
}

fn id(service: &str, address: SocketAddr) -> String {
    format!("{service}-{address}")
}

impl Registry for Consul {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn table(&self, address: SocketAddr) -> String {
        table(address, "")
    }

    async fn put(&self, service: &str, entry: &Entry) {
        let Entry { address, weight, metadata, .. } = entry;
        self.register(&json!({
            "ID": id(service, *address), "Name": service, "Address": address.ip().to_string(), "Port": address.port(),
            "Weights": {"Passing": weight, "Warning": 1}, "Meta": metadata,
        }))
        .await;
    }

    async fn remove(&self, service: &str, address: SocketAddr) {
        self.deregister(&id(service, address)).await;
    }

    async fn garbage(&self, service: &str) {
        let id = format!("{service}-garbage");
        self.register(&json!({"ID": id, "Name": service, "Address": "no where", "Port": 1})).await;
    }

    async fn wipe(&self, service: &str) {
        let path = format!("/v1/catalog/service/{service}");
        let response = self.request(reqwest::Method::GET, &path).send().await.unwrap();
        let list: Vec<serde_json::Value> = response.json().await.unwrap();
        let ids: Vec<&str> = list.iter().map(|entry| entry["ServiceID"].as_str().unwrap()).collect();
        // At once; then the agent is told, too, which would bring them back.
        let delete =
            |id: &&str| json!({"Service": {"Verb": "delete", "Node": "n1", "Service": {"ID": id, "Service": service}}});
        Consul::put(self, "/v1/txn", &json!(ids.iter().map(delete).collect::<Vec<_>>())).await;
        for id in ids {
            self.deregister(id).await;
        }
    }

    fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    async fn start_again(&mut self) {
        Consul::start_again(self).await;
    }
}

#[tokio::test]
async fn all_that_every_source_does() {
    suite::all(&mut Consul::durable().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registered_endpoint_is_routed_to_soon() {
    crate::gateway::propagation(&Consul::start().await, "consul", 50).await;
}

fn addresses(observed: &Observed) -> Vec<String> {
    let mut all: Vec<String> = observed.endpoints.iter().map(|entry| entry.address.to_string()).collect();
    all.sort();
    all
}

#[tokio::test]
async fn host_names_are_looked_up_where_that_is_wished() {
    let zone = "db 0 A 127.0.0.1\ndb 0 AAAA ::1\nnode 60 CNAME db\n";
    let (consul, mut knot) = (Consul::start().await, Knot::start(zone).await);
    let register = async |id: &str, host: &str, port: u16| {
        consul.register(&json!({"ID": id, "Name": "users", "Address": host, "Port": port})).await;
    };
    register("a", "db.test", 9001).await;
    register("b", "node.test.", 9002).await;
    register("c", "127.0.0.9", 9003).await;
    register("d", "nobody.test", 9004).await;
    let keys = format!("resolve_hosts = true\ndns_server = \"{}\"", knot.address);
    let mut watched = Watched::start(&table(consul.address, &keys), vec![lookup("users")]);
    let all = ["127.0.0.1:9001", "127.0.0.1:9002", "127.0.0.9:9003", "[::1]:9001", "[::1]:9002"];
    let seen = watched.until(PATIENCE, |seen| addresses(seen) == all).await;
    assert_eq!((seen.skipped, seen.left_out[0].reason.as_str()), (1, "`nobody.test` has no address"));
    // What Consul has not changed is looked up again, too.
    let from = Instant::now();
    knot.serve("db 0 A 127.0.0.2\ndb 0 AAAA ::1\nnode 60 CNAME db\nnobody 0 A 127.0.0.3\n");
    let moved = ["127.0.0.2:9001", "127.0.0.2:9002", "127.0.0.3:9004", "127.0.0.9:9003", "[::1]:9001", "[::1]:9002"];
    watched.until(PATIENCE, |seen| addresses(seen) == moved).await;
    println!("  another address was seen after {} ms", from.elapsed().as_millis());
    // DNS that cannot say takes nothing away, and Consul is still followed.
    watched.fewest = None;
    knot.knows_zone(false).await;
    for port in 9005..9009 {
        register("e", "127.0.0.9", port).await;
        watched.until(PATIENCE, |seen| ports(seen).contains(&port) && seen.endpoints.len() == 7).await;
    }
    assert_eq!((watched.fewest >= Some(6), watched.problems.len()), (true, 0));
    register("f", "new.test", 9010).await;
    let seen = watched.until(PATIENCE, |seen| seen.skipped == 1).await;
    assert!(seen.left_out[0].reason.starts_with("`new.test` cannot be looked up: "), "{seen:?}");
}

/// More services than an agent takes connections: how long changes take.
#[tokio::test]
async fn six_hundred_services_are_followed_through_one_agent() {
    const SERVICES: usize = 600;
    const CHANGES: usize = 60;
    let consul = Consul::start().await;
    let register = async |number: usize, port: u16| {
        let name = format!("s{number}");
        consul.register(&json!({"ID": name, "Name": name, "Address": "127.0.0.1", "Port": port})).await;
    };
    for number in 0..SERVICES {
        register(number, 9001).await;
    }
    let lookups = (0..SERVICES).map(|number| lookup(&format!("s{number}"))).collect();
    let from = Instant::now();
    let mut watched = Watched::start(&table(consul.address, ""), lookups);
    let mut seen = BTreeSet::new();
    while seen.len() < SERVICES {
        let (service, observed) = watched.any(PATIENCE).await;
        if ports(&observed) == [9001] {
            seen.insert(service);
        }
    }
    println!("  {SERVICES} services read in {} ms", from.elapsed().as_millis());
    let cpu = || std::fs::read_to_string(format!("/proc/{}/stat", consul.process.id())).unwrap();
    let ticks = |stat: &str| stat.split(' ').skip(13).take(2).map(|tick| tick.parse::<u64>().unwrap()).sum::<u64>();
    let (before, started) = (ticks(&cpu()), Instant::now());
    let mut took = Vec::new();
    for change in 0..CHANGES {
        // Anywhere in the services, and not in step with their turns.
        let number = (change + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
        let number = number % SERVICES;
        let (name, port) = (format!("s{number}"), 9002 + u16::try_from(change).unwrap());
        register(number, port).await;
        let from = Instant::now();
        loop {
            let (service, observed) = watched.any(PATIENCE).await;
            if *service == *name && ports(&observed) == [port] {
                break;
            }
        }
        took.push(from.elapsed().as_millis());
    }
    took.sort_unstable();
    let share = (ticks(&cpu()) - before) as f64 / 100.0 / started.elapsed().as_secs_f64();
    println!(
        "  a change is seen after {} ms (median), {} ms (worst); the agent takes {share:.2} of a core",
        took[CHANGES / 2],
        took[CHANGES - 1]
    );
    assert_eq!(watched.problems, [""; 0]);
}
