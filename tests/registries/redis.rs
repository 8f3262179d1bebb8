//! The `redis` source and its client against a real Redis or Valkey.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "for tests; it tells times")]

#[path = "redis/access.rs"]
mod access;
#[path = "redis/chance.rs"]
mod chance;
#[path = "redis/hostile.rs"]
mod hostile;
#[path = "redis/many.rs"]
mod many;

use crate::suite::{self, PATIENCE, Registry, entry, ports};
use crate::support::certificates::Authority;
use crate::support::program::Program;
use crate::support::redis::{Redis, until, words};
use crate::support::servers::Process;
use crate::support::watched::{Watched, lookup};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use wayside::discovery::registry::redis::{Client, Keyed, Settings};
use wayside::discovery::{Entry, Lookup};

fn table(address: SocketAddr, more: &str) -> String {
    format!("kind = \"redis\"\naddress = \"redis://{address}\"\nconfirm_after = \"1s\"\n{more}")
}

/// A lookup for which an empty list is no doubt.
fn trusting(service: &str) -> Lookup {
    Lookup { allow_empty: true, ..lookup(service) }
}

/// The client's settings for commands on single keys.
fn keyed(text: &str) -> Keyed {
    let settings: Settings = toml::from_str(text).unwrap();
    Keyed::new(Client::new(settings))
}

impl Registry for Redis {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn table(&self, address: SocketAddr) -> String {
        table(address, "")
    }

    async fn put(&self, service: &str, entry: &Entry) {
        let (address, value) = (entry.address, suite::value(entry));
        self.run(&["SET", &format!("services:{service}:{address}"), &value]).await;
    }

    async fn remove(&self, service: &str, address: SocketAddr) {
        self.run(&["DEL", &format!("services:{service}:{address}")]).await;
    }

    async fn garbage(&self, service: &str) {
        let mut set = words(&["SET"]);
        set.arg([format!("services:{service}:").as_bytes(), b"\xff\0\n"].concat()).arg(b"\xff\0");
        self.ask::<()>(&set).await;
    }

    async fn wipe(&self, service: &str) {
        let keys: Vec<String> = self.ask(&words(&["KEYS", &format!("services:{service}:*")])).await;
        let mut delete = words(&["DEL"]);
        delete.arg(keys);
        self.ask::<u32>(&delete).await;
    }

    fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    async fn start_again(&mut self) {
        Redis::start_again(self).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_routed_at_once() {
    crate::gateway::propagation(&Redis::start().await, "redis", 50).await;
}

#[tokio::test]
async fn all_that_every_source_does() {
    suite::all(&mut Redis::start().await).await;
}

#[tokio::test]
async fn the_forms_of_entries_are_read_and_what_is_none_is_named() {
    let redis = Redis::start().await;
    for (key, value) in [
        ("services:users:127.0.0.1:9001", ""),
        ("services:users:b", "127.0.0.1:9002"),
        ("services:users:c", r#"{"host":"127.0.0.1","port":9003,"tags":["eu"],"zone":"a"}"#),
        ("services:users-admin:127.0.0.1:9009", ""),
        ("services:other:127.0.0.1:9009", ""),
        ("users:127.0.0.1:9009", ""),
    ] {
        redis.run(&["SET", key, value]).await;
    }
    redis.run(&["HSET", "services:users", "127.0.0.1:9004", "{}", "e", "127.0.0.1:9005", "f", "nowhere"]).await;
    redis.run(&["SADD", "services:users:set", "127.0.0.1:9009"]).await;
    redis.run(&["SET", "services:cart", "127.0.0.1:9009"]).await;
    redis.run(&["SET", "services:users:large", &"x".repeat(3 << 20)]).await;
    redis.ask::<()>(words(&["SET"]).arg(b"services:users:\xff\xfe").arg("127.0.0.1:9006")).await;
    redis.ask::<()>(words(&["SET", "services:users:g"]).arg(b"\xff\0")).await;
    let lookups =
        vec![lookup("users"), Lookup { service: "people".into(), tags: vec!["eu".into()], ..lookup("users") }];
    let mut watched = Watched::start(&table(redis.address, ""), lookups);
    let mut seen = std::collections::BTreeMap::new();
    while seen.len() < 2 {
        let (service, observed) = watched.any(PATIENCE).await;
        seen.insert(service.to_string(), observed);
    }
    assert_eq!(ports(&seen["users"]), [9001, 9002, 9003, 9004, 9005, 9006]);
    assert_eq!(ports(&seen["people"]), [9003]);
    assert_eq!(seen["users"].skipped, 4);
    let told: Vec<String> =
        seen["users"].left_out.iter().map(|left| format!("{}: {}", left.entry, left.reason)).collect();
    for problem in [
        "services:users f: `nowhere` is not IP:PORT",
        "services:users:g: its value is no UTF-8",
        "services:users:large: its value is longer than 65536 bytes",
        "services:users:set: its type is wrong: a text is expected",
    ] {
        assert!(told.iter().any(|told| told.starts_with(problem)), "{problem} is not in {told:?}");
    }
    let problem = Watched::start(&table(redis.address, ""), vec![lookup("cart")]).problem(PATIENCE).await;
    assert!(problem.contains("its type is wrong: a hash is expected"), "{problem}");

    // A hash may change by fields, and go as one.
    redis.run(&["HSET", "services:users", "127.0.0.1:9007", ""]).await;
    watched.until(PATIENCE, |seen| ports(seen).contains(&9007)).await;
    redis.run(&["HDEL", "services:users", "127.0.0.1:9004", "f"]).await;
    watched.until(PATIENCE, |seen| seen.skipped == 3 && !ports(seen).contains(&9004)).await;
    redis.run(&["RENAME", "services:users", "elsewhere"]).await;
    watched.until(PATIENCE, |seen| ports(seen) == [9001, 9002, 9003, 9006]).await;
    assert_eq!(watched.problems, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_how_changes_are_heard_of() {
    let redis = Redis::start().await;
    redis.run(&["ACL", "SETUSER", "scans", "on", ">hunter2", "~*", "-@all", "+scan", "+get", "+pttl", "+ping"]).await;
    for (login, line) in [("", "client-side tracking"), ("scans:hunter2@", "a scan")] {
        let config = format!(
            "[sources.cache]\nkind = \"redis\"\naddress = \"redis://{login}{}\"\n[services.users]\nsource = \"cache\"\n",
            redis.address
        );
        let told = tokio::task::block_in_place(|| {
            Program::start(tempfile::tempdir().unwrap(), &config, &[]).logged("changes are")
        });
        println!("  {}", told.trim());
        assert!(told.contains(line) && !told.contains("hunter2"), "{told}");
    }
}

#[tokio::test]
async fn changes_are_seen_in_milliseconds() {
    let redis = Redis::start().await;
    let mut watched = Watched::start(&table(redis.address, ""), vec![trusting("users")]);
    watched.until(PATIENCE, |_| true).await;
    let mut took = Vec::new();
    for number in 0..40 {
        let from = Instant::now();
        let (put, there) = (number % 2 == 0, [9001]);
        if put {
            redis.put("users", &entry(9001)).await;
        } else {
            redis.remove("users", entry(9001).address).await;
        }
        watched.until(PATIENCE, |seen| (ports(seen) == there) == put).await;
        took.push(from.elapsed());
    }
    took.sort();
    println!("  a change is seen: median {:?}, worst {:?}", took[took.len() / 2], took[took.len() - 1]);
}

#[tokio::test]
async fn a_key_ends_when_its_time_has_come_among_a_thousand_others() {
    let redis = Redis::start().await;
    // The server looks at a few of these at a time.
    for number in 0..1_000 {
        redis.run(&["SET", &format!("session:{number}"), "x", "PX", &(3_600_000 + number).to_string()]).await;
    }
    let mut watched = Watched::start(&table(redis.address, ""), vec![trusting("users")]);
    watched.until(PATIENCE, |_| true).await;
    let mut late = Vec::new();
    for number in 0..5 {
        let ttl = Duration::from_millis(400 + 100 * number);
        let from = Instant::now();
        redis.run(&["SET", "services:users:127.0.0.1:9001", "", "PX", &ttl.as_millis().to_string()]).await;
        watched.until(PATIENCE, |seen| ports(seen) == [9001]).await;
        watched.until(PATIENCE, |seen| seen.endpoints.is_empty()).await;
        late.push(from.elapsed().saturating_sub(ttl));
    }
    println!("  a key's end is seen so long after it: {late:?}");
    assert!(late.iter().all(|late| *late < Duration::from_secs(1)), "{late:?}");

    // Who renews his key stays, and nothing is told of it.
    let key = ["SET", "services:users:127.0.0.1:9002", "", "PX", "600"];
    redis.run(&key).await;
    watched.until(PATIENCE, |seen| ports(seen) == [9002]).await;
    watched.fewest = None;
    let from = Instant::now();
    while from.elapsed() < Duration::from_secs(2) {
        redis.run(&key).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    redis.put("users", &entry(9003)).await;
    watched.until(PATIENCE, |seen| ports(seen) == [9002, 9003]).await;
    assert_eq!(watched.fewest, Some(2));
    watched.until(PATIENCE, |seen| ports(seen) == [9003]).await;
}

#[tokio::test]
async fn keys_are_found_among_many_others() {
    let redis = Redis::with(&["--enable-debug-command", "yes"]).await;
    redis.run(&["DEBUG", "POPULATE", "200000", "session", "20"]).await;
    redis.put("users", &entry(9001)).await;
    let from = Instant::now();
    let mut watched = Watched::start(&table(redis.address, ""), vec![lookup("users")]);
    watched.until(PATIENCE, |seen| ports(seen) == [9001]).await;
    println!("  one key among 200,000 others is found after {:?}", from.elapsed());
    redis.put("users", &entry(9002)).await;
    watched.until(PATIENCE, |seen| ports(seen) == [9001, 9002]).await;
}

#[tokio::test]
async fn a_flush_is_seen() {
    let redis = Redis::start().await;
    for command in ["FLUSHALL", "FLUSHDB"] {
        redis.put("users", &entry(9001)).await;
        redis.put("users", &entry(9002)).await;
        let mut watched = Watched::start(&table(redis.address, ""), vec![trusting("users")]);
        watched.until(PATIENCE, |seen| ports(seen) == [9001, 9002]).await;
        redis.run(&[command]).await;
        watched.until(PATIENCE, |seen| seen.endpoints.is_empty()).await;
        redis.put("users", &entry(9003)).await;
        watched.until(PATIENCE, |seen| ports(seen) == [9003]).await;
        redis.remove("users", entry(9003).address).await;
        assert_eq!(watched.problems, [""; 0]);
    }
}

#[tokio::test]
async fn who_is_thrown_out_comes_back() {
    let redis = Redis::start().await;
    redis.put("users", &entry(9001)).await;
    let mut watched = Watched::start(&table(redis.address, ""), vec![lookup("users")]);
    watched.until(PATIENCE, |seen| ports(seen) == [9001]).await;
    for port in 9002..9005 {
        redis.run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
        redis.put("users", &entry(port)).await;
        watched.until(PATIENCE, |seen| ports(seen).contains(&port)).await;
    }
    // A gateway that is too slow for what it is told.
    redis.run(&["CONFIG", "SET", "client-output-buffer-limit", "normal 1mb 1mb 1"]).await;
    let problems = watched.problems.len();
    let mut script = words(&["EVAL"]);
    // One transaction of the server's, so nobody reads meanwhile.
    script.arg("for i = 1, 60000 do redis.call('SET', 'services:users:' .. i, string.rep('x', 20)) end").arg(0);
    redis.ask::<redis::Value>(&script).await;
    redis.put("users", &entry(9009)).await;
    let seen = watched.until(PATIENCE, |seen| ports(seen).contains(&9009) && seen.skipped > 50_000).await;
    println!("  sixty thousand keys at once: {} left out, {:?}", seen.skipped, &watched.problems[problems..]);
}

#[tokio::test]
async fn tls_with_an_authority_of_ones_own() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.issue(&["127.0.0.1", "redis.test"], folder.path(), "server");
    authority.client(folder.path(), "client");
    let file = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(file("ca.pem"), authority.pem()).unwrap();
    let redis = Redis::with_tls(&file("server.pem"), &file("server.key"), &file("ca.pem")).await;
    let address = redis.address;
    let told = async |more: &str| {
        let table = format!("kind = \"redis\"\naddress = \"rediss://{address}\"\n{more}");
        Watched::start(&table, vec![lookup("users")]).problem(PATIENCE).await
    };
    let ca = file("ca.pem");
    for (more, problem) in [
        (String::new(), "none of the authorities that are trusted"),
        (format!("tls = {{ ca = {ca:?}, server_name = \"other.test\" }}"), "not for `other.test`"),
        (format!("tls = {{ ca = {ca:?} }}"), "CertificateRequired"),
        (format!("tls = {{ ca = \"{ca}.not\" }}"), "cannot be read"),
    ] {
        let said = told(&more).await;
        assert!(said.contains(problem), "{more} gave {said}");
    }
    let (chain, key) = (file("client.pem"), file("client.key"));
    let tls = format!("tls = {{ ca = {ca:?}, certificate = {{ chain = {chain:?}, key = {key:?} }} }}");
    let table = format!("kind = \"redis\"\naddress = \"rediss://{address}\"\n{tls}");
    let mut watched = Watched::start(&table, vec![lookup("users")]);
    watched.until(PATIENCE, |_| true).await;
    let keyed = keyed(&format!("address = \"rediss://{address}\"\n{tls}"));
    let written = keyed.set(b"services:users:127.0.0.1:9001", b"", Duration::from_secs(60)).await;
    assert_eq!(written, Ok(None));
    watched.until(PATIENCE, |seen| ports(seen) == [9001]).await;
}

#[tokio::test]
async fn keys_are_written_renewed_and_taken_away() {
    let mut redis = Redis::start().await;
    let keyed = keyed(&format!("address = \"{}\"", redis.address));
    let key = b"services:users:127.0.0.1:9001";
    assert_eq!(keyed.set(key, b"one", Duration::from_millis(800)).await, Ok(None));
    assert_eq!(keyed.set(key, b"two", Duration::from_secs(60)).await, Ok(Some(b"one".to_vec())));
    // It has ended, or somebody took it away: who renews it learns that.
    assert_eq!(keyed.delete(key).await, Ok(true));
    assert_eq!(keyed.delete(key).await, Ok(false));
    assert_eq!(keyed.set(key, b"three", Duration::from_millis(300)).await, Ok(None));
    until("the key has ended", async || !redis.ask::<bool>(&words(&["EXISTS", "services:users:127.0.0.1:9001"])).await)
        .await;
    assert_eq!(keyed.set(key, b"four", Duration::from_secs(60)).await, Ok(None));
    // After a restart, without a failure in between.
    redis.start_again().await;
    let written = keyed.set(key, b"five", Duration::from_secs(60)).await;
    println!("  after a restart: {written:?}");
    assert!(written.is_ok());
    redis.process.kill();
    let problem = keyed.set(key, b"six", Duration::from_secs(60)).await.unwrap_err();
    assert!(problem.problem.contains("cannot connect"), "{problem}");
}
