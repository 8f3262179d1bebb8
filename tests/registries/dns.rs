//! The `dns` source against a real Knot DNS.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "for tests; it tells times")]

use crate::suite::{self, PATIENCE, Registry, entry, ports};
use crate::support::knot::Knot;
use crate::support::servers::Process;
use crate::support::watched::{Watched, lookup};
use crate::wire::{State, Wire};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use wayside::discovery::{Entry, Lookup, Observed};

/// Asks often, so that what is said with a TTL of 0 is seen soon.
const EAGER: &str = "min_ttl = \"100ms\"\nconfirm_after = \"1s\"";

fn table(address: SocketAddr, more: &str) -> String {
    format!("kind = \"dns\"\nserver = \"{address}\"\n{more}")
}

fn named(registered_as: &str) -> Lookup {
    Lookup { registered_as: registered_as.to_owned(), ..lookup("users") }
}

fn look(knot: &Knot, registered_as: &str) -> Watched {
    Watched::start(&table(knot.address, EAGER), vec![named(registered_as)])
}

fn addresses(observed: &Observed) -> Vec<String> {
    observed.endpoints.iter().map(|entry| entry.address.to_string()).collect()
}

/// A Knot whose zone has SRV records, one for each endpoint.
struct Zone {
    knot: Knot,
    records: Mutex<BTreeMap<(String, String), String>>,
}

impl Zone {
    async fn start() -> Self {
        Zone { knot: Knot::start("").await, records: Mutex::default() }
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<(String, String), String>)) {
        let mut records = self.records.lock().unwrap();
        change(&mut records);
        let mut text = "local 0 A 127.0.0.1\n".to_owned();
        for ((service, _), record) in records.iter() {
            let _ = writeln!(text, "_{service}._tcp 0 SRV {record}");
        }
        self.knot.serve(&text);
    }
}

impl Registry for Zone {
    fn address(&self) -> SocketAddr {
        self.knot.address
    }

    async fn wire(&self) -> Wire {
        Wire::with_datagrams(self.knot.address).await
    }

    fn table(&self, address: SocketAddr) -> String {
        table(address, EAGER)
    }

    fn lookup(&self, service: &str) -> Lookup {
        named(&format!("_{service}._tcp.test"))
    }

    async fn put(&self, service: &str, entry: &Entry) {
        let record = format!("10 {} {} local", entry.weight, entry.address.port());
        self.change(|records| drop(records.insert((service.to_owned(), entry.address.to_string()), record)));
    }

    async fn remove(&self, service: &str, address: SocketAddr) {
        self.change(|records| drop(records.remove(&(service.to_owned(), address.to_string()))));
    }

    async fn garbage(&self, service: &str) {
        let records = ["10 1 1 nowhere", "10 1 0 local"];
        self.change(|all| {
            all.extend(records.map(|record| ((service.to_owned(), record.to_owned()), record.to_owned())));
        });
    }

    async fn wipe(&self, service: &str) {
        self.change(|records| records.retain(|(of, _), _| of != service));
    }

    fn process(&mut self) -> &mut Process {
        &mut self.knot.process
    }

    async fn start_again(&mut self) {
        self.knot.start_again().await;
    }

    const SAYS_METADATA: bool = false;
}

#[tokio::test]
async fn all_that_every_source_does() {
    suite::all(&mut Zone::start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registered_endpoint_is_routed_to_soon() {
    crate::gateway::propagation(&Zone::start().await, "dns (with a TTL of 1 s)", 50).await;
}

#[tokio::test]
async fn a_host_is_all_its_addresses_and_its_aliases_are_followed() {
    let host = "users 1 A 127.0.0.1\nusers 1 A 127.0.0.2\nusers 1 AAAA ::1\n";
    let knot =
        Knot::start(&format!("{host}alias 1 CNAME users\nfar 1 CNAME alias\nzero 0 A 127.0.0.3\nodd 1 A 0.0.0.0"))
            .await;
    let all = ["127.0.0.1:8080", "127.0.0.2:8080", "[::1]:8080"];
    for name in ["users.test:8080", "USERS.test.:8080", "alias.test:8080", "far.test:8080"] {
        let seen = look(&knot, name).until(PATIENCE, |_| true).await;
        assert_eq!(addresses(&seen), all, "{name}");
    }
    for (family, only) in [("ipv4", &all[..2]), ("ipv6", &all[2..])] {
        let table = table(knot.address, &format!("family = \"{family}\""));
        let seen = Watched::start(&table, vec![named("alias.test:8080")]).until(PATIENCE, |_| true).await;
        assert_eq!(addresses(&seen), only, "{family}");
    }
    let odd = look(&knot, "odd.test:1").until(PATIENCE, |seen| seen.held.is_some()).await;
    assert_eq!(odd.left_out[0].entry, "odd.test. (0.0.0.0, port 1)");
    // What holds for no time is asked for again after the shortest, and not in a loop.
    let mut zero = Watched::start(&table(knot.address, "min_ttl = \"200ms\""), vec![named("zero.test:1")]);
    zero.until(PATIENCE, |_| true).await;
    let from = Instant::now();
    for _ in 0..3 {
        zero.until(PATIENCE, |_| true).await;
    }
    assert!(from.elapsed() >= Duration::from_millis(600), "{:?}", from.elapsed());
    knot.serve("zero 0 A 127.0.0.4");
    zero.until(PATIENCE, |seen| addresses(seen) == ["127.0.0.4:1"]).await;
}

#[tokio::test]
async fn there_is_none_is_an_answer_and_cannot_say_is_a_failure() {
    let good = "users 0 A 127.0.0.1\nusers 0 A 127.0.0.2";
    let mut knot = Knot::start(good).await;
    let mut watched = look(&knot, "users.test:1");
    watched.until(PATIENCE, |seen| seen.endpoints.len() == 2).await;
    watched.fewest = None;
    // REFUSED, SERVFAIL: what is known stays, for as long as it lasts.
    knot.knows_zone(false).await;
    let problem = watched.problem(PATIENCE).await;
    assert!(problem.ends_with("users.test. A: answered REFUSED"), "{problem}");
    knot.knows_zone(true).await;
    watched.until(PATIENCE, |seen| seen.endpoints.len() == 2).await;
    knot.loses_zone().await;
    loop {
        let problem = watched.problem(PATIENCE).await;
        if problem.ends_with("users.test. A: answered SERVFAIL") {
            break;
        }
    }
    knot.serve(good);
    let from = Instant::now();
    watched.until(PATIENCE, |seen| seen.endpoints.len() == 2).await;
    println!("  after SERVFAIL: followed {} ms later", from.elapsed().as_millis());
    assert_eq!(watched.fewest, Some(2));
    // NODATA, NXDOMAIN: held, and then believed.
    knot.serve("users 0 TXT none");
    watched.until(PATIENCE, |seen| seen.held.is_some()).await;
    knot.serve(good);
    watched.until(PATIENCE, |seen| seen.held.is_none()).await;
    assert_eq!(watched.fewest, Some(2));
    knot.serve("");
    let told = watched.problems.len();
    watched.until(PATIENCE, |seen| seen.endpoints.is_empty() && seen.held.is_none()).await;
    assert_eq!(watched.problems.len(), told);
}

#[tokio::test]
async fn services_are_targets_of_the_lowest_priority_with_their_weights() {
    let hosts = "a 0 A 127.0.0.1\na 0 AAAA ::1\nb 0 A 127.0.0.2\nc 0 A 127.0.0.3\nd 0 CNAME c\n";
    let srv = |records: &[&str]| {
        records.iter().fold(hosts.to_owned(), |all, record| all + "_http._tcp 0 SRV " + record + "\n")
    };
    let knot = Knot::start(&srv(&["10 5 80 a", "10 0 81 b", "20 9 82 c"])).await;
    let mut watched = look(&knot, "_http._tcp.test");
    let seen = watched.until(PATIENCE, |_| true).await;
    assert_eq!(addresses(&seen), ["127.0.0.1:80", "127.0.0.2:81", "[::1]:80"]);
    assert_eq!(seen.endpoints.iter().map(|entry| entry.weight).collect::<Vec<_>>(), [5, 1, 5]);
    assert_eq!(seen.endpoints[0].metadata["priority"], "10");
    // Where none of the wanted is there, the next ones are; who is missing is named.
    knot.serve(&srv(&["10 5 80 gone", "20 9 82 c", "30 1 83 a"]));
    let seen = watched.until(PATIENCE, |seen| addresses(seen) == ["127.0.0.3:82"]).await;
    assert_eq!((seen.endpoints[0].weight, seen.left_out[0].entry.as_str()), (9, "gone.test. (port 80)"));
    let all = table(knot.address, "all_priorities = true");
    let seen = Watched::start(&all, vec![named("_http._tcp.test")]).until(PATIENCE, |_| true).await;
    let priorities: Vec<_> = seen.endpoints.iter().map(|entry| entry.metadata["priority"].as_str()).collect();
    assert_eq!((addresses(&seen).len(), priorities), (3, vec!["30", "20", "30"]));
    // A target should be no alias, but is followed where it is.
    knot.serve(&srv(&["10 5 80 d"]));
    watched.until(PATIENCE, |seen| addresses(seen) == ["127.0.0.3:80"]).await;
    // The root is nobody.
    knot.serve(&srv(&["0 0 0 ."]));
    watched.until(PATIENCE, |seen| seen.endpoints.is_empty() && seen.held.is_none()).await;
    assert_eq!(watched.problems, [""; 0]);
}

#[tokio::test]
async fn what_a_datagram_cannot_hold_comes_whole_over_tcp() {
    let mut zone = String::new();
    for number in 0..1_000 {
        let _ = writeln!(zone, "many 0 A 127.1.{}.{}", number / 250, number % 250 + 1);
        let _ = writeln!(zone, "_many._tcp 0 SRV 10 1 {} t{number}\nt{number} 0 A 127.0.0.1", 10_000 + number);
    }
    let knot = Knot::start(&zone).await;
    let wire = Wire::with_datagrams(knot.address).await;
    // Targets whose addresses did not fit are asked for, some at once.
    for name in ["many.test:1", "_many._tcp.test"] {
        let from = Instant::now();
        let mut watched = Watched::start(&table(wire.address, EAGER), vec![named(name)]);
        watched.until(PATIENCE, |seen| seen.endpoints.len() == 1_000 && seen.skipped == 0).await;
        println!("  {name}: a thousand read in {} ms", from.elapsed().as_millis());
        wire.set(State::Broken);
        let problem = watched.problem(PATIENCE).await;
        wire.set(State::Passing);
        watched.until(PATIENCE, |seen| seen.held.is_none() && seen.endpoints.len() == 1_000).await;
        assert_eq!((watched.fewest, problem.contains("no answer in time")), (Some(1_000), true), "{problem}");
    }
}

#[tokio::test]
async fn nonsense_is_a_failure() {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    let (say, said) = watch::channel(0);
    let server = tokio::spawn(async move {
        let mut bytes = [0; 512];
        loop {
            let (read, client) = socket.recv_from(&mut bytes).await.unwrap();
            let mut answer = bytes[..read].to_vec();
            // A response, but for the last: with its own question, and what is not there; cut short, and no TCP; nothing.
            let turn: usize = *said.borrow();
            let flags: &[u8] = [&[0x80, 0, 0, 1, 0xff, 0xff][..], &[0x82, 0], &[0x80, 15], &[0x80, 0, 0, 0]][turn];
            answer[2..2 + flags.len()].copy_from_slice(flags);
            let _ = socket.send_to(&answer, client).await;
        }
    });
    let mut watched = Watched::start(&table(address, "timeout = \"500ms\""), vec![named("users.test:1")]);
    let mut problems = std::collections::BTreeSet::new();
    for turn in 0..4 {
        say.send_replace(turn);
        let known = problems.len();
        while problems.len() == known {
            problems.insert(watched.problem(PATIENCE).await);
        }
    }
    server.abort();
    assert_eq!(watched.fewest, None, "{problems:?}");
}

#[tokio::test]
async fn the_next_server_is_asked_where_one_is_gone_or_refuses() {
    let (mut refuses, knot) = (Knot::start("").await, Knot::start("users 0 A 127.0.0.1").await);
    refuses.knows_zone(false).await;
    let gone = Wire::with_datagrams(knot.address).await;
    gone.set(State::Broken);
    let servers = format!("[\"{}\", \"{}\", \"{}\"]", gone.address, refuses.address, knot.address);
    let table = format!("kind = \"dns\"\nserver = {servers}\n{EAGER}");
    let mut watched = Watched::start(&table, vec![named("users.test:9001")]);
    let seen = watched.until(PATIENCE, |seen| !seen.endpoints.is_empty()).await;
    assert_eq!((ports(&seen), watched.problems.len()), (vec![9001], 0));
    assert_eq!(entry(9001).address.port(), 9001);
    // Whoever answered is asked first from now on.
    let from = Instant::now();
    for _ in 0..3 {
        watched.until(PATIENCE, |_| true).await;
    }
    println!("  three more lookups: {} ms", from.elapsed().as_millis());
}

#[tokio::test]
async fn three_hundred_services_are_followed_again_soon() {
    let zone = |last: u8| (0..300).map(|n| format!("s{n} 0 A 127.0.0.{last}\n")).collect::<String>();
    let mut knot = Knot::start(&zone(1)).await;
    let lookups = (0..300).map(|n| Lookup { registered_as: format!("s{n}.test:1"), ..lookup(&format!("s{n}")) });
    let mut watched =
        Watched::start(&table(knot.address, "confirm_after = \"1s\"\nmin_ttl = \"500ms\""), lookups.collect());
    let all = async |watched: &mut Watched, last: u8| {
        let mut seen = std::collections::BTreeSet::new();
        while seen.len() < 300 {
            let (service, observed) = watched.any(PATIENCE).await;
            if addresses(&observed) == [format!("127.0.0.{last}:1")] {
                seen.insert(service);
            }
        }
    };
    all(&mut watched, 1).await;
    for last in [2, 3] {
        let from = Instant::now();
        knot.serve(&zone(last));
        all(&mut watched, last).await;
        println!("  300 services changed: all seen after {} ms", from.elapsed().as_millis());
    }
    knot.process.kill();
    watched.problem(PATIENCE).await;
    knot.serve_at_start(&zone(4));
    knot.start_again().await;
    let from = Instant::now();
    all(&mut watched, 4).await;
    println!("  killed, all of 300 followed {} ms after it was ready", from.elapsed().as_millis());
}
