//! Sidecars: good ones, bad ones with their line, and ids that depend on content alone.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[test]
fn everything_can_be_said() {
    let sidecar = parse(
        r#"
        match = { path_prefix = "/api/users", methods = ["GET"] }
        config = "5"
        on_fault = "routes"
        limits = { memory = "8MiB", cpu = "1ms", wall = "20ms", calls = 10, memory_mark = 65536, state_keys = 9, state_bytes = "1KiB" }
        "#,
    )
    .unwrap();
    assert_eq!(sidecar.matcher.label(), "/api/users/*");
    assert_eq!((sidecar.config.as_str(), sidecar.on_fault), ("5", OnFault::Routes));
    let expected = Limits {
        memory: 8 << 20,
        cpu: Duration::from_millis(1),
        wall: Duration::from_millis(20),
        calls: 10,
        memory_mark: 65536,
        state_keys: 9,
        state_bytes: 1 << 10,
    };
    assert_eq!(sidecar.limits, expected);
}

#[test]
fn nothing_need_be_said() {
    let sidecar = parse("# nothing\n").unwrap();
    assert_eq!(sidecar.limits, Limits::default());
    assert_eq!(sidecar.canonical, EMPTY);
    assert_eq!(sidecar.version("d"), Sidecar::default().version("d"));
    assert_eq!(sidecar.version("d").len(), 12);
    assert_ne!(sidecar.version("d"), sidecar.version("e"));
}

#[test]
fn mistakes_name_their_place() {
    let cases = [
        ("config = \"\"\nmacth = {}\n", "line 2"),
        ("config = 5\n", "line 1"),
        ("on_fault = \"ignore\"\n", "`unavailable`"),
        ("\n[limits]\ncpu = 5\n", "line 3"),
        ("\n[limits]\ncpu = \"5\"\n", "500ms"),
        ("\n[limits]\nmemory = \"16MB\"\n", "16MiB"),
        ("[limits]\nmemory = -1\n", "16MiB"),
        ("[limits]\ncalls = 0\n", "limits: `calls`"),
        ("[limits]\nmemory = \"65MiB\"\n", "limits: `memory`"),
        ("[limits]\nmemory = \"99999999999GiB\"\n", "line 2"),
        ("match = { path = \"users\" }\n", "match: `path`: `users`"),
        ("match = { pth = \"/\" }\n", "line 1"),
        ("config = \"", "line 1"),
    ];
    for (text, expected) in cases {
        let error = parse(text).unwrap_err();
        assert!(error.contains(expected), "{text:?}: {error}");
    }
}

fn raws() -> impl Strategy<Value = Raw> {
    let matcher = (
        proptest::option::of("/[a-z]{0,5}"),
        proptest::collection::vec("GET|POST|PUT", 0..3),
        proptest::collection::btree_map("x-[a-z]{1,4}", "[ -~]{0,8}", 0..3),
    )
        .prop_map(|(path_prefix, methods, headers)| RawMatch {
            path_prefix,
            methods,
            headers,
            ..RawMatch::default()
        });
    let limits =
        (proptest::option::of(1usize..64 << 20), proptest::option::of(1u64..100_000), proptest::option::of(1u32..9))
            .prop_map(|(memory, us, calls)| RawLimits {
                memory,
                cpu: us.map(Duration::from_micros),
                calls,
                ..RawLimits::default()
            });
    let on_fault = prop_oneof![Just(OnFault::Unavailable), Just(OnFault::Next), Just(OnFault::Routes)];
    (matcher, ".{0,20}", on_fault, limits).prop_map(|(matcher, config, on_fault, limits)| Raw {
        matcher,
        config,
        on_fault,
        limits,
        state: None,
        on_store_failure: OnStoreFailure::Open,
        release: release::Settings::default(),
    })
}

#[test]
fn how_a_version_is_released_says_nothing_of_what_it_is() {
    let canary = parse("config = 'x'\n[release]\nmode = 'canary'\nhold = '1m'").unwrap();
    assert_eq!(canary.version("d"), parse("config = 'x'").unwrap().version("d"));
    assert_eq!((canary.release.mode, canary.release.hold), (release::Mode::Canary, Duration::from_secs(60)));
    assert!(parse("[release]\nhold = '1ms'").unwrap_err().starts_with("release.hold: 1ms"));
}

/// The same content in another order, on other lines, with comments.
fn rewritten(raw: &Raw) -> String {
    let table = toml::Table::try_from(raw).unwrap();
    let mut inline = BTreeMap::new();
    for (key, value) in &table {
        inline.insert(key.clone(), value.to_string());
    }
    inline.iter().rev().map(|(key, value)| format!("# {key}\n\n  \"{key}\"   =\t{value}  # end\n")).collect()
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in ".{0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn nearly_right_text_is_read_or_refused(lines in proptest::collection::vec(
        "(match|config|on_fault|limits|\\[limits\\]|cpu|memory|calls)( = (\"[0-9]{0,30}(ms|MiB|s|next)?\"|-?[0-9]{1,25}|\\{\\}|\\{ path = \"/x\" \\}))?",
        0..6,
    )) {
        let _ = parse(&lines.join("\n"));
    }

    #[test]
    fn the_id_depends_on_the_content_alone(raw in raws(), other in raws()) {
        let one = parse(&toml::to_string(&raw).unwrap()).unwrap();
        let same = parse(&rewritten(&raw)).unwrap();
        prop_assert_eq!(one.version("d"), same.version("d"));
        let other_sidecar = parse(&toml::to_string(&other).unwrap()).unwrap();
        prop_assert_eq!(raw == other, one.version("d") == other_sidecar.version("d"));
    }
}
