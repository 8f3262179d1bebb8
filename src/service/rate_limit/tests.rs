use super::key::Of;
use super::*;
use crate::http::request::Peer;
use proptest::prelude::*;
use std::net::SocketAddr;
use std::time::Duration;

/// What a file of the configuration says of its limits.
#[derive(serde::Deserialize)]
struct File {
    rate_limits: Vec<settings::Written>,
}

fn declared(text: &str) -> Result<Vec<Arc<Declared>>, String> {
    let file: File = toml::from_str(text).map_err(|error| error.message().to_owned())?;
    settings::check(file.rate_limits, |store| store == "shared")
}

fn limits(text: &str) -> Limits {
    Limits::default().declare(&declared(text).unwrap())
}

fn head(client: &str, path: &str, headers: &[(&str, &str)]) -> Arc<Head> {
    let mut request = http::Request::get(format!("http://shop.example{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let client: SocketAddr = client.parse().unwrap();
    Head::new(request.body(()).unwrap().into_parts().0, Peer::new(client), &[])
}

const ONE: &str = "192.0.2.1:1";

/// How many of so many requests at once are granted.
fn granted(limits: &Limits, head: &Head, asked: usize, now: Instant) -> usize {
    let stores = Stores::default();
    (0..asked).filter(|_| !limits.take(head, &stores, now).is_some_and(|standing| standing.is_refusal())).count()
}

fn refused(limits: &Limits) -> Vec<(String, u64)> {
    limits.refused().map(|(limit, refused)| (limit.name.to_string(), refused)).collect()
}

fn told(limits: &Limits, head: &Head, now: Instant) -> String {
    let mut headers = Fields::default();
    limits.take(head, &Stores::default(), now).unwrap().tell(&mut headers);
    let line = |(name, value): (&[u8], &[u8])| {
        format!("{}: {}", String::from_utf8_lossy(name), String::from_utf8_lossy(value))
    };
    headers.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn each_key_has_its_own_bucket() {
    let now = Instant::now();
    let by = |key: &str| limits(&format!("[[rate_limits]]\nkey = \"{key}\"\nrate = \"1/h\"\nburst = 3\n"));
    let (a, b) = ([("x-api-key", "a"), ("cookie", "n=1; user=a")], [("x-api-key", "b"), ("cookie", "user=b")]);
    for (key, of_another_client, of_another_key) in
        [("client", 3, 0), ("none", 0, 0), ("header:X-Api-Key", 0, 3), ("cookie:user", 0, 3)]
    {
        let limits = by(key);
        assert_eq!(granted(&limits, &head(ONE, "/", &a), 5, now), 3, "{key}");
        assert_eq!(granted(&limits, &head("192.0.2.2:1", "/", &a), 5, now), of_another_client, "{key}");
        assert_eq!(granted(&limits, &head(ONE, "/", &b), 5, now), of_another_key, "{key}");
    }
    // Whoever has one address of IPv6 has its /64.
    let limits = by("client");
    assert_eq!(granted(&limits, &head("[2001:db8::1]:1", "/", &[]), 5, now), 3);
    assert_eq!(granted(&limits, &head("[2001:db8::2]:1", "/", &[]), 5, now), 0);
    assert_eq!(granted(&limits, &head("[2001:db8:0:1::1]:1", "/", &[]), 5, now), 3);
    // Without the header it is the client that counts, and nobody can take from another one's bucket by naming it.
    let limits = by("header:x-api-key");
    assert_eq!(granted(&limits, &head("192.0.2.2:1", "/", &[("x-api-key", "192.0.2.1")]), 5, now), 3);
    assert_eq!(granted(&limits, &head(ONE, "/", &[]), 5, now), 3);
    assert_eq!(granted(&limits, &head(ONE, "/", &[]), 5, now), 0);
}

#[test]
fn all_that_are_about_a_request_must_grant_it_and_the_others_lose_nothing() {
    let text = "[[rate_limits]]\nname = \"all\"\nrate = \"1/h\"\nburst = 10\n\
                [[rate_limits]]\nname = \"api\"\nmatch = { path_prefix = \"/api\" }\nrate = \"1/m\"\nburst = 2\n";
    let (limits, now) = (limits(text), Instant::now());
    let (api, other) = (head(ONE, "/api/x", &[]), head(ONE, "/x", &[]));
    assert_eq!(granted(&limits, &api, 50, now), 2);
    assert_eq!(refused(&limits), [("all".to_owned(), 0), ("api".to_owned(), 48)]);
    assert_eq!(granted(&limits, &other, 50, now), 8);
    // Both refuse: the one that does so for longer is told.
    let standing = limits.take(&api, &Stores::default(), now).unwrap();
    assert!(standing.is_refusal() && &*standing.limit.name == "all");
    assert!(limits.take(&head(ONE, "/x", &[]), &Stores::default(), now).unwrap().is_refusal());
}

#[test]
fn clients_are_told_how_they_stand() {
    let text = "[[rate_limits]]\nname = 'a \"b\"'\nrate = \"2/m\"\nburst = 2\n";
    let (limits, now, one) = (limits(text), Instant::now(), head(ONE, "/", &[]));
    let after = |seconds| now + Duration::from_secs(seconds);
    assert_eq!(told(&limits, &one, after(100)), "ratelimit: \"a \\\"b\\\"\";r=1;t=30");
    assert_eq!(told(&limits, &one, after(110)), "ratelimit: \"a \\\"b\\\"\";r=0;t=20");
    let refused = "retry-after: 19\nratelimit-policy: \"a \\\"b\\\"\";q=2;w=60\nratelimit: \"a \\\"b\\\"\";r=0;t=19";
    assert_eq!(told(&limits, &one, after(111) + Duration::from_millis(500)), refused);
    assert_eq!(told(&limits, &one, after(130)), "ratelimit: \"a \\\"b\\\"\";r=0;t=30");
    let quiet = super::tests::limits(&format!("{text}headers = false\n"));
    assert_eq!(told(&quiet, &one, now), "");
    assert_eq!((granted(&quiet, &one, 9, now), told(&quiet, &one, now)), (1, "retry-after: 30".to_owned()));
    assert!(quiet.declare(&[]).take(&one, &Stores::default(), now).is_none());
}

#[test]
fn what_was_counted_belongs_to_the_name() {
    let limit = |rest: &str| declared(&format!("[[rate_limits]]\nname = \"a\"\n{rest}")).unwrap();
    let (now, one) = (Instant::now(), head(ONE, "/", &[]));
    let before = Limits::default().declare(&limit("rate = \"1/h\"\nburst = 5"));
    assert_eq!(granted(&before, &one, 3, now), 3);
    let more = before.declare(&limit("rate = \"1/m\"\nburst = 6"));
    assert_eq!(granted(&more, &one, 9, now), 3);
    assert_eq!(refused(&more), [("a".to_owned(), 6)]);
    assert_eq!(granted(&more, &one, 9, now + Duration::from_secs(60)), 1);
    let other = declared("[[rate_limits]]\nname = \"b\"\nrate = \"1/h\"\nburst = 5\n").unwrap();
    assert_eq!(granted(&more.declare(&other), &one, 9, now), 5);
}

#[test]
fn a_store_that_fails_closes_only_what_says_so() {
    let store = |more: &str| limits(&format!("[[rate_limits]]\nrate = \"1/h\"\nburst = 2\nstore = \"shared\"\n{more}"));
    let (now, one) = (Instant::now(), head(ONE, "/", &[]));
    // No store is there.
    assert_eq!(granted(&store(""), &one, 5, now), 2);
    assert_eq!(granted(&store("on_store_failure = \"closed\""), &one, 5, now), 0);
    assert!(told(&store("on_store_failure = \"closed\""), &one, now).starts_with("retry-after: 1\n"));
}

#[test]
fn what_a_store_says_corrects_the_copy() {
    let (memory, second) = (Memory::default(), SECOND_NS);
    let terms = gcra::Terms { interval_ns: second, burst: 10 };
    let slot = memory.slot(1, &Of::All);
    assert_eq!((0..4).map(|_| memory.take(slot, terms, second, true).left).min(), Some(6));
    // Others took three before the first of ours; three of ours it has not heard of.
    memory.settle(slot, Some(6.0), terms, second);
    assert_eq!(memory.take(slot, terms, second, true).left, 2);
    // It does not answer: what is known stays.
    (0..3).for_each(|_| memory.settle(slot, None, terms, second));
    assert_eq!(memory.take(slot, terms, second, true).left, 1);
    memory.settle(slot, Some(-2.0), terms, second);
    memory.settle(slot, Some(-2.0), terms, second);
    assert_eq!(memory.take(slot, terms, second, true).wait_ns, 3 * second);
}

#[test]
fn the_key_longest_unused_goes() {
    let memory = Memory::default();
    let terms = gcra::Terms { interval_ns: SECOND_NS, burst: 2 };
    let slot = |number: u64| memory.slot(number, &Of::All);
    let take = |number| memory.take(slot(number), terms, 1, false).left;
    assert_eq!(take(0), 1);
    (1..300_000).for_each(|number| assert_eq!(take(number), 1));
    assert_eq!(memory.len(), 100_000);
    // It begins anew.
    assert_eq!((take(0), take(0)), (1, 0));
}

#[test]
fn what_is_wrong_is_told_with_its_key() {
    for (keys, problem) in [
        ("", "missing field `rate`"),
        ("rate = \"1/w\"", "`1/w` is no rate; write it like \"100/s\", \"10/m\", \"5000/h\" or \"100000/d\""),
        ("rate = 5", "invalid type: integer `5`, expected a string"),
        ("rate = \"1/s\"\nburst = 0", "invalid value: integer `0`, expected a nonzero u32"),
        ("rate = \"1/s\"\nkey = \"ip\"", "`ip` is none of `client`, `header:NAME`, `cookie:NAME`, `none`"),
        ("rate = \"1/s\"\nkey = \"header:a b\"", "`header:a b` is none of"),
        ("rate = \"1/s\"\nkey = \"cookie:\"", "`cookie:` is none of"),
        ("rate = \"1/s\"\nstore = \"other\"", "number 1: `store`: there is no `[stores.other]`"),
        ("rate = \"1/s\"\non_store_failure = \"open\"", "number 1: `on_store_failure`: needs `store`"),
        ("rate = \"1/s\"\nname = \"\"", "number 1: `name`: expected 1 to 64 printable characters"),
        ("rate = \"1/s\"\nname = \"a\\nb\"", "number 1: `name`: expected 1 to 64 printable characters"),
        ("rate = \"1/s\"\nmatch = { host = \"a b\" }", "number 1: match.`host`: `a b` is not a host"),
        ("rate = \"1/s\"\nmatch = { path = \"/caf%C3%A9\" }", "number 1: `name`: is missing"),
        ("rate = \"1/d\"\nburst = 1000", "number 1: `burst`: at this rate"),
        ("rate = \"1/s\"\n[[rate_limits]]\nrate = \"2/s\"", "number 2: there is another one named `any`"),
    ] {
        let told = declared(&format!("[[rate_limits]]\n{keys}\n")).unwrap_err();
        assert!(told.starts_with(problem), "{keys}: {told}");
    }
    let good = declared("[[rate_limits]]\nrate = \"1/s\"\nstore = \"local\"\n[[rate_limits]]\nmatch = { path_prefix = \"/a\" }\nrate = \"1/s\"\nstore = \"shared\"\non_store_failure = \"closed\"\n").unwrap();
    assert_eq!(good.iter().map(|limit| &*limit.name).collect::<Vec<_>>(), ["any", "/a/*"]);
}

proptest! {
    #[test]
    fn a_key_is_read_or_refused(text in ".{0,20}|(client|none|header|cookie):?[a-z ]{0,5}") {
        if let Ok(key) = key::Key::try_from(text.clone()) {
            key.of(&head(ONE, "/", &[("cookie", "a=1"), ("a", "2")]));
            prop_assert!(["client", "none"].contains(&&*text) || text.starts_with("header:") || text.starts_with("cookie:"));
        }
    }

    /// Several limits, of which any may refuse: none grants more than it may, and what is refused costs nothing.
    #[test]
    fn several_limits_hold_each_for_itself(
        bursts in (1_u32..6, 1_u32..6),
        requests in proptest::collection::vec((any::<bool>(), 0_u64..5000), 1..120),
    ) {
        let text = format!(
            "[[rate_limits]]\nrate = \"1/s\"\nburst = {}\n[[rate_limits]]\nmatch = {{ path_prefix = \"/api\" }}\nrate = \"20/m\"\nburst = {}\n",
            bursts.0, bursts.1
        );
        let (limits, start) = (limits(&text), Instant::now());
        let (api, other, stores) = (head(ONE, "/api", &[]), head(ONE, "/", &[]), Stores::default());
        let (mut now, mut passed) = (start, Vec::new());
        // The same with whole buckets, in ms.
        let (mut all, mut some) = (f64::from(bursts.0), f64::from(bursts.1));
        for (is_api, step) in requests {
            now += Duration::from_millis(step);
            all = (all + step as f64 / 1000.0).min(bursts.0.into());
            some = (some + step as f64 / 3000.0).min(bursts.1.into());
            let granted = !limits.take(if is_api { &api } else { &other }, &stores, now).unwrap().is_refusal();
            // Where rounding decides, either is right.
            let close = |tokens: f64| (tokens - 1.0).abs() < 1e-3;
            let unsure = close(all) || is_api && close(some);
            if !unsure {
                prop_assert_eq!(granted, all >= 1.0 && (!is_api || some >= 1.0));
            }
            if granted {
                all -= 1.0;
                some -= f64::from(u8::from(is_api));
                passed.push(now);
            }
        }
        prop_assert!(passed.len() as f64 <= f64::from(bursts.0) + (now - start).as_secs_f64() + 1e-6);
    }
}

proptest! {
    #[test]
    fn nobody_says_anything_that_leads_to_the_bucket_of_another(
        limits in (0..9_u64, 0..9_u64), v4: u32, v6: u128, said in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let memory = Memory::default();
        let (v4, v6) = (std::net::Ipv4Addr::from(v4), std::net::Ipv6Addr::from(v6));
        let mut keys = vec![Of::All, Of::Client(v4.into()), Of::Client(v6.into()), Of::Said(said.into())];
        keys.extend([v4.octets().to_vec(), v6.octets().to_vec(), Vec::new()].map(|said| Of::Said(said.into())));
        let slots: Vec<(u64, &Of<'_>)> =
            [limits.0, limits.1].iter().flat_map(|limit| keys.iter().map(|key| (*limit, key))).collect();
        for (one, other) in slots.iter().flat_map(|one| slots.iter().map(move |other| (one, other))) {
            let same = memory.slot(one.0, one.1) == memory.slot(other.0, other.1);
            prop_assert_eq!(same, one == other, "{:?} {:?}", one, other);
        }
    }
}
