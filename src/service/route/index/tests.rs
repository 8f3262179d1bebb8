//! The index finds what a walk over all rules finds.

use super::*;
use crate::http::request::Peer;
use crate::service::route::RawMatch;
use proptest::prelude::*;
use std::sync::Arc;

fn head(method: &str, target: &str, host: &str) -> Arc<Head> {
    let request = http::Request::builder().method(method).uri(target).header("host", host).body(()).unwrap();
    Head::new(request.into_parts().0, Peer::new(([127, 0, 0, 1], 1).into()), &[])
}

fn rule() -> impl Strategy<Value = Match> {
    let hosts: &[&str] =
        &["a", "b.a", "*.a", "*.b.a", "c.b.a", "*", "a.", "[::1]", "*.[::1]", "*..", "..a", "*.a..a", "127.0.0.1"];
    let paths: &[&str] = &["/", "/a", "/a/", "/a/b", "/ab", "//a", "/a;x", "/%61/b", "/a%20", "/a/b/c", "/b"];
    let host = prop::option::of(prop::sample::select(hosts));
    let path = || prop::option::weighted(0.4, prop::sample::select(paths));
    let method = prop::option::weighted(0.3, prop::sample::select(&["GET", "OPTIONS"][..]));
    (host, path(), path(), method).prop_map(|(host, path, path_prefix, method)| {
        let raw = RawMatch {
            host: host.map(str::to_owned),
            path: path.map(str::to_owned),
            path_prefix: path_prefix.map(str::to_owned),
            methods: method.into_iter().map(str::to_owned).collect(),
            ..RawMatch::default()
        };
        raw.check().unwrap()
    })
}

fn request() -> impl Strategy<Value = Arc<Head>> {
    let hosts: &[&str] = &[
        "a",
        "A.:80",
        "b.a",
        "c.b.a:8080",
        "x.c.b.a.",
        ".a",
        "..a",
        "a..a",
        "x.a..a",
        "",
        ".",
        "..",
        "x..",
        "[::1]:80",
        "x.[::1]",
        "127.0.0.1",
        "ba",
        "b.ba",
    ];
    let segments: &[&str] = &["a", "b", "c", "ab", "", "%61", "a;x", "a%20", "a%2Fb", "%2e"];
    let path =
        prop::collection::vec(prop::sample::select(segments), 1..5).prop_map(|all| format!("/{}", all.join("/")));
    let target = prop_oneof![9 => path, 1 => Just("*".to_owned()), 1 => Just("http://b.a".to_owned())];
    (target, prop::sample::select(hosts), any::<bool>())
        .prop_map(|(target, host, get)| head(if get { "GET" } else { "OPTIONS" }, &target, host))
}

proptest! {
    #[test]
    fn it_finds_what_a_walk_finds_in_the_same_order(
        rules in prop::collection::vec(rule(), 0..40), requests in prop::collection::vec(request(), 1..20),
    ) {
        let index = Index::of(&rules);
        for head in requests {
            let walked: Vec<usize> = (0..rules.len()).filter(|number| rules[*number].fits(&head)).collect();
            let found: Vec<usize> = index.candidates(&head).collect();
            prop_assert!(found.is_sorted_by(|one, two| one < two), "{found:?}");
            let found: Vec<usize> = found.into_iter().filter(|number| rules[*number].fits(&head)).collect();
            prop_assert_eq!(found, walked, "{:?} {:?}", head.host(), head.path());
        }
    }
}

fn under(prefix: String, host: Option<String>) -> Match {
    RawMatch { path_prefix: Some(prefix), host, ..RawMatch::default() }.check().unwrap()
}

#[test]
fn of_many_it_looks_at_those_alone_that_can_fit() {
    let by_path: Vec<Match> = (0..1000).map(|n| under(format!("/api/service-{n}"), None)).collect();
    let by_host: Vec<Match> = (0..1000).map(|n| under("/".into(), Some(format!("shop-{n}.example")))).collect();
    let by_domain: Vec<Match> = (0..1000).map(|n| under("/".into(), Some(format!("*.shop-{n}.example")))).collect();
    let asked = head("GET", "/api/service-700/items/1", "www.shop-700.example");
    for (rules, expected) in [(&by_path, vec![700]), (&by_host, vec![]), (&by_domain, vec![700])] {
        assert_eq!(Index::of(rules).candidates(&asked).collect::<Vec<_>>(), expected);
    }
    let all: Vec<Match> = by_path.into_iter().chain(by_host).chain(by_domain).collect();
    assert_eq!(Index::of(&all).candidates(&asked).collect::<Vec<_>>(), [700, 2700]);
    assert!(Index::of(&[]).candidates(&asked).next().is_none());
}

#[test]
fn a_prefix_or_a_host_of_any_length_is_no_danger() {
    let (deep, far) = ("/a".repeat(200_000), "a.".repeat(200_000));
    let rule = under(deep.clone(), Some(format!("*.{far}b")));
    let index = Index::of([&rule]);
    let request = http::Request::get(format!("{}/x", &deep[..60_000])).header("host", format!("x.{far}b"));
    let head = Head::new(request.body(()).unwrap().into_parts().0, Peer::new(([127, 0, 0, 1], 1).into()), &[]);
    assert_eq!(index.candidates(&head).count(), 0);
}
