//! More servers than one: a cluster, and a master behind sentinels.

use super::access::MINIMAL;
use super::{keyed, table};
use crate::suite::{PATIENCE, Registry, entry, ports};
use crate::support::redis::{Redis, cluster, until, words};
use crate::support::watched::{Watched, lookup, source};
use std::time::{Duration, Instant};
use wayside::discovery::Observed;

/// The number of the node that holds an endpoint's key.
async fn owner(nodes: &[Redis], port: u16) -> usize {
    let slot: u16 = nodes[0].ask(&words(&["CLUSTER", "KEYSLOT", &format!("services:users:127.0.0.1:{port}")])).await;
    [5460, 10_922, 16_383].iter().position(|last| slot <= *last).unwrap()
}

async fn put(nodes: &[Redis], port: u16) {
    nodes[owner(nodes, port).await].put("users", &entry(port)).await;
}

#[tokio::test]
async fn a_cluster_is_followed_and_one_master_that_is_killed_takes_nothing_away() {
    let mut nodes = cluster().await;
    let all: Vec<u16> = (9001..9031).collect();
    for port in &all {
        put(&nodes, *port).await;
    }
    let mut watched = Watched::start(&table(nodes[0].address, ""), vec![lookup("users")]);
    watched.until(PATIENCE, |seen| ports(seen) == all).await;
    let free = async |nodes: &[Redis], node: usize, from: u16| {
        let mut port = from;
        while owner(nodes, port).await != node {
            port += 1;
        }
        port
    };
    let mut known = all;
    for node in 0..3 {
        let port = free(&nodes, node, 9100).await;
        put(&nodes, port).await;
        known.push(port);
        known.sort_unstable();
        watched.until(PATIENCE, |seen| ports(seen) == known).await;
    }
    assert_eq!(watched.problems, [""; 0]);
    watched.fewest = None;

    nodes[2].process.kill();
    let problem = watched.problem(PATIENCE).await;
    println!("  {problem}");
    assert!(problem.contains("what it had is kept"), "{problem}");
    let port = free(&nodes, 1, 9200).await;
    let from = Instant::now();
    put(&nodes, port).await;
    known.push(port);
    known.sort_unstable();
    watched.until(PATIENCE, |seen| ports(seen) == known).await;
    println!("  another master's change is seen after {} ms", from.elapsed().as_millis());

    // Who starts now cannot know what was there: what was known when it ended stays.
    let source = source(&table(nodes[0].address, ""));
    let seen = Observed { endpoints: known.iter().map(|port| entry(*port)).collect(), ..Observed::default() };
    source.remember(&lookup("users"), &seen);
    let mut later = Watched::over(&*source, vec![lookup("users")]);
    assert_eq!(ports(&later.until(PATIENCE, |_| true).await), known);
    later.problem(PATIENCE).await;

    nodes[2].start_again().await;
    until("the cluster is whole", async || {
        let text: String = nodes[2].ask(&words(&["CLUSTER", "INFO"])).await;
        text.contains("cluster_state:ok")
    })
    .await;
    let from = Instant::now();
    let port = free(&nodes, 2, 9300).await;
    put(&nodes, port).await;
    known.push(port);
    known.sort_unstable();
    watched.until(PATIENCE, |seen| ports(seen) == known).await;
    println!("  it is followed {} ms after its return", from.elapsed().as_millis());
    later.until(PATIENCE, |seen| ports(seen) == known).await;
    assert!(later.fewest >= Some(known.len() - 1), "{:?}", later.fewest);
    let gone = known.pop().unwrap();
    nodes[2].remove("users", entry(gone).address).await;
    later.until(PATIENCE, |seen| ports(seen) == known).await;
    watched.until(PATIENCE, |seen| ports(seen) == known).await;
    assert!(watched.fewest >= Some(33), "{:?}", watched.fewest);
}

#[tokio::test]
async fn slots_that_move_take_nothing_away() {
    let nodes = cluster().await;
    for port in 9001..9007 {
        put(&nodes, port).await;
    }
    let mut watched = Watched::start(&table(nodes[0].address, ""), vec![lookup("users")]);
    watched.until(PATIENCE, |seen| seen.endpoints.len() == 6).await;
    watched.fewest = None;
    let key = "services:users:127.0.0.1:9001";
    let slot = nodes[0].ask::<u16>(&words(&["CLUSTER", "KEYSLOT", key])).await.to_string();
    let from = owner(&nodes, 9001).await;
    let to = (from + 1) % 3;
    let id = async |node: usize| nodes[node].ask::<String>(&words(&["CLUSTER", "MYID"])).await;
    let (from_id, to_id) = (id(from).await, id(to).await);
    nodes[to].run(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]).await;
    nodes[from].run(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]).await;
    let port = nodes[to].address.port().to_string();
    nodes[from].run(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]).await;
    // What is between two servers counts as before.
    nodes[(from + 2) % 3].run(&["PING"]).await;
    for node in [to, from, (from + 2) % 3] {
        nodes[node].run(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]).await;
    }
    // Its new master is asked from now on.
    nodes[to].run(&["SET", key, r#"{"weight":7}"#]).await;
    watched.until(PATIENCE, |seen| seen.endpoints.iter().any(|entry| entry.weight == 7)).await;
    assert!(watched.fewest.is_none_or(|fewest| fewest == 6), "{:?}", watched.fewest);
}

#[tokio::test]
async fn keys_are_written_where_they_belong() {
    let nodes = cluster().await;
    let keyed = keyed(&format!("address = \"{}\"\ncluster = true", nodes[1].address));
    for number in 0..20 {
        let key = format!("services:users:127.0.0.1:{}", 9001 + number);
        assert_eq!(keyed.set(key.as_bytes(), b"", Duration::from_secs(60)).await, Ok(None));
        assert_eq!(keyed.set(key.as_bytes(), b"", Duration::from_secs(60)).await, Ok(Some(vec![])));
    }
    // The least that a user needs, who has to be known to each.
    for node in &nodes {
        let mut user = words(&["ACL", "SETUSER", "gw", "reset", "on", ">pw"]);
        user.arg(MINIMAL.split(' ').chain(["+cluster|slots"]).collect::<Vec<_>>());
        node.ask::<()>(&user).await;
    }
    let login = "username = \"gw\"\npassword = \"pw\"";
    let mut watched = Watched::start(&table(nodes[2].address, login), vec![lookup("users")]);
    watched.until(PATIENCE, |seen| seen.endpoints.len() == 20).await;
    assert_eq!(keyed.delete(b"services:users:127.0.0.1:9005").await, Ok(true));
    watched.until(PATIENCE, |seen| seen.endpoints.len() == 19).await;
}

#[tokio::test]
async fn sentinels_name_another_master() {
    let mut master = Redis::start().await;
    let port = master.address.port().to_string();
    let replica = Redis::with(&["--replicaof", "127.0.0.1", &port]).await;
    let sentinels = [Redis::sentinel(master.address, "").await, Redis::sentinel(master.address, "").await];
    until("the sentinels know all", async || {
        for sentinel in &sentinels {
            let text: String = sentinel.ask(&words(&["INFO"])).await;
            if !text.contains("slaves=1,sentinels=2") {
                return false;
            }
        }
        replica.info("master_link_status").await == "up"
    })
    .await;
    master.put("users", &entry(9001)).await;
    master.put("users", &entry(9002)).await;
    let addresses: Vec<String> =
        std::iter::once("127.0.0.1:1".to_owned()).chain(sentinels.iter().map(|one| one.address.to_string())).collect();
    let keys = format!("address = {addresses:?}\nsentinel = \"main\"");
    let mut watched = Watched::start(&format!("kind = \"redis\"\n{keys}"), vec![lookup("users")]);
    watched.until(PATIENCE, |seen| ports(seen) == [9001, 9002]).await;
    watched.fewest = None;
    let keyed = keyed(&keys);
    let key = b"services:users:127.0.0.1:9003";
    assert_eq!(keyed.set(key, b"", Duration::from_secs(60)).await, Ok(None));
    watched.until(PATIENCE, |seen| ports(seen) == [9001, 9002, 9003]).await;
    until("the replica has it", async || {
        replica.ask::<bool>(&words(&["EXISTS", "services:users:127.0.0.1:9003"])).await
    })
    .await;

    master.process.kill();
    let from = Instant::now();
    println!("  {}", watched.problem(PATIENCE).await);
    until("there is another master", async || replica.info("role").await == "master").await;
    println!("  another master after {} ms", from.elapsed().as_millis());
    let from = Instant::now();
    replica.put("users", &entry(9004)).await;
    watched.until(PATIENCE, |seen| ports(seen) == [9001, 9002, 9003, 9004]).await;
    println!("  followed {} ms after it became one", from.elapsed().as_millis());
    assert!(watched.fewest >= Some(2), "{:?}", watched.fewest);
    assert_eq!(keyed.set(key, b"", Duration::from_secs(60)).await, Ok(Some(vec![])));

    let problem =
        Watched::start(&format!("kind = \"redis\"\n{}", keys.replace("main", "other")), vec![lookup("users")])
            .problem(PATIENCE)
            .await;
    assert!(problem.contains("`other` is no master that this sentinel watches"), "{problem}");
}

#[tokio::test]
async fn a_sentinel_that_wants_the_password_too() {
    let master = Redis::start().await;
    master.put("users", &entry(9001)).await;
    let sentinel = Redis::sentinel(master.address, "requirepass hunter2\nsentinel auth-pass main hunter2").await;
    master.run(&["CONFIG", "SET", "requirepass", "hunter2"]).await;
    let table = |password: &str| {
        format!("kind = \"redis\"\naddress = \"{}\"\nsentinel = \"main\"\npassword = \"{password}\"", sentinel.address)
    };
    Watched::start(&table("hunter2"), vec![lookup("users")]).until(PATIENCE, |seen| ports(seen) == [9001]).await;
    let problem = Watched::start(&table("hunter3"), vec![lookup("users")]).problem(PATIENCE).await;
    assert!(problem.contains("refuses the user name or the password") && !problem.contains("hunter"), "{problem}");
}
