//! What every source has to get right, whatever its registry: the same cases against each real server, some through a
//! network that fails.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::print_stdout, reason = "for tests; it tells times")]

use crate::support::servers::Process;
use crate::support::watched::{Watched, lookup};
use crate::wire::{State, Wire};
use serde_json::json;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use wayside::discovery::{Entry, Lookup, Observed};

/// Nothing takes longer.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// A real registry under test.
pub trait Registry {
    /// Where its server listens.
    fn address(&self) -> SocketAddr;
    /// A way to it that tests can break.
    async fn wire(&self) -> Wire {
        Wire::to(self.address()).await
    }
    /// The `[sources.NAME]` table of a source that reaches it here; with `confirm_after = "1s"`.
    fn table(&self, address: SocketAddr) -> String;
    /// What the service is called there.
    fn lookup(&self, service: &str) -> Lookup {
        lookup(service)
    }
    /// Registers an endpoint, or says something else of it.
    async fn put(&self, service: &str, entry: &Entry);
    /// Takes it away.
    async fn remove(&self, service: &str, address: SocketAddr);
    /// Registers something that is no endpoint.
    async fn garbage(&self, service: &str);
    /// All of a service's entries go at once, as when somebody wipes the registry.
    async fn wipe(&self, service: &str);
    /// Its server.
    fn process(&mut self) -> &mut Process;
    /// Starts the server again where it was, with its data, and waits until it is ready.
    async fn start_again(&mut self);
    /// What registered endpoints are lost when the server restarts, and registered anew by their owners.
    const FORGETS: bool = false;
    /// How long it takes at least until a change is told.
    const DELAY: Duration = Duration::ZERO;
    /// It can say more of an endpoint than its weight.
    const SAYS_METADATA: bool = true;
}

/// An endpoint of this port, as one that says nothing else.
pub fn entry(port: u16) -> Entry {
    Entry { address: (Ipv4Addr::LOCALHOST, port).into(), weight: 1, healthy: true, metadata: BTreeMap::new() }
}

/// The JSON value that says this of an endpoint whose key names its address.
pub fn value(entry: &Entry) -> String {
    let Entry { address: _, weight, healthy, metadata } = entry;
    json!({"weight": weight, "healthy": healthy, "metadata": metadata}).to_string()
}

/// The ports of what is known, sorted.
pub fn ports(observed: &Observed) -> Vec<u16> {
    let mut ports: Vec<u16> = observed.endpoints.iter().map(|entry| entry.address.port()).collect();
    ports.sort_unstable();
    ports
}

async fn fill<R: Registry>(registry: &R, service: &str, ports: impl IntoIterator<Item = u16>) {
    for port in ports {
        registry.put(service, &entry(port)).await;
    }
}

fn watch<R: Registry>(registry: &R, address: SocketAddr, service: &str) -> Watched {
    Watched::start(&registry.table(address), vec![registry.lookup(service)])
}

/// Tells something, with `--nocapture`.
pub fn say(text: &str) {
    println!("{text}");
}

/// Runs every case, and says how long it took.
pub async fn all<R: Registry>(registry: &mut R) {
    let started = Instant::now();
    let told = |case: &str, from: Instant| println!("{case}: {:.1} s", from.elapsed().as_secs_f64());
    macro_rules! case {
        ($name:ident) => {{
            let from = Instant::now();
            $name(registry).await;
            told(stringify!($name), from);
        }};
    }
    case!(grows_and_shrinks);
    case!(says_weight_and_metadata);
    case!(flaps);
    case!(a_thousand);
    case!(garbage_among_good);
    case!(broken_off_and_back);
    case!(dark_and_light_again);
    case!(slow);
    case!(wiped_and_refilled);
    case!(paused);
    case!(killed_and_started_again);
    told("all", started);
}

async fn grows_and_shrinks<R: Registry>(registry: &mut R) {
    let mut watched = watch(registry, registry.address(), "grows");
    assert_eq!(ports(&watched.until(PATIENCE, |_| true).await), [0; 0]);
    for port in 9001..=9005 {
        fill(registry, "grows", [port]).await;
        watched.until(PATIENCE, |seen| ports(seen) == (9001..=port).collect::<Vec<_>>()).await;
    }
    for port in (9002..=9005).rev() {
        registry.remove("grows", entry(port).address).await;
        watched.until(PATIENCE, |seen| ports(seen) == (9001..port).collect::<Vec<_>>()).await;
    }
    // The last one: held until it is confirmed.
    registry.remove("grows", entry(9001).address).await;
    let held = watched.until(PATIENCE, |seen| seen.held.is_some()).await;
    assert_eq!(ports(&held), [9001]);
    watched.until(PATIENCE, |seen| seen.endpoints.is_empty() && seen.held.is_none()).await;
    assert_eq!(watched.problems, [""; 0]);
}

async fn says_weight_and_metadata<R: Registry>(registry: &mut R) {
    let mut watched = watch(registry, registry.address(), "says");
    let mut said = entry(9001);
    fill(registry, "says", [9001, 9002]).await;
    watched.until(PATIENCE, |seen| ports(seen) == [9001, 9002]).await;
    watched.fewest = None;
    said.weight = 7;
    said.metadata = [("version", "v2"), ("zone", "a")].map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    registry.put("says", &said).await;
    let fits = |seen: &Entry| {
        let says = |key: &str| seen.metadata.get(key).map(String::as_str);
        seen.weight == 7 && (!R::SAYS_METADATA || (says("version"), says("zone")) == (Some("v2"), Some("a")))
    };
    watched.until(PATIENCE, |seen| seen.endpoints.len() == 2 && seen.endpoints.iter().any(fits)).await;
    assert_eq!(watched.fewest, Some(2));
}

async fn flaps<R: Registry>(registry: &mut R) {
    fill(registry, "flaps", 9001..=9003).await;
    let mut watched = watch(registry, registry.address(), "flaps");
    watched.until(PATIENCE, |seen| ports(seen) == [9001, 9002, 9003]).await;
    watched.fewest = None;
    for _ in 0..30 {
        registry.remove("flaps", entry(9003).address).await;
        registry.put("flaps", &entry(9003)).await;
    }
    fill(registry, "flaps", [9004]).await;
    watched.until(PATIENCE, |seen| ports(seen) == [9001, 9002, 9003, 9004]).await;
    assert!(watched.fewest >= Some(2), "{:?}", watched.fewest);
}

async fn a_thousand<R: Registry>(registry: &mut R) {
    fill(registry, "many", 10_000..11_000).await;
    let from = Instant::now();
    let mut watched = watch(registry, registry.address(), "many");
    watched.until(PATIENCE, |seen| seen.endpoints.len() == 1_000).await;
    println!("  a thousand read in {} ms", from.elapsed().as_millis());
    fill(registry, "many", [11_000]).await;
    watched.until(PATIENCE, |seen| seen.endpoints.len() == 1_001).await;
    registry.remove("many", entry(10_500).address).await;
    watched.until(PATIENCE, |seen| seen.endpoints.len() == 1_000).await;
}

async fn garbage_among_good<R: Registry>(registry: &mut R) {
    fill(registry, "garbage", [9001]).await;
    let mut watched = watch(registry, registry.address(), "garbage");
    watched.until(PATIENCE, |seen| ports(seen) == [9001]).await;
    registry.garbage("garbage").await;
    fill(registry, "garbage", [9002]).await;
    let seen = watched.until(PATIENCE, |seen| ports(seen) == [9001, 9002] && seen.skipped > 0).await;
    assert!(!seen.left_out.is_empty(), "{seen:?}");
    assert_eq!(watched.problems, [""; 0]);
}

/// The way breaks, something changes, the way is good again: what is known stays, the failure is told, the change is seen.
async fn changes_behind_a<R: Registry>(registry: &mut R, service: &str, state: State) {
    fill(registry, service, [9001, 9002]).await;
    let wire = registry.wire().await;
    let mut watched = watch(registry, wire.address, service);
    watched.until(PATIENCE, |seen| ports(seen) == [9001, 9002]).await;
    watched.fewest = None;
    for port in [9003, 9004] {
        wire.set(state);
        let problem = watched.problem(PATIENCE).await;
        fill(registry, service, [port]).await;
        wire.set(State::Passing);
        let from = Instant::now();
        watched.until(PATIENCE, |seen| ports(seen) == (9001..=port).collect::<Vec<_>>()).await;
        println!("  after {problem:?}: followed {} ms after its return", from.elapsed().as_millis());
    }
    // And it is followed on, not only listed.
    fill(registry, service, [9005]).await;
    watched.until(PATIENCE, |seen| seen.endpoints.len() == 5).await;
    assert!(watched.fewest >= Some(2), "{:?}", watched.fewest);
}

async fn broken_off_and_back<R: Registry>(registry: &mut R) {
    changes_behind_a(registry, "broken", State::Broken).await;
}

async fn dark_and_light_again<R: Registry>(registry: &mut R) {
    changes_behind_a(registry, "dark", State::Dark).await;
}

async fn slow<R: Registry>(registry: &mut R) {
    let wire = registry.wire().await;
    wire.set(State::Slow(Duration::from_millis(100)));
    let mut watched = watch(registry, wire.address, "slow");
    watched.until(PATIENCE, |_| true).await;
    fill(registry, "slow", [9001]).await;
    watched.until(PATIENCE, |seen| ports(seen) == [9001]).await;
    assert_eq!(watched.problems, [""; 0]);
}

async fn wiped_and_refilled<R: Registry>(registry: &mut R) {
    fill(registry, "wiped", 9001..=9006).await;
    let mut watched = watch(registry, registry.address(), "wiped");
    watched.until(PATIENCE, |seen| seen.endpoints.len() == 6).await;
    watched.fewest = None;
    registry.wipe("wiped").await;
    watched.until(PATIENCE, |seen| seen.held.is_some()).await;
    fill(registry, "wiped", 9001..=9006).await;
    watched.until(PATIENCE, |seen| seen.endpoints.len() == 6 && seen.held.is_none()).await;
    // While it is filled again, one at a time, half of them is believed.
    assert!(watched.fewest >= Some(3), "{:?}", watched.fewest);
    registry.wipe("wiped").await;
    watched.until(PATIENCE, |seen| seen.endpoints.is_empty()).await;
}

async fn paused<R: Registry>(registry: &mut R) {
    fill(registry, "paused", [9001]).await;
    let mut watched = watch(registry, registry.address(), "paused");
    watched.until(PATIENCE, |seen| ports(seen) == [9001]).await;
    registry.process().pause();
    let from = Instant::now();
    let problem = watched.problem(PATIENCE).await;
    println!("  paused, told after {} ms: {problem}", from.elapsed().as_millis());
    registry.process().go_on();
    let from = Instant::now();
    fill(registry, "paused", [9002]).await;
    watched.until(PATIENCE, |seen| ports(seen).contains(&9002)).await;
    println!("  going on, followed {} ms later", from.elapsed().as_millis());
    fill(registry, "paused", [9003]).await;
    watched.until(PATIENCE, |seen| ports(seen).contains(&9003)).await;
}

async fn killed_and_started_again<R: Registry>(registry: &mut R) {
    fill(registry, "killed", [9001, 9002]).await;
    let mut watched = watch(registry, registry.address(), "killed");
    watched.until(PATIENCE, |seen| ports(seen) == [9001, 9002]).await;
    watched.fewest = None;
    registry.process().kill();
    let problem = watched.problem(PATIENCE).await;
    registry.start_again().await;
    let from = Instant::now();
    if R::FORGETS {
        fill(registry, "killed", [9001, 9002]).await;
    }
    fill(registry, "killed", [9003]).await;
    watched.until(PATIENCE, |seen| ports(seen) == [9001, 9002, 9003]).await;
    println!("  killed ({problem:?}), followed {} ms after it was ready", from.elapsed().as_millis());
    fill(registry, "killed", [9004]).await;
    watched.until(PATIENCE, |seen| seen.endpoints.len() == 4).await;
    assert!(watched.fewest >= Some(2), "{:?}", watched.fewest);
}
