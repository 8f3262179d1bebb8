//! What is kept ready is what a walk over all endpoints finds, whatever changes.

use super::*;
use crate::service::has_all;
use proptest::prelude::*;

/// One thing that happens to a service of endpoints that are numbered from 0.
#[derive(Debug, Clone)]
enum Change {
    Health(usize, bool),
    Weight(usize, u32),
    Source(usize, bool),
    Version(usize, u8),
    Gone(usize),
    Come(usize),
    /// Somebody asks, so that there is something that could be outdated.
    Asked,
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let place = 0..100usize;
    let change = prop_oneof![
        (place.clone(), any::<bool>()).prop_map(|(place, to)| Change::Health(place, to)),
        (place.clone(), 0u32..4).prop_map(|(place, to)| Change::Weight(place, to)),
        (place.clone(), any::<bool>()).prop_map(|(place, to)| Change::Source(place, to)),
        (place.clone(), 0u8..4).prop_map(|(place, to)| Change::Version(place, to)),
        place.clone().prop_map(Change::Gone),
        place.prop_map(Change::Come),
        Just(Change::Asked),
    ];
    prop::collection::vec(change, 0..60)
}

fn endpoint(id: u32) -> Endpoint {
    Endpoint {
        metadata: [("version".to_owned(), "v0".to_owned()), ("pod".to_owned(), id.to_string())].into(),
        ..Endpoint::of("users", id, ([10, 0, (id / 256) as u8, id as u8], 80).into())
    }
}

/// The same endpoint with another declaration: its live state stays its own.
fn changed(endpoint: &Endpoint, change: impl FnOnce(&mut Endpoint)) -> Arc<Endpoint> {
    let mut new = Endpoint {
        service: Arc::clone(&endpoint.service),
        zone: endpoint.zone.clone(),
        metadata: endpoint.metadata.clone(),
        live: Arc::clone(&endpoint.live),
        ..*endpoint
    };
    change(&mut new);
    Arc::new(new)
}

/// What a walk over all of them finds.
fn walked(endpoints: &Endpoints, fits: impl Fn(&Endpoint) -> bool) -> Vec<u32> {
    (0..).zip(endpoints.iter()).filter(|(_, endpoint)| fits(endpoint)).map(|(place, _)| place).collect()
}

fn labelled(endpoints: &Endpoints, key: &str, value: &str) -> Vec<u32> {
    let mut left = Line::default();
    let plan = Plan { subset: vec![(key.to_owned(), value.to_owned())], ..Plan::default() };
    endpoints.narrow(&endpoints.ready().line, (None, &plan), &[], &mut left, &mut Vec::new());
    assert!(bits::ones(&left.bits).eq(left.places.iter().copied()));
    left.places
}

fn check(endpoints: &Endpoints) -> Result<(), TestCaseError> {
    let ready = endpoints.ready();
    let line = &ready.line;
    prop_assert_eq!(&line.places, &walked(endpoints, Endpoint::is_candidate));
    prop_assert!(bits::ones(&line.bits).eq(line.places.iter().copied()));
    prop_assert_eq!(ready.usable, walked(endpoints, Endpoint::usable).len());
    prop_assert_eq!(&ready.unhealthy, &walked(endpoints, |e| !e.healthy()));
    let mut end = 0;
    for (index, place) in line.places.iter().enumerate() {
        prop_assert_eq!(line.index(*place), Some(index));
        prop_assert_eq!(line.at(end), Some(index));
        end += u64::from(endpoints[*place as usize].weight);
        prop_assert_eq!(line.at(end - 1), Some(index));
    }
    prop_assert_eq!((line.length(), line.at(end)), (end, None));
    for (place, endpoint) in (0..).zip(endpoints.iter()) {
        prop_assert_eq!(endpoints.place(endpoint.id), Some(place));
        prop_assert!(endpoints.by_id(endpoint.id).is_some_and(|found| Arc::ptr_eq(found, endpoint)));
        prop_assert!(endpoints.by_address(endpoint.address).is_some_and(|found| Arc::ptr_eq(found, endpoint)));
    }
    for (key, value) in [("version", "v0"), ("version", "v1"), ("version", "v9"), ("pod", "7"), ("nothing", "x")] {
        let pair = [(key.to_owned(), value.to_owned())];
        let expected = walked(endpoints, |e| e.is_candidate() && has_all(&e.metadata, &pair));
        prop_assert_eq!(labelled(endpoints, key, value), expected, "{} {}", key, value);
    }
    Ok(())
}

proptest! {
    #[test]
    fn what_is_ready_is_what_a_walk_finds(size in 0u32..90, changes in changes()) {
        let mut endpoints: Endpoints = (0..size).map(|id| Arc::new(endpoint(id))).collect();
        let mut next = size;
        for change in changes {
            let mut list = endpoints.to_vec();
            match change {
                Change::Health(place, to) => {
                    if let Some(endpoint) = endpoints.get(place) {
                        endpoint.live.checked(to);
                    }
                    continue;
                }
                Change::Asked => {
                    check(&endpoints)?;
                    continue;
                }
                Change::Weight(place, to) if place < list.len() => list[place] = changed(&list[place], |e| e.weight = to),
                Change::Source(place, to) if place < list.len() => {
                    list[place] = changed(&list[place], |e| e.source_healthy = to);
                }
                Change::Version(place, to) if place < list.len() => {
                    list[place] = changed(&list[place], |e| drop(e.metadata.insert("version".into(), format!("v{to}"))));
                }
                Change::Gone(place) if place < list.len() => drop(list.remove(place)),
                Change::Come(place) => {
                    list.insert(place.min(list.len()), Arc::new(endpoint(next)));
                    next += 1;
                }
                _ => continue,
            }
            endpoints = Endpoints::after(&endpoints, list);
        }
        check(&endpoints)?;
    }
}

#[test]
fn a_walk_follows_a_change_of_health_and_nothing_else() {
    let endpoints: Endpoints = (0..100).map(|id| Arc::new(endpoint(id))).collect();
    let first = Arc::clone(&endpoints.ready());
    endpoints[7].live.checked(true);
    endpoints[7].live.connected();
    endpoints[7].live.load.answered(std::time::Duration::from_millis(3), &Default::default(), 0);
    assert!(Arc::ptr_eq(&first, &endpoints.ready()), "nothing has changed");
    endpoints[7].live.checked(false);
    let second = Arc::clone(&endpoints.ready());
    assert_eq!((second.line.places.len(), second.unhealthy.as_slice()), (99, &[7][..]));
    assert!(Arc::ptr_eq(&second, &endpoints.ready()), "one walk for one change");
    endpoints[7].live.on_probation();
    assert_eq!(endpoints.ready().line.places, first.line.places);
    // Three connects that fail put it aside.
    let seconds = std::time::Duration::from_secs(5);
    assert!((0..3).any(|_| endpoints[8].live.connect_failed(seconds)));
    assert_eq!(endpoints.ready().unhealthy, [8]);
}

#[test]
fn a_key_is_indexed_once_and_again_after_a_change_by_whoever_makes_the_list() {
    let endpoints: Endpoints = (0..100).map(|id| Arc::new(endpoint(id))).collect();
    assert_eq!(labelled(&endpoints, "pod", "42"), [42]);
    assert!(labelled(&endpoints, "missing", "42").is_empty());
    let keys = |endpoints: &Endpoints| endpoints.0.labels.load().keys().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(keys(&endpoints), ["pod"], "what no endpoint has is not remembered");
    let fewer = Endpoints::after(&endpoints, endpoints[1..].to_vec());
    assert_eq!(keys(&fewer), ["pod"]);
    assert_eq!(labelled(&fewer, "pod", "42"), [41]);
}
