//! The `etcd` source against a real etcd.

use crate::suite::{self, PATIENCE, Registry, entry, ports};
use crate::support::certificates::Authority;
use crate::support::etcd::Etcd;
use crate::support::servers::Process;
use crate::support::watched::{Watched, lookup};
use crate::wire::{State, Wire};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use std::net::SocketAddr;
use wayside::discovery::{Entry, Lookup};

fn table(address: SocketAddr, more: &str) -> String {
    format!("kind = \"etcd\"\naddress = \"{address}\"\nconfirm_after = \"1s\"\n{more}")
}

impl Registry for Etcd {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn table(&self, address: SocketAddr) -> String {
        table(address, "")
    }

    async fn put(&self, service: &str, entry: &Entry) {
        let (address, value) = (entry.address, suite::value(entry));
        Etcd::put(self, format!("/services/{service}/{address}").as_bytes(), value.as_bytes(), "0").await;
    }

    async fn remove(&self, service: &str, address: SocketAddr) {
        self.delete(&format!("/services/{service}/{address}"), false).await;
    }

    async fn garbage(&self, service: &str) {
        Etcd::put(self, format!("/services/{service}/\u{1}nowhere").as_bytes(), b"\xff\0", "0").await;
    }

    async fn wipe(&self, service: &str) {
        self.delete(&format!("/services/{service}/"), true).await;
    }

    fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    async fn start_again(&mut self) {
        Etcd::start_again(self).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_routed_at_once() {
    crate::gateway::propagation(&Etcd::start().await, "etcd", 50).await;
}

#[tokio::test]
async fn all_that_every_source_does() {
    suite::all(&mut Etcd::start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_endpoints_of_five_hundred_services() {
    let etcd = Etcd::start().await;
    let name = |service: u16| format!("s{service}");
    for service in 0..500 {
        let put = |port: u16| {
            let key = format!("/services/{}/127.0.0.1:{port}", name(service));
            json!({"request_put": {"key": STANDARD.encode(key), "value": ""}})
        };
        let all: Vec<_> = (1..=20).map(|number| put(10_000 + number)).collect();
        etcd.call("kv/txn", &json!({"success": all})).await;
    }
    let mut watched =
        Watched::start(&table(etcd.address, ""), (0..500).map(|service| lookup(&name(service))).collect());
    let from = std::time::Instant::now();
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 500 {
        let (service, observed) = watched.any(PATIENCE).await;
        assert_eq!(observed.endpoints.len(), 20);
        seen.insert(service);
    }
    suite::say(&format!("10,000 endpoints of 500 services read in {} ms", from.elapsed().as_millis()));
    etcd.delete("/services/s250/127.0.0.1:10001", false).await;
    let (service, observed) = watched.any(PATIENCE).await;
    assert_eq!((&*service, observed.endpoints.len()), ("s250", 19));
}

#[tokio::test]
async fn a_lease_ends_and_the_forms_of_values_are_read() {
    let etcd = Etcd::start().await;
    let lease = etcd.call("lease/grant", &json!({"TTL": 2})).await;
    let lease = lease["ID"].as_str().unwrap();
    etcd.put(b"/services/users/127.0.0.1:9001", b"", lease).await;
    etcd.put(b"/services/users/b", b"127.0.0.1:9002", "0").await;
    etcd.put(b"/services/users/c", br#"{"Op":0,"Addr":"127.0.0.1:9003","Metadata":null}"#, "0").await;
    etcd.put(b"/services/users/d", br#"{"host":"127.0.0.1","port":9004,"tags":["eu"]}"#, "0").await;
    etcd.put(b"/services/users-v2/x", b"127.0.0.1:9005", "0").await;
    etcd.put(b"/services/users/\xff\xfe", b"127.0.0.1:9006", "0").await;
    let mut watched = Watched::start(&table(etcd.address, ""), vec![lookup("users")]);
    watched.until(PATIENCE, |seen| ports(seen) == [9001, 9002, 9003, 9004, 9006]).await;
    let eu = Lookup { registered_as: "users".to_owned(), tags: vec!["eu".to_owned()], ..lookup("people") };
    let mut tagged = Watched::start(&table(etcd.address, ""), vec![eu]);
    tagged.until(PATIENCE, |seen| ports(seen) == [9004]).await;
    // Nobody keeps the lease.
    watched.until(PATIENCE, |seen| ports(seen) == [9002, 9003, 9004, 9006]).await;
}

#[tokio::test]
async fn who_may_not_read_is_told_so_and_who_may_reads() {
    let mut etcd = Etcd::start().await;
    etcd.put(b"/services/users/127.0.0.1:9001", b"", "0").await;
    etcd.put(b"/secret/users/127.0.0.1:9001", b"", "0").await;
    etcd.guard("/services/").await;
    let told = async |more: &str| {
        let mut watched = Watched::start(&table(etcd.address, more), vec![lookup("users")]);
        watched.problem(PATIENCE).await
    };
    let nobody = told("").await;
    assert!(nobody.contains("user name is empty") && nobody.contains("set `username`"), "{nobody}");
    let wrong = told("username = \"gw\"\npassword = \"hunter2\"").await;
    assert!(wrong.contains("login failed") && !wrong.contains("hunter2"), "{wrong}");
    let elsewhere = told("username = \"gw\"\npassword = \"pw\"\nprefix = \"/secret/\"").await;
    assert!(elsewhere.contains("permission denied"), "{elsewhere}");
    let may = table(etcd.address, "username = \"gw\"\npassword = \"pw\"");
    let mut watched = Watched::start(&may, vec![lookup("users")]);
    watched.until(PATIENCE, |seen| ports(seen) == [9001]).await;
    etcd.put(b"/services/users/127.0.0.1:9002", b"", "0").await;
    watched.until(PATIENCE, |seen| ports(seen) == [9001, 9002]).await;
}

#[tokio::test]
async fn a_token_that_ended_and_a_password_that_changed_are_no_trouble() {
    let mut etcd = Etcd::with(&["--auth-token-ttl", "1", "--bcrypt-cost", "4"], false).await;
    etcd.put(b"/services/users/127.0.0.1:9001", b"", "0").await;
    etcd.guard("/services/").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "pw\n").unwrap();
    let wire = Wire::to(etcd.address).await;
    let keys = format!("username = \"gw\"\npassword_file = {file:?}");
    let mut watched = Watched::start(&table(wire.address, &keys), vec![lookup("users")]);
    watched.until(PATIENCE, |seen| ports(seen) == [9001]).await;
    etcd.log_in("root", "pw").await;
    etcd.call("auth/user/changepw", &json!({"name": "gw", "password": "new"})).await;
    wire.set(State::Broken);
    watched.problem(PATIENCE).await;
    wire.set(State::Passing);
    let denied = watched.problem(PATIENCE).await;
    assert!(denied.contains("login failed"), "{denied}");
    std::fs::write(&file, "new\n").unwrap();
    watched.until(PATIENCE, |seen| ports(seen) == [9001]).await;
}

#[tokio::test]
async fn compacted_wiped_and_gone_back_is_read_anew() {
    let mut etcd = Etcd::start().await;
    for port in 9001..=9005 {
        etcd.put(format!("/services/users/127.0.0.1:{port}").as_bytes(), b"", "0").await;
    }
    let wire = Wire::to(etcd.address).await;
    let mut watched = Watched::start(&table(wire.address, ""), vec![lookup("users")]);
    watched.until(PATIENCE, |seen| seen.endpoints.len() == 5).await;
    wire.set(State::Broken);
    watched.problem(PATIENCE).await;
    etcd.put(b"/services/users/127.0.0.1:9006", b"", "0").await;
    etcd.call("kv/compaction", &json!({"revision": "7", "physical": true})).await;
    wire.set(State::Passing);
    watched.until(PATIENCE, |seen| seen.endpoints.len() == 6).await;
    // It comes back with nothing, at revision 1: held, and then the truth.
    watched.fewest = None;
    etcd.forget();
    etcd.start_again().await;
    watched.until(PATIENCE, |seen| seen.held.is_some()).await;
    assert_eq!(watched.fewest, Some(6));
    for port in 9001..=9004 {
        etcd.put(format!("/services/users/127.0.0.1:{port}").as_bytes(), b"", "0").await;
    }
    watched.until(PATIENCE, |seen| ports(seen) == [9001, 9002, 9003, 9004]).await;
}

#[tokio::test]
async fn the_next_member_is_asked_where_one_is_gone() {
    let etcd = Etcd::start().await;
    let gone = Wire::to(etcd.address).await;
    gone.set(State::Broken);
    etcd.put(b"/services/users/127.0.0.1:9001", b"", "0").await;
    let table = format!("kind = \"etcd\"\naddress = [\"{}\", \"{}\"]", gone.address, etcd.address);
    let mut watched = Watched::start(&table, vec![lookup("users")]);
    watched.until(PATIENCE, |seen| ports(seen) == [9001]).await;
    assert_eq!(entry(9001).address.port(), 9001);
}

#[tokio::test]
async fn over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.issue(&["localhost"], folder.path(), "server");
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let [chain, key] = ["server.pem", "server.key"].map(|name| folder.path().join(name).display().to_string());
    let etcd = Etcd::with(&["--cert-file", &chain, "--key-file", &key], true).await;
    etcd.put(b"/services/users/127.0.0.1:9001", b"", "0").await;
    let tls = format!("tls = {{ ca = {ca:?}, server_name = \"localhost\" }}");
    let mut watched = Watched::start(&table(etcd.secure, &tls), vec![lookup("users")]);
    watched.until(PATIENCE, |seen| ports(seen) == [9001]).await;
    etcd.put(b"/services/users/127.0.0.1:9002", b"", "0").await;
    watched.until(PATIENCE, |seen| ports(seen) == [9001, 9002]).await;
    // Nobody vouches for another name, and nobody speaks TLS at the other address.
    let other = tls.replace("localhost", "other.example");
    let problem = Watched::start(&table(etcd.secure, &other), vec![lookup("users")]).problem(PATIENCE).await;
    assert!(problem.contains("TLS handshake"), "{problem}");
    let problem = Watched::start(&table(etcd.address, &tls), vec![lookup("users")]).problem(PATIENCE).await;
    assert!(problem.contains("TLS handshake"), "{problem}");
}

#[tokio::test]
async fn of_three_members_one_after_the_other_dies() {
    let mut members = Etcd::three().await;
    members[0].put(b"/services/users/127.0.0.1:9001", b"", "0").await;
    let all = members.iter().map(|member| format!("{:?}", member.address.to_string())).collect::<Vec<_>>().join(", ");
    let table = format!("kind = \"etcd\"\naddress = [{all}]\nconfirm_after = \"1s\"");
    let mut watched = Watched::start(&table, vec![lookup("users")]);
    watched.until(PATIENCE, |seen| ports(seen) == [9001]).await;
    watched.fewest = None;
    for (number, port) in [(0, 9002), (1, 9003), (2, 9004)] {
        members[number].process.kill();
        // While the others choose a leader, they take nothing.
        members[(number + 1) % 3].put_again(format!("/services/users/127.0.0.1:{port}").as_bytes(), PATIENCE).await;
        watched.until(PATIENCE, |seen| ports(seen) == (9001..=port).collect::<Vec<_>>()).await;
        members[number].start_again().await;
    }
    assert!(watched.fewest >= Some(1), "{:?}", watched.fewest);
}
