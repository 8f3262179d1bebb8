//! What reports and reloads make of the world.

use super::*;
use crate::discovery::Entry;
use proptest::prelude::*;
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
    // Forgotten meanwhile.
    world.tidy(process_ms() + 60_000);
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

#[test]
fn what_did_not_change_is_the_very_same_in_the_next_snapshot() {
    let mut world =
        World::new(config(&CONFIG.replace("[services.users]", "[services.other]\nsource = 'one'\n[services.users]")));
    let one = Arc::from("one");
    let report = |addresses: Vec<String>| {
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        all(&[("users", &addresses), ("other", &["127.0.0.1:1"])])
    };
    let many = || (1..=1000).map(|port| format!("127.0.0.1:{port}"));
    world.report(&one, report(many().collect()));
    let before = world.snapshot();
    // One goes, one comes, and one has another weight.
    let mut services =
        match report(many().filter(|address| address != "127.0.0.1:400").chain(["127.0.0.1:2000".into()]).collect()) {
            Report::All(services) => services,
            other => panic!("{other:?}"),
        };
    services.get_mut("users").unwrap().endpoints[700].weight = 7;
    world.report(&one, Report::All(services));
    let after = world.snapshot();
    let same = |service: &str| Arc::ptr_eq(before.service(service).unwrap(), after.service(service).unwrap());
    assert!(same("other") && !same("users"));
    let (was, is) = (&before.service("users").unwrap().endpoints, &after.service("users").unwrap().endpoints);
    let new: Vec<_> = is.iter().filter(|e| !was.by_id(e.id).is_some_and(|was| Arc::ptr_eq(was, e))).collect();
    assert_eq!(new.iter().map(|e| (e.address.port(), e.weight)).collect::<Vec<_>>(), [(702, 7), (2000, 1)]);
    assert!(Arc::ptr_eq(&was.by_id(new[0].id).unwrap().live, &new[0].live));
    for endpoint in is {
        assert!(after.catalog.endpoint(endpoint.id).is_some_and(|found| Arc::ptr_eq(found, endpoint)));
    }
    let gone = was.by_address("127.0.0.1:400".parse().unwrap()).unwrap();
    assert!(after.catalog.endpoint(gone.id).is_none() && before.catalog.endpoint(gone.id).is_some());
    // Another index of the registry is another report of the same state: each gateway sees its own.
    let confirmed = Observed { revision: "2".into(), ..(*after.service("users").unwrap().reported).clone() };
    assert!(world.report(&one, Report::Service("users".into(), confirmed)));
    let confirmed = world.snapshot();
    assert_eq!(confirmed.digest, after.digest);
    assert_eq!(confirmed.service("users").unwrap().endpoints.as_ptr(), is.as_ptr());
}

#[test]
fn a_list_in_another_order_is_another_list_of_the_same_endpoints() {
    let mut world = World::new(config(CONFIG));
    let one = Arc::from("one");
    world.report(&one, all(&[("users", &["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"])]));
    let (before, digest) = (addresses(&mut world, "users"), world.snapshot().digest);
    assert!(world.report(&one, all(&[("users", &["127.0.0.1:3", "127.0.0.1:1", "127.0.0.1:2"])])));
    let after = addresses(&mut world, "users");
    assert_eq!(after, [before[2].clone(), before[0].clone(), before[1].clone()]);
    assert_eq!(world.snapshot().digest, digest);
}

#[test]
fn an_endpoint_is_near_or_far_as_the_gateway_moves() {
    let mut world = World::new(config(CONFIG));
    let mut services = BTreeMap::from([(Arc::from("users"), observed(&["127.0.0.1:1", "127.0.0.1:2"]))]);
    services.get_mut("users").unwrap().endpoints[0].metadata.insert("zone".into(), "a".into());
    world.report(&Arc::from("one"), Report::All(services));
    let local = |world: &mut World| {
        let snapshot = world.snapshot();
        snapshot.service("users").unwrap().endpoints.iter().map(|e| (e.id, e.local)).collect::<Vec<_>>()
    };
    assert_eq!(local(&mut world), [(1, true), (2, true)]);
    world.declare(config(&format!("[gateway]\nzone = 'b'\n{CONFIG}")));
    assert_eq!(local(&mut world), [(1, false), (2, true)]);
    world.declare(config(&format!("[gateway]\nzone = 'a'\n{CONFIG}")));
    assert_eq!(local(&mut world), [(1, true), (2, true)]);
}

#[test]
fn those_that_are_put_aside_are_found_without_a_look_at_the_others() {
    let mut world = World::new(config(CONFIG));
    world.report(&Arc::from("one"), all(&[("users", &["127.0.0.1:1", "127.0.0.1:2"])]));
    let snapshot = world.snapshot();
    assert!(world.unhealthy().is_empty());
    let endpoint = &snapshot.service("users").unwrap().endpoints[1];
    endpoint.live.checked(false);
    assert_eq!(world.unhealthy().iter().map(|(_, e)| e.id).collect::<Vec<_>>(), [endpoint.id]);
}

/// What `one` reports at a time: of two services the entries, by port.
fn reports() -> impl Strategy<Value = Vec<(bool, BTreeMap<u8, Vec<Entry>>)>> {
    let entry = (1u16..12, 0u32..3, any::<bool>(), prop::option::of("[ab]"));
    let entry = entry.prop_map(|(port, weight, healthy, zone)| Entry {
        address: ([127, 0, 0, 1], port).into(),
        weight,
        healthy,
        metadata: zone.into_iter().map(|zone| ("zone".to_owned(), zone)).collect(),
    });
    let list = prop::collection::vec(entry, 0..10).prop_map(|mut entries| {
        let mut seen = HashSet::new();
        entries.retain(|entry| seen.insert(entry.address));
        entries
    });
    prop::collection::vec((any::<bool>(), prop::collection::btree_map(0u8..3, list, 0..3)), 1..8)
}

/// All that a snapshot says about services, but who is who.
fn shown(snapshot: &Snapshot) -> BTreeMap<String, Vec<String>> {
    let endpoint = |e: &Arc<Endpoint>| {
        format!("{} {} {} {} {:?} {:?}", e.address, e.weight, e.source_healthy, e.local, e.zone, e.metadata)
    };
    let service = |s: &Arc<Service>| (s.name.to_string(), s.endpoints.iter().map(endpoint).collect());
    snapshot.services().map(service).collect()
}

proptest! {
    #[test]
    fn a_world_that_followed_changes_is_the_one_that_was_told_at_once(reports in reports(), zones in prop::collection::vec("[ab]", 0..3)) {
        let names = ["users", "extra", "more"];
        let report = |services: &BTreeMap<u8, Vec<Entry>>| {
            let observed = |endpoints: &Vec<Entry>| Observed { endpoints: endpoints.clone(), ..Observed::default() };
            Report::All(services.iter().map(|(name, e)| (Arc::from(names[usize::from(*name)]), observed(e))).collect())
        };
        let in_zone = |zone: &str| config(&format!("[gateway]\nzone = '{zone}'\n{CONFIG}"));
        let one = Arc::from("one");
        let mut world = World::new(in_zone("a"));
        let mut zone = "a";
        for (number, (published, services)) in reports.iter().enumerate() {
            world.report(&one, report(services));
            if let Some(next) = zones.get(number) {
                zone = next;
                world.declare(in_zone(zone));
            }
            if *published {
                let snapshot = world.snapshot();
                let all: Vec<_> = snapshot.services().flat_map(|service| &service.endpoints).collect();
                let found = |e: &&&Arc<Endpoint>| snapshot.catalog.endpoint(e.id).is_some_and(|found| Arc::ptr_eq(found, e));
                prop_assert!(all.iter().all(|endpoint| found(&endpoint)));
                let other = (1..=world.given).filter(|id| snapshot.catalog.endpoint(*id).is_some()).count();
                prop_assert_eq!(other, all.len());
            }
        }
        let mut at_once = World::new(in_zone(zone));
        at_once.report(&one, report(&reports[reports.len() - 1].1));
        let (followed, told) = (world.snapshot(), at_once.snapshot());
        prop_assert_eq!(shown(&followed), shown(&told));
        prop_assert_eq!(&followed.digest, &told.digest);
        let same = |route: &crate::service::route::Route| Arc::ptr_eq(route.service(), followed.service(&route.service().name).unwrap());
        prop_assert!(!followed.routes.is_empty() && followed.routes.iter().all(same));
    }
}

const TWO: &str = "[sources.one]\nkind = 'file'\npath = 'one.toml'\n[sources.two]\nkind = 'file'\npath = 'two.toml'\n\
                   [services.users]\nsource = ['one', 'two']\n";

fn known(world: &mut World) -> Vec<String> {
    addresses(world, "users").into_iter().map(|(_, address)| address).collect()
}

#[test]
fn several_sources_are_one_list_and_one_that_fails_leaves_the_part_of_the_others() {
    let mut world = World::new(config(TWO));
    let (one, two) = (Arc::from("one"), Arc::from("two"));
    let live = |world: &mut World| {
        let live = Arc::clone(&world.snapshot().service("users").unwrap().live);
        (live.stale.load(Relaxed), live.partial.load(Relaxed))
    };
    assert!(world.report(&two, all(&[("users", &["127.0.0.1:2", "127.0.0.1:3"])])));
    assert_eq!(
        (known(&mut world), live(&mut world)),
        (vec!["127.0.0.1:2".into(), "127.0.0.1:3".into()], (false, true))
    );
    assert!(world.report(&one, all(&[("users", &["127.0.0.1:1", "127.0.0.1:2"])])));
    assert_eq!(known(&mut world), ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]);
    assert_eq!(live(&mut world), (false, false));
    world.report(&two, Report::Failed(None, "gone".to_owned()));
    assert_eq!((known(&mut world).len(), live(&mut world)), (3, (false, true)));
    world.report(&one, Report::Failed(None, "gone".to_owned()));
    assert_eq!(live(&mut world), (true, true));
    world.report(&one, Report::Confirmed);
    world.report(&two, Report::Confirmed);
    assert_eq!(live(&mut world), (false, false));
    // A file that no longer names it takes its part away, and only that.
    world.report(&one, all(&[]));
    assert_eq!(known(&mut world), ["127.0.0.1:2", "127.0.0.1:3"]);
    assert!(world.report(&two, all(&[])));
    assert!(known(&mut world).is_empty());
}

#[test]
fn a_source_more_or_less_takes_nothing_that_the_others_said() {
    let alone = |source: &str| config(&TWO.replace("['one', 'two']", &format!("'{source}'")));
    let mut world = World::new(alone("one"));
    let (one, two) = (Arc::from("one"), Arc::from("two"));
    world.report(&one, Report::Service("users".into(), observed(&["127.0.0.1:1"])));
    let before = addresses(&mut world, "users");
    world.declare(config(TWO));
    assert_eq!(addresses(&mut world, "users"), before);
    world.report(&two, Report::Service("users".into(), observed(&["127.0.0.1:2"])));
    let both = addresses(&mut world, "users");
    assert_eq!((both.len(), &both[0]), (2, &before[0]));
    world.declare(config(TWO));
    assert_eq!(addresses(&mut world, "users"), both);
    world.declare(alone("two"));
    assert_eq!(addresses(&mut world, "users"), both[1..]);
}

#[test]
fn with_failover_the_first_source_has_the_traffic_while_it_can() {
    let mut world = World::new(config(&TWO.replace("'two']", "'two']\nfailover = true")));
    let (one, two) = (Arc::from("one"), Arc::from("two"));
    world.report(&two, Report::Service("users".into(), observed(&["127.0.0.1:2", "127.0.0.1:3"])));
    let places = |world: &mut World| world.snapshot().service("users").unwrap().endpoints.ready().line.places.clone();
    assert_eq!(places(&mut world), [0, 1]);
    world.report(&one, Report::Service("users".into(), observed(&["127.0.0.1:1"])));
    assert_eq!(places(&mut world), [0]);
    let first = Arc::clone(&world.snapshot().service("users").unwrap().endpoints[0]);
    first.live.checked(false);
    assert_eq!(places(&mut world), [1, 2]);
    first.live.checked(true);
    assert_eq!(places(&mut world), [0]);
    // Without it, all have their share again.
    world.declare(config(TWO));
    assert_eq!(places(&mut world), [0, 1, 2]);
}

/// Field notes, row 17: health was lost where the set of endpoints changed.
#[test]
fn row_17_health_belongs_to_an_endpoint_and_survives_whatever_happens_to_the_set() {
    let slow = CONFIG.replace("source = 'one'\n[[", "source = 'one'\nslow_start = '10m'\noutlier = {}\n[[");
    let mut world = World::new(config(&slow));
    let one = Arc::from("one");
    world.report(&one, all(&[("users", &["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "127.0.0.1:4"])]));
    let states = |world: &mut World| {
        let snapshot = world.snapshot();
        let service = snapshot.service("users").unwrap();
        let state = |e: &Arc<Endpoint>| (e.address.port(), e.healthy(), e.live.is_ejected(), e.live.is_reachable());
        service.endpoints.iter().map(state).collect::<Vec<_>>()
    };
    let service = Arc::clone(world.snapshot().service("users").unwrap());
    let began = process_ms();
    service.endpoints[1].live.checked(false);
    let ready = service.endpoints.ready().seen;
    assert_eq!(service.endpoints[2].live.eject_after(ready), Some(true));
    let expected = [(1, true, false, true), (2, false, false, false), (3, false, true, true), (4, true, false, true)];
    assert_eq!(states(&mut world), expected);
    let order = |ports: &[u16]| ports.iter().map(|p| expected[usize::from(*p) - 1]).collect::<Vec<_>>();
    // One comes, one goes, the order changes, the source repeats itself, the configuration is another one.
    world.report(&one, all(&[("users", &["127.0.0.1:3", "127.0.0.1:2", "127.0.0.1:1"])]));
    assert_eq!(states(&mut world), order(&[3, 2, 1]));
    world.declare(config(&slow.replace("slow_start = '10m'", "slow_start = '11m'\nstrategy = 'random'")));
    assert_eq!(states(&mut world), order(&[3, 2, 1]));
    // The registry loses all of them for a moment: they come back as who they were.
    for lost in [all(&[("users", &[])]), all(&[])] {
        let again = || all(&[("users", &["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "127.0.0.1:4"])]);
        world.report(&one, lost);
        world.tidy(process_ms() + 1000);
        world.report(&one, again());
        assert_eq!(states(&mut world), expected);
        let now = world.snapshot();
        let endpoints = &now.service("users").unwrap().endpoints;
        assert!(endpoints.iter().zip(&service.endpoints).all(|(now, then)| now.id == then.id));
        // Nobody starts slowly because of that, and all of them are counted once.
        assert!(endpoints.iter().all(|e| e.live.healthy_since_ms() <= began));
        assert_eq!((endpoints.ready().usable, endpoints.ready().ejected), (2, 1));
    }
}

/// Field notes, row 18: an endpoint that was removed kept its traffic, or was dropped in the middle of a request.
#[test]
fn row_18_whoever_left_gets_nothing_new_and_is_shown_until_it_has_finished() {
    let mut world = World::new(config(CONFIG));
    let one = Arc::from("one");
    world.report(&one, all(&[("users", &["127.0.0.1:1", "127.0.0.1:2"])]));
    let before = world.snapshot();
    let gone = Arc::clone(&before.service("users").unwrap().endpoints[0]);
    let request = crate::service::InFlight::enter(&gone.live, 0);
    world.report(&one, all(&[("users", &["127.0.0.1:2"])]));
    let snapshot = world.snapshot();
    let service = snapshot.service("users").unwrap();
    let draining = || service.live.left.draining().iter().map(|e| e.id).collect::<Vec<_>>();
    // Policies and strategies see the list; whoever left is not in it, not even by its number.
    assert!(service.endpoints.by_id(gone.id).is_none() && snapshot.catalog.endpoint(gone.id).is_none());
    assert_eq!((service.endpoints.ready().line.places.len(), draining()), (1, vec![gone.id]));
    world.tidy(process_ms() + 3_600_000);
    assert_eq!(draining(), [gone.id], "however long it takes");
    drop(request);
    assert!(draining().is_empty());
    world.tidy(process_ms() + 3_600_000);
    assert!(world.left.is_empty());
}

#[test]
fn whoever_comes_takes_no_traffic_before_a_check_where_that_is_asked_for() {
    let checked = "source = 'one'\nhealth = { path = '/', initial = 'unhealthy' }\n[[";
    let mut world = World::new(config(&CONFIG.replace("source = 'one'\n[[", checked)));
    let one = Arc::from("one");
    world.report(&one, all(&[("users", &["127.0.0.1:1"])]));
    assert_eq!(world.snapshot().service("users").unwrap().usable(), 0);
    world.snapshot().service("users").unwrap().endpoints[0].live.checked(true);
    world.report(&one, all(&[("users", &["127.0.0.1:1", "127.0.0.1:2"])]));
    let snapshot = world.snapshot();
    let healthy: Vec<bool> = snapshot.service("users").unwrap().endpoints.iter().map(|e| e.healthy()).collect();
    assert_eq!(healthy, [true, false]);
}
