//! A thousand generated requests, decided by each example: the prebuilt component, the one that was built from source
//! just now (where `make guests` was run), the one that was built with an earlier version of the interface, and the rules
//! written down once more in plain Rust.

use super::world::{Loader, catalog, path, question, said};
use wayside::base::chance::Chance;
use wayside::policy::{Limits, Question};
use wayside::service::decision::Outcome;
use xxhash_rust::xxh64::xxh64;

const REQUESTS: u32 = 1000;
const RULES: &str = "/api/users acme gold users-gold\n/api acme gold users-v2\n\n  /api/users acme silver users\n";

/// What a generated request is made of.
#[derive(Debug)]
struct Sample {
    number: u32,
    path: &'static str,
    headers: Vec<(&'static str, String)>,
    client: [u8; 4],
}

impl Sample {
    fn new(number: u32, chance: &mut Chance) -> Sample {
        let mut headers = Vec::new();
        let offers: [(&str, &[&str]); 3] = [
            ("x-canary", &["0", "1", "11"]),
            ("x-tenant", &["acme", "acme", "other"]),
            ("x-tier", &["gold", "silver", "Gold"]),
        ];
        for (name, values) in offers {
            // Sometimes none, sometimes two lines of one name, which equal no single value.
            for _ in 0..[0, 1, 1, 1, 2][chance.below(5)] {
                headers.push((name, values[chance.below(values.len())].to_owned()));
            }
        }
        if chance.below(2) == 0 {
            headers.push(("cookie", format!("theme=dark; sid={}", chance.below(400))));
        }
        let paths = ["/", "/api", "/api/users", "/api/users/7", "/api/usersx", "/API/users", "/x/../api/users"];
        let client = [10, 0, chance.below(256) as u8, chance.below(256) as u8];
        Sample { number, path: paths[chance.below(paths.len())], headers, client }
    }

    fn question(&self) -> Question {
        let headers: Vec<(&str, &str)> = self.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        question(&catalog(self.number), self.path, &headers, self.client)
    }

    /// All lines of a header, as the interface joins them.
    fn header(&self, name: &str) -> Option<String> {
        let lines: Vec<&str> = self.headers.iter().filter(|(n, _)| *n == name).map(|(_, v)| v.as_str()).collect();
        (!lines.is_empty()).then(|| lines.join(", "))
    }

    fn sid(&self) -> Option<String> {
        self.header("cookie").and_then(|cookie| cookie.split_once("sid=").map(|(_, sid)| sid.to_owned()))
    }

    /// Where canary sends it, with a share of `percent`.
    fn canary(&self, percent: u64) -> Option<&'static str> {
        let [a, b, c, d] = self.client;
        let user = self.sid().unwrap_or_else(|| format!("{a}.{b}.{c}.{d}"));
        let bucket = (u128::from(xxh64(format!("canary:{user}").as_bytes(), 0)) * 100) >> 64;
        let asked = self.header("x-canary").as_deref() == Some("1");
        (asked || bucket < u128::from(percent)).then_some("users-v2")
    }

    /// Where tenant sends it, with [`RULES`].
    fn tenant(&self) -> Option<&'static str> {
        let path = if self.path == "/x/../api/users" { "/api/users" } else { self.path };
        let rules =
            RULES.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).filter(|rule| rule.len() == 4);
        let same = |name: &str, value: &str| self.header(name).as_deref() == Some(value);
        let mut fits = rules.filter(|r| path.starts_with(r[0]) && same("x-tenant", r[1]) && same("x-tier", r[2]));
        fits.next().map(|rule| rule[3])
    }
}

/// Decides all samples. `expected` says which service, or none for `next`.
async fn decide(name: &str, config: &str, expected: impl Fn(&Sample) -> Option<&'static str>) {
    let loader = Loader::new();
    let prebuilt = path(&format!("guest-examples/prebuilt/{name}.wasm"));
    let prebuilt = loader.load(&prebuilt, config, Limits::default()).await.unwrap();
    // Never built again: what was published keeps loading and means what it did.
    let others = [format!("target/guests/{name}.wasm"), format!("tests/guests/published/{name}-0.1.0.wasm")];
    let mut versions = Vec::new();
    for other in others.iter().map(|other| path(other)).filter(|other| other.exists()) {
        versions.push(loader.load(&other, config, Limits::default()).await.unwrap());
    }
    let mut chance = Chance(1);
    let mut forwards = 0;
    for number in 0..REQUESTS {
        let sample = Sample::new(number, &mut chance);
        let called = prebuilt.decide(0, sample.question());
        let service = match &called.outcome {
            Outcome::Forward(forward) => Some(&*forward.service.name),
            Outcome::Next => None,
            other => panic!("{sample:?}: {other:?}"),
        };
        assert_eq!(service, expected(&sample), "{sample:?}");
        forwards += u32::from(service.is_some());
        for version in &versions {
            assert_eq!(said(&version.decide(0, sample.question())), said(&called), "{sample:?}");
        }
    }
    assert!(forwards > REQUESTS / 20, "only {forwards} forwards: the samples test little");
}

#[tokio::test]
async fn canary_decides_as_written() {
    decide("canary", "5", |sample| sample.canary(5)).await;
}

#[tokio::test]
async fn tenant_decides_as_written() {
    decide("tenant", RULES, Sample::tenant).await;
}

#[test]
fn what_was_published_is_still_here() {
    for name in ["canary", "tenant"] {
        let bytes = std::fs::read(path(&format!("tests/guests/published/{name}-0.1.0.wasm"))).unwrap();
        let holds = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
        assert!(holds(b"wayside:policy/routing@0.1.0") && !holds(b"@0.1.1"), "{name} was built anew");
    }
}

#[tokio::test]
async fn sticky_and_least_loaded_always_forward() {
    decide("sticky", "", |_| Some("users")).await;
    decide("least-loaded", "", |_| Some("users")).await;
}

#[tokio::test]
async fn a_bad_config_is_told_with_its_place() {
    let loader = Loader::new();
    for (name, config, expected) in [("canary", "many", "many"), ("tenant", "/api acme gold", "/api acme gold")] {
        let file = path(&format!("guest-examples/prebuilt/{name}.wasm"));
        let error = loader.load(&file, config, Limits::default()).await.unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}
