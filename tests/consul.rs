//! The `consul` source against a real agent, and in `misbehaving` against what no real one should do.

mod misbehaving;

use crate::support::program::{Program, until};
use crate::support::servers::{Consul, MANAGEMENT};
use crate::support::watched::{Watched, lookup};
use serde_json::{Value, json};
use std::time::Duration;
use wayside::discovery::{Lookup, Observed};

/// In which a change has to be seen.
const SOON: Duration = Duration::from_secs(1);
/// For what has no bound of its own.
const PATIENCE: Duration = Duration::from_secs(30);

fn service(id: &str, port: u16) -> Value {
    json!({"ID": id, "Name": "users", "Address": "127.0.0.1", "Port": port})
}

fn checked(id: &str, port: u16) -> Value {
    let mut service = service(id, port);
    service["Check"] = json!({"TTL": "10m", "Status": "passing"});
    service
}

fn table(consul: &Consul, more: &str) -> String {
    format!("kind = \"consul\"\naddress = \"{}\"\n{more}", consul.url())
}

fn ports(observed: &Observed) -> Vec<u16> {
    let mut ports: Vec<u16> = observed.endpoints.iter().map(|entry| entry.address.port()).collect();
    ports.sort_unstable();
    ports
}

#[tokio::test]
async fn registered_and_deregistered_are_seen_within_a_second() {
    let consul = Consul::start().await;
    let mut watched = Watched::start(&table(&consul, ""), vec![lookup("users")]);
    assert!(watched.until(SOON, |_| true).await.endpoints.is_empty());
    for port in 9001..=9005 {
        consul.register(&service(&format!("i{port}"), port)).await;
        let seen = watched.until(SOON, |seen| ports(seen).contains(&port)).await;
        assert_eq!(ports(&seen), (9001..=port).collect::<Vec<_>>());
    }
    for port in (9002..=9005).rev() {
        consul.deregister(&format!("i{port}")).await;
        watched.until(SOON, |seen| ports(seen) == (9001..port).collect::<Vec<_>>()).await;
    }
    assert_eq!(watched.problems, [""; 0]);
}

#[tokio::test]
async fn weight_meta_tags_and_addresses_come_through() {
    let consul = Consul::start().await;
    consul
        .register(&json!({"ID": "a", "Name": "people", "Address": "::1", "Port": 9001, "Tags": ["blue", "eu"],
            "Meta": {"version": "v2"}, "Weights": {"Passing": 7, "Warning": 1}}))
        .await;
    consul.register(&json!({"ID": "b", "Name": "people", "Port": 9002, "Tags": ["blue", "weight:3", "eu"]})).await;
    consul.register(&json!({"ID": "c", "Name": "people", "Port": 9003, "Tags": ["eu"]})).await;
    consul
        .register(&json!({"ID": "d", "Name": "people", "Address": "db.local", "Port": 9004, "Tags": ["blue", "eu"]}))
        .await;
    let wanted = Lookup { registered_as: "people".to_owned(), tags: vec!["blue".to_owned()], ..lookup("users") };
    let table = table(&consul, "tags = [\"eu\"]\ndatacenter = \"dc1\"");
    let seen = Watched::start(&table, vec![wanted]).until(PATIENCE, |seen| seen.skipped == 1).await;
    let mut found: Vec<_> = seen.endpoints.iter().map(|e| (e.address.to_string(), e.weight, e.healthy)).collect();
    found.sort();
    assert_eq!(found, [("127.0.0.1:9002".to_owned(), 3, true), ("[::1]:9001".to_owned(), 7, true)]);
    let first = seen.endpoints.iter().find(|entry| entry.weight == 7).unwrap();
    assert_eq!((first.metadata["version"].as_str(), first.metadata["tags"].as_str()), ("v2", "blue,eu"));
}

#[tokio::test]
async fn filter_node_meta_and_tagged_addresses_choose() {
    let consul = Consul::with_node_meta("zone", "a").await;
    for (id, port, version) in [("a", 9001, "v1"), ("b", 9002, "v2")] {
        let mut tagged = service(id, port);
        tagged["Meta"] = json!({"version": version});
        tagged["TaggedAddresses"] = json!({"wan": {"Address": "198.51.100.7", "Port": port + 1000}});
        consul.register(&tagged).await;
    }
    consul.register(&service("c", 9003)).await;
    let seen = async |more: &str, count: usize| {
        let mut watched = Watched::start(&table(&consul, more), vec![lookup("users")]);
        watched.until(PATIENCE, |seen| seen.endpoints.len() == count && seen.held.is_none()).await
    };
    assert_eq!(ports(&seen("", 3).await), [9001, 9002, 9003]);
    assert_eq!(ports(&seen("filter = 'Service.Meta.version == \"v2\"'", 1).await), [9002]);
    assert_eq!(ports(&seen("node_meta = { zone = \"a\" }", 3).await), [9001, 9002, 9003]);
    seen("node_meta = { zone = \"b\" }", 0).await;
    let tagged = seen("tagged_address = \"wan\"", 2).await;
    assert_eq!(ports(&tagged), [10_001, 10_002]);
    assert!(tagged.endpoints.iter().all(|entry| entry.address.ip().to_string() == "198.51.100.7"));
    // No request is sent where a plain address might be somebody else's.
    assert_eq!((tagged.skipped, tagged.left_out[0].reason.as_str()), (1, "has no tagged address `wan`"));
    // Consul fills these in by itself.
    assert_eq!(ports(&seen("tagged_address = \"lan_ipv4\"", 3).await), [9001, 9002, 9003]);
    let mut wrong = Watched::start(&table(&consul, "filter = \"Service.Port ==\""), vec![lookup("users")]);
    let problem = wrong.problem(PATIENCE).await;
    assert!(problem.contains("boolean expression"), "{problem}");
}

#[tokio::test]
async fn a_critical_check_takes_an_endpoint_out_or_makes_it_unhealthy() {
    let consul = Consul::start().await;
    consul.register(&checked("a", 9001)).await;
    consul.register(&checked("b", 9002)).await;
    let mut usable = Watched::start(&table(&consul, ""), vec![lookup("users")]);
    let mut passing = Watched::start(&table(&consul, "passing_only = true"), vec![lookup("users")]);
    let mut all = Watched::start(&table(&consul, "passing = false"), vec![lookup("users")]);
    let healthy = |seen: &Observed| seen.endpoints.iter().filter(|entry| entry.healthy).count();
    usable.until(PATIENCE, |seen| seen.endpoints.len() == 2).await;
    passing.until(PATIENCE, |seen| seen.endpoints.len() == 2).await;
    all.until(PATIENCE, |seen| healthy(seen) == 2).await;
    consul.check("a", "fail").await;
    usable.until(SOON, |seen| ports(seen) == [9002]).await;
    passing.until(SOON, |seen| ports(seen) == [9002]).await;
    let seen = all.until(SOON, |seen| healthy(seen) == 1).await;
    assert_eq!(ports(&seen), [9001, 9002]);
    // A warning does not pass, but it is usable, as Consul's own DNS has it.
    consul.check("a", "warn").await;
    let seen = usable.until(SOON, |seen| seen.endpoints.len() == 2).await;
    assert_eq!((ports(&seen), healthy(&seen)), (vec![9001, 9002], 2));
    all.until(SOON, |seen| healthy(seen) == 2).await;
    consul.check("a", "pass").await;
    passing.until(SOON, |seen| seen.endpoints.len() == 2).await;
    usable.fewest = None;
    consul.check("b", "warn").await;
    passing.until(SOON, |seen| ports(seen) == [9001]).await;
    consul.check("b", "pass").await;
    passing.until(SOON, |seen| seen.endpoints.len() == 2).await;
    assert_eq!((all.fewest, usable.fewest.unwrap_or(2)), (Some(2), 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_out_is_named_with_its_reason() {
    let consul = Consul::start().await;
    consul.register(&json!({"ID": "named", "Name": "users", "Address": "db.local", "Port": 9001})).await;
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "[sources.prod]\nkind = \"consul\"\naddress = \"{}\"\n[services.users]\nsource = \"prod\"\n",
        consul.url()
    );
    let gateway = Program::start(folder, &config, &[]);
    let shown = |ports: &[&str]| {
        let services: Value = serde_json::from_str(&gateway.ask("/services")).unwrap();
        let users = services["services"][0].clone();
        let addresses = users["endpoints"].as_array().unwrap().iter().map(|endpoint| endpoint["address"].as_str());
        let left_out = json!([{"entry": "named (db.local:9001)", "reason": "`db.local` is no IP address; `resolve_hosts = true` looks names up"}]);
        addresses.eq(ports.iter().map(|port| Some(*port))) && users["left_out"] == left_out && users["skipped"] == 1
    };
    // An answer of nothing but such entries is applied no more than any other bad one, but they are named all the same.
    let nothing = || shown(&[]);
    tokio::task::block_in_place(|| until("it is named", nothing));
    let line = tokio::task::block_in_place(|| gateway.logged("an entry is left out"));
    assert!(line.contains("named (db.local:9001)") && line.contains("is no IP address"), "{line}");
    consul.register(&service("good", 9002)).await;
    tokio::task::block_in_place(|| until("the rest stands", || shown(&["127.0.0.1:9002"])));
}

#[tokio::test]
async fn more_services_than_the_agent_takes_connections_are_followed_all_the_same() {
    let consul = Consul::with_connections(8).await;
    let names: Vec<String> = (0..20).map(|number| format!("s{number}")).collect();
    let register = async |port: u16| {
        for name in &names {
            consul.register(&json!({"ID": name, "Name": name, "Address": "127.0.0.1", "Port": port})).await;
        }
    };
    register(9001).await;
    let lookups = || names.iter().map(|name| lookup(name)).collect();
    let mut watched = Watched::start(&table(&consul, "max_connections = 4"), lookups());
    for port in [9001, 9002] {
        register(port).await;
        // One service at a time is looked at, whichever it is: all of them come by.
        let mut seen = std::collections::BTreeSet::new();
        while seen.len() < names.len() {
            let (service, observed) = watched.any(PATIENCE).await;
            if ports(&observed) == [port] {
                seen.insert(service);
            }
        }
    }
    assert_eq!(watched.problems, [""; 0]);

    // Where the agent takes fewer than the source may have, the log says what to do.
    let mut greedy = Watched::start(&table(&consul, ""), lookups());
    loop {
        let problem = greedy.problem(PATIENCE).await;
        if problem.contains("limits.http_max_conns_per_client") && problem.contains("max_connections") {
            break;
        }
    }
}

#[tokio::test]
async fn the_last_endpoint_goes_when_a_second_look_agrees() {
    let consul = Consul::start().await;
    consul.register(&service("a", 9001)).await;
    let mut careful = Watched::start(&table(&consul, "confirm_after = \"500ms\""), vec![lookup("users")]);
    let anyway = Lookup { allow_empty: true, ..lookup("users") };
    let mut trusting = Watched::start(&table(&consul, "confirm_after = \"1h\""), vec![anyway]);
    careful.until(PATIENCE, |seen| ports(seen) == [9001]).await;
    trusting.until(PATIENCE, |seen| ports(seen) == [9001]).await;
    consul.deregister("a").await;
    trusting.until(SOON, |seen| seen.endpoints.is_empty()).await;
    let held = careful.until(SOON, |seen| seen.held.is_some()).await;
    assert_eq!(ports(&held), [9001]);
    let gone = careful.until(PATIENCE, |seen| seen.endpoints.is_empty()).await;
    assert_eq!(gone.held, None);
}

#[tokio::test]
async fn tokens_are_needed_reread_and_never_shown() {
    let consul = Consul::with_acl().await;
    consul.register(&service("a", 9001)).await;
    // Nobody is told that he may not: the list is just empty.
    let mut anonymous = Watched::start(&table(&consul, ""), vec![lookup("users")]);
    assert_eq!(anonymous.next(PATIENCE).await.map(|seen| seen.endpoints.len()), Ok(0));

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let unknown = "0bad0bad-0000-4000-8000-000000000000";
    std::fs::write(&file, unknown).unwrap();
    let more = format!("token_file = {file:?}\nwait = \"1s\"\nconfirm_after = \"1h\"");
    let mut watched = Watched::start(&table(&consul, &more), vec![lookup("users")]);
    let problem = watched.problem(PATIENCE).await;
    assert!(problem.contains("answered 403: ACL not found"), "{problem}");
    std::fs::write(&file, format!("{MANAGEMENT}\n")).unwrap();
    watched.until(PATIENCE, |seen| ports(seen) == [9001]).await;
    watched.fewest = None;

    // No token at all, or one without rights: what was known stays.
    std::fs::write(&file, "").unwrap();
    let problem = watched.problem(PATIENCE).await;
    assert!(problem.ends_with("is empty"), "{problem}");
    let created: Value = serde_json::from_str(&consul.put("/v1/acl/token", &json!({})).await).unwrap();
    std::fs::write(&file, created["SecretID"].as_str().unwrap()).unwrap();
    loop {
        // Newer ones than 1.8 say that they left something out, which is a problem; the older ones are held.
        match watched.next(PATIENCE).await {
            Ok(seen) if seen.held.is_some() => break,
            Err(problem) if problem.contains("may not read") => break,
            _ => {}
        }
    }
    assert_eq!(watched.fewest.unwrap_or(1), 1);
    let shown = watched.problems.concat();
    assert!(!shown.contains(unknown) && !shown.contains(MANAGEMENT), "{shown}");
}

#[tokio::test]
async fn a_killed_consul_loses_nothing_and_is_followed_again() {
    let mut consul = Consul::durable().await;
    consul.register(&checked("a", 9001)).await;
    // Only a state that was reported, not the initial one, is there again after a restart; else it is critical.
    consul.check("a", "pass").await;
    consul.register(&service("b", 9002)).await;
    let mut watched = Watched::start(&table(&consul, ""), vec![lookup("users")]);
    watched.until(PATIENCE, |seen| seen.endpoints.len() == 2).await;
    watched.fewest = None;
    consul.kill();
    let problem = watched.problem(SOON).await;
    assert!(problem.starts_with(&consul.url()), "{problem}");
    consul.start_again().await;
    watched.until(PATIENCE, |seen| seen.held.is_none() && seen.endpoints.len() == 2).await;
    consul.register(&service("c", 9003)).await;
    consul.listed("users", "c").await;
    watched.until(SOON, |seen| seen.endpoints.len() == 3).await;
    assert_eq!(watched.fewest, Some(2));
    assert!(watched.problems.len() < 20, "{:?}", watched.problems);
}
