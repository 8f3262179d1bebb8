use super::*;
use crate::discovery::left_out::LeftOut;
use proptest::prelude::*;
use serde_json::{Value, json};

/// An entry as Consul 1.8 answers it, with some of its service's keys replaced.
fn entry_with(service: Value) -> Value {
    let mut entry = json!({
        "Node": {"ID": "", "Node": "n1", "Address": "10.0.0.1", "Datacenter": "dc1", "TaggedAddresses": null, "Meta": null},
        "Service": {"ID": "i1", "Service": "users", "Tags": null, "Address": "10.0.0.2", "Meta": null, "Port": 9001,
            "Weights": {"Passing": 1, "Warning": 1}, "EnableTagOverride": false},
        "Checks": [{"Status": "passing"}]
    });
    for (key, value) in service.as_object().unwrap() {
        entry["Service"][key] = value.clone();
    }
    entry
}

fn read(entries: &[Value]) -> Result<Observed, String> {
    parse(&serde_json::to_vec(entries).unwrap(), None).map(|answer| answer.observed(None))
}

fn one(entry: Value) -> Entry {
    let mut answer = read(&[entry]).unwrap();
    assert_eq!((answer.endpoints.len(), answer.skipped), (1, 0));
    answer.endpoints.remove(0)
}

#[test]
fn addresses() {
    let cases = [
        ("10.0.0.2", "10.0.0.2:9001"),
        ("", "10.0.0.1:9001"),
        ("::1", "[::1]:9001"),
        ("[2001:db8::7]", "[2001:db8::7]:9001"),
    ];
    for (written, expected) in cases {
        let found = one(entry_with(json!({"Address": written}))).address;
        assert_eq!(found, expected.parse().unwrap(), "{written:?}");
    }
    let mut node = entry_with(json!({"Address": null}));
    node["Node"]["Address"] = json!("fd00::1");
    assert_eq!(one(node).address, "[fd00::1]:9001".parse().unwrap());
}

#[test]
fn tagged_addresses() {
    let tagged = |entry: &Value, tag: &str| {
        let answer = parse(&serde_json::to_vec(&[entry]).unwrap(), Some(tag)).unwrap().observed(None);
        answer.endpoints.first().map(|entry| entry.address.to_string()).ok_or_else(|| answer.left_out[0].reason.clone())
    };
    let of_service =
        json!({"wan": {"Address": "198.51.100.7", "Port": 80}, "lan_ipv6": {"Address": "fd00::7", "Port": 0}});
    let mut entry = entry_with(json!({"TaggedAddresses": of_service}));
    entry["Node"]["TaggedAddresses"] = json!({"wan": "198.51.100.1", "lan": "10.0.0.9"});
    assert_eq!(tagged(&entry, "wan").unwrap(), "198.51.100.7:80");
    assert_eq!(tagged(&entry, "lan_ipv6").unwrap(), "[fd00::7]:9001");
    // The node's are those of services without an address of their own.
    assert_eq!(tagged(&entry, "lan"), Err("has no tagged address `lan`".to_owned()));
    for (key, none) in [("Address", json!("")), ("TaggedAddresses", json!(null))] {
        entry["Service"][key] = none;
    }
    assert_eq!(tagged(&entry, "lan").unwrap(), "10.0.0.9:9001");
}

#[test]
fn names_are_resolved_where_that_is_wished() {
    let entries =
        ["db.internal", "nobody.internal", "late.internal", "10.0.0.2"].map(|at| entry_with(json!({"Address": at})));
    let answer = parse(&serde_json::to_vec(&entries).unwrap(), None).unwrap();
    assert_eq!(answer.names().into_iter().collect::<Vec<_>>(), ["db.internal", "late.internal", "nobody.internal"]);
    let ips = ["10.0.0.7", "::1"].map(|ip| ip.parse().unwrap());
    let problem = "`nobody.internal` has no address".to_owned();
    let resolved = [("db.internal", Ok(ips.into())), ("nobody.internal", Err(problem.clone()))];
    let observed = answer.observed(Some(&resolved.map(|(name, ips)| (name.to_owned(), ips)).into()));
    let addresses: Vec<_> = observed.endpoints.iter().map(|entry| entry.address.to_string()).collect();
    assert_eq!(addresses, ["10.0.0.7:9001", "[::1]:9001", "10.0.0.2:9001"]);
    assert_eq!(observed.left_out[0], LeftOut { entry: "i1 (nobody.internal:9001)".to_owned(), reason: problem });
    assert_eq!(observed.left_out[1].reason, "`late.internal` was not looked up");
}

#[test]
fn weights() {
    let cases = [
        (json!({}), 1),
        (json!({"Weights": null}), 1),
        (json!({"Weights": {"Passing": 7, "Warning": 2}}), 7),
        (json!({"Weights": {"Passing": 7, "Warning": 2}, "Tags": ["a", "weight:3"]}), 3),
        (json!({"Tags": ["weight:0"]}), 0),
        (json!({"Weights": {"Passing": 7, "Warning": 2}, "Tags": ["weight:heavy", "weight:-1", "weight: 4"]}), 4),
        (json!({"Weights": {"Passing": 7, "Warning": 2}, "Tags": ["weight:"]}), 7),
    ];
    for (service, weight) in cases {
        assert_eq!(one(entry_with(service.clone())).weight, weight, "{service}");
    }
}

#[test]
fn checks_make_healthy() {
    let cases: [(Value, bool, u32); 7] = [
        (json!([]), true, 7),
        (json!(null), true, 7),
        (json!(["passing"]), true, 7),
        (json!(["passing", "warning"]), true, 2),
        (json!(["warning", "critical"]), false, 2),
        (json!(["critical", "passing"]), false, 7),
        (json!([""]), true, 7),
    ];
    for (states, healthy, weight) in cases {
        let mut entry = entry_with(json!({"Weights": {"Passing": 7, "Warning": 2}}));
        let checks = states.as_array().map(|states| states.iter().map(|s| json!({"Status": s})).collect::<Vec<_>>());
        entry["Checks"] = json!(checks);
        let read = one(entry);
        assert_eq!((read.healthy, read.weight), (healthy, weight), "{states}");
    }
}

#[test]
fn metadata() {
    let mut entry = entry_with(json!({"Meta": {"version": "v2"}, "Tags": ["a", "b"]}));
    entry["Node"]["Meta"] = json!({"zone": "z1", "rack": "r1"});
    let expected = [("tags", "a,b"), ("version", "v2"), ("zone", "z1")];
    assert_eq!(one(entry).metadata, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    let mut entry = entry_with(json!({"Meta": {"zone": "z2", "tags": "mine"}, "Tags": ["a"]}));
    entry["Node"]["Meta"] = json!({"zone": "z1"});
    let expected = [("tags", "mine"), ("zone", "z2")];
    assert_eq!(one(entry).metadata, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
}

#[test]
fn a_bad_entry_is_counted_and_the_rest_stands() {
    let bad = [
        json!(null),
        json!(7),
        json!({}),
        json!({"Service": null}),
        entry_with(json!({"Port": 0})),
        entry_with(json!({"Port": 65536})),
        entry_with(json!({"Port": -1})),
        entry_with(json!({"Port": "9001"})),
        entry_with(json!({"Address": "db.internal"})),
        entry_with(json!({"Address": "0.0.0.0"})),
        entry_with(json!({"Address": "::"})),
        entry_with(json!({"Address": "10.0.0.2:80"})),
        entry_with(json!({"Weights": {"Passing": -1}})),
        entry_with(json!({"Weights": {"Passing": 4_294_967_296_u64}})),
        entry_with(json!({"Meta": {"a": 1}})),
        entry_with(json!({"Tags": "weight:3"})),
    ];
    for entry in &bad {
        let answer = read(&[entry.clone(), entry_with(json!({}))]).unwrap();
        assert_eq!((answer.endpoints.len(), answer.skipped), (1, 1), "{entry}");
        assert!(
            read(std::slice::from_ref(entry))
                .unwrap()
                .problem()
                .unwrap()
                .starts_with("none of the 1 entries can be used")
        );
    }
    let named = |entry: Value| read(&[entry]).unwrap().left_out.remove(0);
    for (entry, name, reason) in [
        (
            entry_with(json!({"Address": "db.internal"})),
            "i1 (db.internal:9001)",
            "`db.internal` is no IP address; `resolve_hosts = true` looks names up",
        ),
        (entry_with(json!({"Port": 0})), "i1 (10.0.0.2:0)", "port 0"),
        (entry_with(json!({"Address": "", "ID": null, "Port": 0})), "number 1 (10.0.0.1:0)", "port 0"),
        (json!({"Service": {"ID": "i2"}}), "i2", "missing field `Port`"),
        (json!(7), "number 1", "invalid type: integer `7`, expected struct Raw"),
    ] {
        assert_eq!(named(entry), LeftOut { entry: name.to_owned(), reason: reason.to_owned() });
    }
    let mut no_node = entry_with(json!({"Address": ""}));
    no_node["Node"] = json!(null);
    assert!(read(&[no_node]).unwrap().problem().unwrap().contains("`` is no IP address"));
    assert_eq!(
        read(&bad).unwrap().problem().unwrap(),
        format!(
            "none of the {} entries can be used; the first, number 1: invalid type: null, expected struct Raw",
            bad.len()
        )
    );
}

#[test]
fn an_address_twice_is_one_endpoint_and_healthy_if_either_is() {
    let sick = |port: u16| {
        let mut entry = entry_with(json!({"Port": port}));
        entry["Checks"] = json!([{"Status": "critical"}]);
        entry
    };
    let well = entry_with(json!({"Port": 1, "Meta": {"well": "yes"}}));
    for both in [[sick(1), well.clone()], [well, sick(1)]] {
        let answer = read(&both).unwrap();
        assert_eq!((answer.endpoints.len(), answer.skipped), (1, 0));
        assert!(answer.endpoints[0].healthy && answer.endpoints[0].metadata.contains_key("well"));
    }
}

#[test]
fn garbage_is_an_error() {
    for text in ["", "null", "{}", "[", "[{]", "<html>", "\"[]\"", "[] []", "\u{feff}[]"] {
        assert!(parse(text.as_bytes(), None).is_err(), "{text:?}");
    }
    assert!(parse(&[b'['; 100_000], None).is_err());
    assert!(parse(b"[\xff]", None).is_err());
    assert_eq!(parse(b" [ ] ", None).unwrap().observed(None), Observed::default());
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        prop::sample::select(vec!["critical", "::1", "10.0.0.9", "weight:3", ""]).prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        let keys = vec!["Node", "Service", "Checks", "Address", "Port", "Tags", "Meta", "Weights", "Passing", "Status"];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((prop::sample::select(keys), inner), 0..5)
                .prop_map(|pairs| pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
        ]
    })
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&bytes, Some("wan")).map(|answer| answer.observed(None));
    }

    #[test]
    fn every_entry_is_either_read_or_counted(entries in prop::collection::vec(any_json(), 0..6), port in 1u16..) {
        let good = entry_with(json!({"Port": port}));
        let all: Vec<Value> = entries.iter().cloned().chain([good]).collect();
        let answer = read(&all).unwrap();
        prop_assert!(answer.endpoints.len() + answer.skipped as usize <= all.len());
        prop_assert!(answer.endpoints.iter().any(|entry| entry.address.port() == port));
        let addresses: std::collections::BTreeSet<_> = answer.endpoints.iter().map(|entry| entry.address).collect();
        prop_assert_eq!(addresses.len(), answer.endpoints.len());
    }

    #[test]
    fn no_service_makes_it_panic(service in prop::collection::btree_map(
        prop::sample::select(vec!["Address", "Port", "Tags", "Meta", "Weights", "TaggedAddresses"]), any_json(), 0..5)) {
        let _ = read(&[entry_with(json!(service))]);
    }
}
