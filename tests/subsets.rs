//! Declared subsets: of a service, and of a route.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

use crate::support::gateway::Gateway;
use crate::support::program::until;
use crate::support::saying::Saying;
use serde_json::Value;

#[test]
fn a_service_and_a_route_take_the_endpoints_that_they_name() {
    let (one, two) = (Saying::start(), Saying::start());
    one.says(201);
    two.says(202);
    let of = |version: &str, fallback: &str| {
        format!("subset = {{ metadata = {{ version = \"{version}\" }}, fallback = \"{fallback}\" }}")
    };
    let gateway = Gateway::with()
        .named("all")
        .endpoint(one.address)
        .route("match = { path = \"/all\" }")
        .route(&format!("match = {{ path = \"/two\" }}\n{}", of("v2", "none")))
        .route(&format!("match = {{ path = \"/wish\" }}\n{}", of("v2", "any")))
        .route(&format!("match = {{ path = \"/nobody\" }}\n{}", of("v9", "none")))
        .route(&format!("match = {{ path = \"/anybody\" }}\n{}", of("v9", "any")))
        .named("some")
        .endpoint(one.address)
        .service(&of("v2", "none"))
        .route("match = { path = \"/some\" }")
        .route(&format!("match = {{ path = \"/both\" }}\n{}", of("v1", "none")))
        .start();
    let list = |second: bool| {
        let both = [(one.address, "v1"), (two.address, "v2")];
        let of = |service: &str| {
            let endpoint = |(address, version): &(std::net::SocketAddr, &str)| {
                let metadata = format!("metadata = {{ version = \"{version}\" }}");
                format!("[[services.{service}.endpoints]]\naddress = \"{address}\"\n{metadata}\n")
            };
            both[..1 + usize::from(second)].iter().map(endpoint).collect::<String>()
        };
        std::fs::write(gateway.folder().join("services.toml"), of("all") + &of("some")).unwrap();
        let usable = if second { 1 } else { 0 };
        until("the list is known", || {
            let shown: Value = serde_json::from_str(&gateway.ask("/services")).unwrap();
            shown["services"][1]["subset"]["usable"] == usable
                && shown["services"][1]["endpoints"][0]["metadata"] != Value::Null
        });
    };
    let statuses = |path: &str| -> Vec<String> {
        let ask = |_| gateway.get(path, &[]).split(' ').nth(1).unwrap().to_owned();
        let mut all: Vec<String> = (0..4).map(ask).collect();
        all.sort();
        all
    };
    list(true);
    let (both, second, nobody) = (["201", "201", "202", "202"], ["202"; 4], ["503"; 4]);
    for (path, expected) in [
        ("/all", both),
        ("/two", second),
        ("/wish", second),
        ("/nobody", nobody),
        ("/anybody", both),
        ("/some", second),
        ("/both", nobody),
    ] {
        assert_eq!(statuses(path), expected, "{path}");
    }
    let routes: Value = serde_json::from_str(&gateway.ask("/routes")).unwrap();
    let (two, wish) = (&routes["routes"][1], &routes["routes"][2]);
    assert_eq!((&two["subset"]["version"], &wish["prefer"]["version"]), (&"v2".into(), &"v2".into()));
    list(false);
    for (path, expected) in [("/two", nobody), ("/wish", ["201"; 4]), ("/some", nobody)] {
        assert_eq!(statuses(path), expected, "{path}");
    }
}
