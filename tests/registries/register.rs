//! `wayside register`: a service is in its registry while it serves, and not a moment longer than its TTL when nobody is
//! left to say so.
#![allow(unreachable_pub, clippy::unwrap_used, reason = "for tests")]

use crate::suite::{PATIENCE, ports};
use crate::support::certificates::Authority;
use crate::support::etcd::Etcd;
use crate::support::program::until;
use crate::support::redis::Redis;
use crate::support::servers::{Consul, free_ports};
use crate::support::watched::{Watched, lookup};
use crate::support::zookeeper::ZooKeeper;
use crate::wire::{State, Wire};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::process::{Pid, Signal, kill_process};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use wayside::discovery::Observed;

/// A service that serves at this port, in a shell that does this on SIGTERM.
fn service(port: u16, on_term: &str) -> Vec<String> {
    let program = format!(
        "import http.server, signal, sys\n\
         signal.signal(signal.SIGTERM, lambda *_: sys.exit({on_term}))\n\
         class H(http.server.BaseHTTPRequestHandler):\n  \
           def do_GET(self):\n    \
             self.send_response(200 if self.path == '/health' else 404); self.end_headers()\n  \
           def log_message(self, *_): pass\n\
         http.server.HTTPServer(('127.0.0.1', {port}), H).serve_forever()\n"
    );
    vec!["python3".to_owned(), "-c".to_owned(), program]
}

struct Running(Child);

impl Running {
    fn start(registry: &str, port: u16, more: &[&str], command: &[String]) -> Self {
        Self::at(&format!("127.0.0.1:{port}"), registry, more, command)
    }

    fn at(address: &str, registry: &str, more: &[&str], command: &[String]) -> Self {
        let mut registered = Command::new(env!("CARGO_BIN_EXE_wayside"));
        registered.args(["register", "--registry", registry, "--service", "users", "--ttl", "3s"]);
        registered.args(["--address", address]).args(more);
        if !command.is_empty() {
            registered.arg("--").args(command);
        }
        Running(registered.stdout(Stdio::null()).spawn().unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap(), signal).unwrap();
    }

    fn code(mut self) -> Option<i32> {
        let mut status = None;
        until("it has ended", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Watches the service by this source.
fn watch(table: &str) -> Watched {
    Watched::start(&format!("{table}\nconfirm_after = \"1s\""), vec![lookup("users")])
}

fn healthy(observed: &Observed) -> Vec<u16> {
    let mut usable = observed.clone();
    usable.endpoints.retain(|entry| entry.healthy);
    ports(&usable)
}

/// The whole life of an instance, in any registry: `draining` is how it looks then.
pub async fn a_life(registry: &str, table: &str, login: &[&str], draining: fn(&Observed) -> bool) {
    let [port] = free_ports();
    let mut watched = watch(table);
    let more = ["--weight", "2", "--meta", "zone=a", "--tag", "v2", "--health", "/health", "--drain", "1s"];
    let more = [&more[..], login].concat();
    let running = Running::start(registry, port, &more, &service(port, "7"));
    let seen = watched.until(PATIENCE, |seen| healthy(seen) == [port]).await;
    let entry = &seen.endpoints[0];
    let said = |key: &str| entry.metadata.get(key).map(String::as_str);
    assert_eq!((entry.weight, said("zone"), said("tags")), (2, Some("a"), Some("v2")));
    running.signal(Signal::TERM);
    watched.until(PATIENCE, draining).await;
    assert_eq!(tokio::task::block_in_place(|| running.code()), Some(7));
    watched.until(PATIENCE, |seen| seen.endpoints.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_etcd() {
    let etcd = Etcd::start().await;
    let table = format!("kind = \"etcd\"\naddress = \"{}\"", etcd.address);
    a_life(&format!("etcd://{}", etcd.address), &table, &[], |seen| seen.endpoints.iter().any(|entry| !entry.healthy))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_consul() {
    let consul = Consul::start().await;
    let table = format!("kind = \"consul\"\naddress = \"{}\"", consul.url());
    let registry = format!("consul://{}", consul.address);
    a_life(&registry, &table, &[], |seen| seen.held.is_some() || healthy(seen).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_zookeeper() {
    let zookeeper = ZooKeeper::start().await;
    let table = format!("kind = \"zookeeper\"\npath = \"/services\"\naddress = \"{}\"", zookeeper.address);
    let draining = |seen: &Observed| seen.endpoints.iter().any(|entry| !entry.healthy);
    a_life(&format!("zookeeper://{}", zookeeper.address), &table, &[], draining).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zookeeper_that_is_killed_keeps_the_session_and_a_crash_ends_it() {
    let [port] = free_ports();
    let mut zookeeper = ZooKeeper::start().await;
    let mut watched =
        watch(&format!("kind = \"zookeeper\"\npath = \"/services\"\naddress = \"{}\"", zookeeper.address));
    let running = Running::start(&format!("zookeeper://{}", zookeeper.address), port, &[], &service(port, "0"));
    watched.until(PATIENCE, |seen| healthy(seen) == [port]).await;
    watched.fewest = None;
    zookeeper.process.kill();
    zookeeper.start_again().await;
    // It is there and stays, longer than the session that it had before would have lasted.
    let restarted = Instant::now();
    let mut weight = 1;
    while restarted.elapsed() < Duration::from_secs(6) {
        weight += 1;
        zookeeper.put("/services/users/127.0.0.1:1", format!("{{\"weight\":{weight}}}").as_bytes()).await;
        let seen = watched.until(PATIENCE, |seen| seen.endpoints.iter().any(|entry| entry.weight == weight)).await;
        assert!(healthy(&seen).contains(&port), "{seen:?}");
    }
    assert!(watched.fewest >= Some(1), "{:?}", watched.fewest);
    let child = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", running.0.id())).unwrap();
    running.signal(Signal::KILL);
    kill_process(Pid::from_raw(child.trim().parse().unwrap()).unwrap(), Signal::KILL).unwrap();
    watched.until(PATIENCE, |seen| !healthy(seen).contains(&port)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_redis() {
    let redis = Redis::start().await;
    let table = format!("kind = \"redis\"\naddress = \"redis://{}\"", redis.address);
    let draining = |seen: &Observed| seen.endpoints.iter().any(|entry| !entry.healthy);
    a_life(&format!("redis://{}", redis.address), &table, &[], draining).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_forgets_is_told_again_and_a_crash_ends_by_ttl() {
    let [port] = free_ports();
    let redis = Redis::start().await;
    let mut watched = watch(&format!("kind = \"redis\"\naddress = \"redis://{}\"", redis.address));
    let running = Running::start(&format!("redis://{}", redis.address), port, &[], &service(port, "0"));
    watched.until(PATIENCE, |seen| healthy(seen) == [port]).await;
    redis.run(&["FLUSHALL"]).await;
    watched.until(PATIENCE, |seen| seen.held.is_some()).await;
    watched.until(PATIENCE, |seen| healthy(seen) == [port] && seen.held.is_none()).await;
    let child = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", running.0.id())).unwrap();
    running.signal(Signal::KILL);
    kill_process(Pid::from_raw(child.trim().parse().unwrap()).unwrap(), Signal::KILL).unwrap();
    watched.until(PATIENCE, |seen| seen.endpoints.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_forgets_is_told_again_and_a_crash_ends_by_ttl() {
    let [port] = free_ports();
    let mut etcd = Etcd::start().await;
    let mut watched = watch(&format!("kind = \"etcd\"\naddress = \"{}\"", etcd.address));
    let running = Running::start(&format!("etcd://{}", etcd.address), port, &[], &service(port, "0"));
    watched.until(PATIENCE, |seen| healthy(seen) == [port]).await;
    etcd.forget();
    etcd.start_again().await;
    watched.fewest = None;
    watched.until(PATIENCE, |seen| healthy(seen) == [port] && seen.held.is_none()).await;
    assert_eq!(watched.fewest, Some(1));
    // Nobody is left to take it out. The service lives on, which is nobody's fault but ours: it is ended by hand.
    let child = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", running.0.id())).unwrap();
    running.signal(Signal::KILL);
    let child = Pid::from_raw(child.trim().parse().unwrap()).unwrap();
    kill_process(child, Signal::KILL).unwrap();
    watched.until(PATIENCE, |seen| seen.endpoints.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_forgets_is_told_again() {
    let [port] = free_ports();
    let consul = Consul::start().await;
    let mut watched = watch(&format!("kind = \"consul\"\naddress = \"{}\"", consul.url()));
    for health in [&[][..], &["--health", "/health"]] {
        let running = Running::start(&format!("consul://{}", consul.address), port, health, &service(port, "0"));
        watched.until(PATIENCE, |seen| healthy(seen) == [port]).await;
        let id = format!("users-127.0.0.1:{port}");
        consul.deregister(&id).await;
        watched.until(PATIENCE, |seen| seen.held.is_some()).await;
        watched.until(PATIENCE, |seen| healthy(seen) == [port] && seen.held.is_none()).await;
        running.signal(Signal::INT);
        // Python ends by SIGINT with 130, as a shell would say it.
        assert_eq!(tokio::task::block_in_place(|| running.code()), Some(130));
        watched.until(PATIENCE, |seen| seen.endpoints.is_empty()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_at_the_address_that_faces_the_registry_with_a_password_that_changes() {
    let [port] = free_ports();
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.issue(&["127.0.0.1"], folder.path(), "server");
    let [ca, password] = ["ca.pem", "password"].map(|name| folder.path().join(name));
    std::fs::write(&ca, authority.pem()).unwrap();
    std::fs::write(&password, "pw\n").unwrap();
    let [chain, key] = ["server.pem", "server.key"].map(|name| folder.path().join(name).display().to_string());
    let tls = ["--cert-file", &chain, "--key-file", &key, "--bcrypt-cost", "4", "--auth-token-ttl", "1"];
    let mut etcd = Etcd::with(&tls, true).await;
    etcd.guard("/services/").await;
    let wire = Wire::to(etcd.secure).await;
    let mut watched = watch(&format!(
        "kind = \"etcd\"\naddress = \"{}\"\nusername = \"root\"\npassword_file = {password:?}",
        etcd.address
    ));
    let [ca, password_file] = [&ca, &password].map(|path| path.display().to_string());
    let more = ["--ca", &ca, "--username", "root", "--password-file", &password_file];
    let address = format!("auto:{port}");
    let running = Running::at(&address, &format!("etcd://{}", wire.address), &more, &service(port, "0"));
    watched.until(PATIENCE, |seen| healthy(seen) == [port]).await;
    etcd.log_in("root", "pw").await;
    etcd.call("auth/user/changepw", &serde_json::json!({"name": "root", "password": "new"})).await;
    std::fs::write(&password, "new\n").unwrap();
    etcd.log_in("root", "new").await;
    wire.set(State::Broken);
    wire.set(State::Passing);
    // The registry forgets it, and whoever tells it again has to log in anew.
    etcd.delete(&format!("/services/users/127.0.0.1:{port}"), false).await;
    let from = Instant::now();
    while !there(&mut etcd, port).await {
        assert!(from.elapsed() < PATIENCE, "it is not told again");
    }
    running.signal(Signal::TERM);
    assert_eq!(tokio::task::block_in_place(|| running.code()), Some(0));
    watched.until(PATIENCE, |seen| seen.endpoints.is_empty()).await;
}

/// Is it in the registry? Asked with a login of its own, since tokens end soon.
async fn there(etcd: &mut Etcd, port: u16) -> bool {
    etcd.log_in("root", "new").await;
    let key = STANDARD.encode(format!("/services/users/127.0.0.1:{port}"));
    etcd.call("kv/range", &serde_json::json!({ "key": key })).await.get("kvs").is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_does_not_serve_is_not_registered_and_its_exit_is_told() {
    let etcd = Etcd::start().await;
    let registry = format!("etcd://{}", etcd.address);
    let [port] = free_ports();
    let shell = |text: &str| ["sh", "-c", text].map(str::to_owned).to_vec();
    let mut watched = watch(&format!("kind = \"etcd\"\naddress = \"{}\"", etcd.address));
    watched.until(PATIENCE, |_| true).await;
    assert_eq!(Running::start(&registry, port, &[], &shell("exit 3")).code(), Some(3));
    assert_eq!(Running::start(&registry, port, &[], &["/nowhere/at/all".to_owned()]).code(), Some(1));
    let never = Running::start(&registry, port, &[], &shell("trap 'exit 9' TERM; while :; do sleep 0.05; done"));
    until("the trap is set", || {
        let children =
            std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", never.0.id())).unwrap_or_default();
        let status = std::fs::read_to_string(format!("/proc/{}/status", children.trim())).unwrap_or_default();
        // SIGTERM is bit 14 of the caught ones.
        let caught = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigCgt:")?.trim(), 16).ok());
        caught.is_some_and(|caught| caught & (1 << 14) != 0)
    });
    never.signal(Signal::TERM);
    assert_eq!(never.code(), Some(9));
    let keys = etcd.call("kv/range", &serde_json::json!({"key": "AA==", "range_end": "AA=="})).await;
    assert_eq!(keys.get("kvs"), None, "{keys}");
}
