//! What reports and reloads make of the world.

use super::*;
use std::path::Path;

const CONFIG: &str = "[sources.one]\nkind = 'file'\npath = 'one.toml'\n[sources.two]\nkind = 'file'\npath = 'two.toml'\n\
                      [services.users]\nsource = 'one'\n[[routes]]\nservice = 'users'\n";

fn config(text: &str) -> Config {
    Config::parse(Path::new("wayside.toml"), text).unwrap()
}

fn observed(addresses: &[&str]) -> Observed {
    let endpoints = addresses.iter().map(|address| Entry {
        address: address.parse().unwrap(),
        weight: 1,
        healthy: true,
        metadata: Default::default(),
    });
    Observed { endpoints: endpoints.collect(), ..Observed::default() }
}

fn all(services: &[(&str, &[&str])]) -> Report {
    Report::All(services.iter().map(|(name, addresses)| (Arc::from(*name), observed(addresses))).collect())
}

fn addresses(world: &mut World, service: &str) -> Vec<(u32, String)> {
    let snapshot = world.snapshot();
    let service = snapshot.service(service).unwrap();
    service.endpoints.iter().map(|endpoint| (endpoint.id, endpoint.address.to_string())).collect()
}

#[test]
fn the_same_report_again_changes_nothing_and_another_one_does() {
    let mut world = World::new(config(CONFIG));
    let one = Arc::from("one");
    assert!(world.report(&one, all(&[("users", &["127.0.0.1:1", "127.0.0.1:2"])])));
    let digest = world.snapshot().digest;
    assert!(!world.report(&one, all(&[("users", &["127.0.0.1:1", "127.0.0.1:2"])])));
    assert_eq!(world.snapshot().digest, digest);
    assert!(world.report(&one, all(&[("users", &["127.0.0.1:2"])])));
    assert_ne!(world.snapshot().digest, digest);
    assert!(world.report(&one, all(&[])));
    assert!(addresses(&mut world, "users").is_empty());
}

#[test]
fn an_endpoint_stays_itself_while_it_is_listed_and_its_number_is_never_given_again() {
    let mut world = World::new(config(CONFIG));
    let one = Arc::from("one");
    world.report(&one, all(&[("users", &["127.0.0.1:1", "127.0.0.1:2"])]));
    let before = addresses(&mut world, "users");
    world.snapshot().service("users").unwrap().endpoints[1].live.in_flight.store(7, Relaxed);
    world.report(&one, all(&[("users", &["127.0.0.1:2"])]));
    assert_eq!(addresses(&mut world, "users"), before[1..]);
    assert_eq!(world.snapshot().service("users").unwrap().endpoints[0].in_flight(), 7);
    world.report(&one, all(&[("users", &["127.0.0.1:1", "127.0.0.1:2"])]));
    let after = addresses(&mut world, "users");
    assert!(before.iter().all(|(id, _)| *id != after[0].0), "{before:?} {after:?}");
    assert_eq!(after[1], before[1]);
}

#[test]
fn a_source_that_fails_takes_nothing_and_shows_as_stale() {
    let mut world = World::new(config(CONFIG));
    let one = Arc::from("one");
    world.report(&one, all(&[("users", &["127.0.0.1:1"])]));
    assert!(!world.report(&one, Report::Failed(None, "down".into())));
    assert_eq!(addresses(&mut world, "users").len(), 1);
    let stale = |world: &mut World| world.snapshot().service("users").unwrap().live.stale.load(Relaxed);
    assert!(stale(&mut world));
    world.report(&one, all(&[("users", &["127.0.0.1:1"])]));
    assert!(!stale(&mut world));
}

#[test]
fn a_service_belongs_to_one_source() {
    let mut world = World::new(config(CONFIG));
    assert!(!world.report(&Arc::from("two"), all(&[("users", &["127.0.0.1:9"])])));
    assert!(world.report(&Arc::from("two"), all(&[("extra", &["127.0.0.1:9"])])));
    assert!(!world.report(&Arc::from("one"), all(&[("extra", &["127.0.0.1:8"])])));
    assert_eq!(addresses(&mut world, "extra")[0].1, "127.0.0.1:9");
}

#[test]
fn a_service_that_moves_to_another_source_keeps_its_endpoints_until_that_one_reports() {
    let mut world = World::new(config(CONFIG));
    world.report(&Arc::from("one"), all(&[("users", &["127.0.0.1:1"])]));
    let before = addresses(&mut world, "users");
    world.declare(config(&CONFIG.replace("source = 'one'", "source = 'two'")));
    assert_eq!(addresses(&mut world, "users"), before);
    // What the old source says now is about nobody.
    assert!(!world.report(&Arc::from("one"), all(&[("users", &["127.0.0.1:3"])])));
    assert!(world.report(&Arc::from("two"), all(&[("users", &["127.0.0.1:1", "127.0.0.1:2"])])));
    assert_eq!(addresses(&mut world, "users")[0], before[0]);
}

#[test]
fn what_nothing_declares_any_more_is_gone() {
    let mut world = World::new(config(CONFIG));
    world.report(&Arc::from("two"), all(&[("extra", &["127.0.0.1:9"])]));
    assert!(world.snapshot().service("extra").is_some());
    world.declare(config("[sources.one]\nkind = 'file'\npath = 'one.toml'\n"));
    assert_eq!(world.snapshot().services().count(), 0);
}
