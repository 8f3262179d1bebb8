//! The `nacos` source against a real Nacos. It takes 12 s to start, so that all cases share one.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "for tests; it tells times")]

use crate::suite::{self, PATIENCE, Registry, entry, ports};
use crate::support::nacos::{Nacos, USER};
use crate::support::servers::Process;
use crate::support::watched::{Watched, lookup};
use crate::wire::Wire;
use serde_json::json;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use wayside::discovery::{Entry, Lookup, Observed};

fn table(address: SocketAddr, more: &str) -> String {
    let login = format!("username = \"{USER}\"\npassword = \"{USER}\"");
    format!("kind = \"nacos\"\naddress = \"{address}\"\nconfirm_after = \"1s\"\n{login}\n{more}")
}

impl Registry for Nacos {
    const FORGETS: bool = true;
    const DELAY: Duration = Duration::from_millis(500);

    fn address(&self) -> SocketAddr {
        self.address
    }

    async fn wire(&self) -> Wire {
        Wire::pair(self.address, 1000).await
    }

    fn table(&self, address: SocketAddr) -> String {
        table(address, "")
    }

    async fn put(&self, service: &str, entry: &Entry) {
        let Entry { address, weight, metadata, .. } = entry;
        let weight = weight.to_string();
        self.register(service, &address.ip().to_string(), address.port(), &json!(metadata), &[("weight", &weight)])
            .await;
    }

    async fn remove(&self, service: &str, address: SocketAddr) {
        self.deregister(service, &address.ip().to_string(), address.port()).await;
    }

    async fn garbage(&self, service: &str) {
        self.register(service, "nowhere", 9009, &json!({}), &[]).await;
    }

    async fn wipe(&self, service: &str) {
        for port in 9001..=9006 {
            self.remove(service, entry(port).address).await;
        }
    }

    fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    async fn start_again(&mut self) {
        Nacos::start_again(self).await;
    }
}

fn watch(nacos: &Nacos, service: &str) -> Watched {
    Watched::start(&table(nacos.address, ""), vec![lookup(service)])
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_every_source_does_and_what_is_special_to_nacos() {
    let mut nacos = Nacos::start().await;
    what_instances_say(&nacos).await;
    namespaces_groups_and_clusters(&nacos).await;
    the_wrong_password(&nacos).await;
    changes_come_within_a_second(&nacos).await;
    // The connection is the lease; one that drains is disabled, and so no longer listed.
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password").display().to_string();
    std::fs::write(&password, "nacos").unwrap();
    let login = ["--username", "nacos", "--password-file", &password];
    let source = table(nacos.address, "").replace("confirm_after = \"1s\"\n", "");
    let draining = |seen: &Observed| seen.held.is_some() || !seen.endpoints.iter().any(|entry| entry.healthy);
    crate::register::a_life(&format!("nacos://{}", nacos.address), &source, &login, draining).await;
    suite::all(&mut nacos).await;
    a_restart_that_forgets(&mut nacos).await;
}

async fn what_instances_say(nacos: &Nacos) {
    let mut watched = watch(nacos, "say");
    assert!(watched.until(PATIENCE, |_| true).await.endpoints.is_empty());
    let weights = |seen: &Observed| {
        let mut weights: Vec<_> = seen.endpoints.iter().map(|e| (e.address.port(), e.weight, e.healthy)).collect();
        weights.sort_unstable();
        weights
    };
    nacos.register("say", "127.0.0.1", 9001, &json!({}), &[("weight", "2")]).await;
    nacos.register("say", "127.0.0.1", 9002, &json!({}), &[]).await;
    watched.until(PATIENCE, |seen| weights(seen) == [(9001, 2, true), (9002, 1, true)]).await;
    // One fraction, and all are hundredths.
    nacos.register("say", "127.0.0.1", 9003, &json!({}), &[("weight", "0.25")]).await;
    nacos.register("say", "127.0.0.1", 9004, &json!({}), &[("weight", "0")]).await;
    let all = [(9001, 200, true), (9002, 100, true), (9003, 25, true), (9004, 0, true)];
    watched.until(PATIENCE, |seen| weights(seen) == all).await;
    // Whoever is disabled is pushed as such, or not at all.
    nacos.register("say", "127.0.0.1", 9001, &json!({}), &[("enabled", "false")]).await;
    watched.until(PATIENCE, |seen| !seen.endpoints.iter().any(|e| e.address.port() == 9001 && e.healthy)).await;
    // One after the other goes, and then there is a push of an empty list.
    for port in 9001..=9004 {
        nacos.deregister("say", "127.0.0.1", port).await;
    }
    watched.until(PATIENCE, |seen| seen.held.is_some()).await;
    watched.until(PATIENCE, |seen| seen.endpoints.is_empty()).await;
    assert_eq!(watched.problems, [""; 0]);
}

async fn namespaces_groups_and_clusters(nacos: &Nacos) {
    let more = [("namespaceId", "other"), ("groupName", "web")];
    for (port, cluster) in [(9001, "a"), (9002, "b"), (9003, "DEFAULT")] {
        let more = [more[0], more[1], ("clusterName", cluster)];
        nacos.register("grouped", "127.0.0.1", port, &json!({}), &more).await;
    }
    nacos.register("grouped", "127.0.0.1", 9004, &json!({}), &[]).await;
    let keys = "namespace = \"other\"\ngroup = \"web\"";
    let mut all = Watched::start(&table(nacos.address, keys), vec![lookup("grouped")]);
    let seen = all.until(PATIENCE, |seen| ports(seen) == [9001, 9002, 9003]).await;
    let of = |port: u16, key: &str| {
        let entry = seen.endpoints.iter().find(|entry| entry.address.port() == port).unwrap();
        entry.metadata.get(key).map(String::as_str)
    };
    assert_eq!((of(9001, "zone"), of(9001, "cluster"), of(9003, "zone")), (Some("a"), Some("a"), None));
    let some = format!("{keys}\nclusters = [\"b\", \"DEFAULT\"]");
    let mut some = Watched::start(&table(nacos.address, &some), vec![lookup("grouped")]);
    some.until(PATIENCE, |seen| ports(seen) == [9002, 9003]).await;
    // A service that names its group.
    let named = Lookup { registered_as: "web@@grouped".to_owned(), ..lookup("named") };
    let mut named = Watched::start(&table(nacos.address, "namespace = \"other\""), vec![named]);
    named.until(PATIENCE, |seen| seen.endpoints.len() == 3).await;
    let mut public = watch(nacos, "grouped");
    public.until(PATIENCE, |seen| ports(seen) == [9004]).await;
    nacos.register("grouped", "127.0.0.1", 9005, &json!({}), &[more[0], more[1], ("clusterName", "b")]).await;
    some.until(PATIENCE, |seen| ports(seen) == [9002, 9003, 9005]).await;
    named.until(PATIENCE, |seen| seen.endpoints.len() == 4).await;
}

async fn the_wrong_password(nacos: &Nacos) {
    nacos.register("denied", "127.0.0.1", 9001, &json!({}), &[]).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "hunter2").unwrap();
    let login = format!("username = \"{USER}\"\npassword_file = {file:?}");
    let table = |login: &str| format!("kind = \"nacos\"\naddress = \"{}\"\n{login}", nacos.address);
    let nobody = Watched::start(&table(""), vec![lookup("denied")]).problem(PATIENCE).await;
    assert!(nobody.contains("user not found") && nobody.contains("`username`"), "{nobody}");
    let mut watched = Watched::start(&table(&login), vec![lookup("denied")]);
    let wrong = watched.problem(PATIENCE).await;
    assert!(wrong.contains("login failed") && !wrong.contains("hunter2"), "{wrong}");
    std::fs::write(&file, format!("{USER}\n")).unwrap();
    watched.until(PATIENCE, |seen| ports(seen) == [9001]).await;
}

async fn changes_come_within_a_second(nacos: &Nacos) {
    let mut watched = watch(nacos, "times");
    watched.until(PATIENCE, |_| true).await;
    let mut times = Vec::new();
    for port in 9001..9011 {
        let from = Instant::now();
        nacos.register("times", "127.0.0.1", port, &json!({}), &[]).await;
        watched.until(PATIENCE, |seen| ports(seen).contains(&port)).await;
        times.push(from.elapsed());
    }
    times.sort();
    println!("median {:?}, worst {:?}", times[times.len() / 2], times[times.len() - 1]);
}

async fn a_restart_that_forgets(nacos: &mut Nacos) {
    for port in 9001..=9004 {
        nacos.register("forgotten", "127.0.0.1", port, &json!({}), &[]).await;
    }
    let mut watched = watch(nacos, "forgotten");
    watched.until(PATIENCE, |seen| seen.endpoints.len() == 4).await;
    watched.fewest = None;
    nacos.start_again().await;
    let held = watched.until(PATIENCE, |seen| seen.held.is_some()).await;
    assert!(held.held.as_ref().is_some_and(|held| held.contains("30s")), "{held:?}");
    for port in 9001..=9004 {
        nacos.register("forgotten", "127.0.0.1", port, &json!({}), &[]).await;
    }
    watched.until(PATIENCE, |seen| seen.held.is_none() && seen.endpoints.len() == 4).await;
    assert!(watched.fewest >= Some(2), "{:?}", watched.fewest);
}
