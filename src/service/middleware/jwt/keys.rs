//! The public keys of who issues tokens: a JSON Web Key Set (RFC 7517) in a file, or by URL. One by URL is fetched beside
//! the requests, by whoever calls [`KeySet::replace`]; what was good last stays until something good comes, also what the
//! last process knew.

use crate::base::time::process_ms;
use arc_swap::{ArcSwap, ArcSwapOption};
use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::Notify;

/// The largest set of keys, bytes, and the most keys in it.
pub const BYTES: usize = 1 << 20;
const MOST: usize = 100;

/// Whoever checks with these cannot sign.
pub(super) const ASYMMETRIC: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// Where a set of keys is fetched, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Its URL: `https`, or this machine's own `http`.
    pub url: String,
    /// Authorities that its server is trusted by, in PEM; none: the system's.
    pub ca: Option<String>,
    /// From one time to the next.
    pub refresh: Duration,
}

/// A set of keys as it is known now.
#[derive(Debug)]
pub struct KeySet {
    /// None: it stands in a file, and another one takes its place when that changes.
    pub remote: Option<Remote>,
    keys: ArcSwap<Vec<Key>>,
    /// Of its text.
    digest: ArcSwapOption<String>,
    /// When it was confirmed last, ms of the process; before it, where the last process knew it.
    confirmed_ms: AtomicI64,
    /// What is wrong with the newest try.
    problem: ArcSwapOption<String>,
    tried: AtomicBool,
    missed: Notify,
}

/// One of the issuer's keys.
pub(super) struct Key {
    pub(super) id: Option<String>,
    /// What it is for, if it says so.
    algorithm: Option<Algorithm>,
    pub(super) key: DecodingKey,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({:?})", self.id)
    }
}

impl KeySet {
    /// What a file says.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let set = KeySet::empty(None);
        set.replace(text)?;
        Ok(set)
    }

    /// One that is still to be fetched.
    pub(super) fn at(remote: Remote) -> Self {
        KeySet::empty(Some(remote))
    }

    fn empty(remote: Option<Remote>) -> Self {
        KeySet {
            remote,
            keys: ArcSwap::default(),
            digest: ArcSwapOption::empty(),
            confirmed_ms: AtomicI64::new(0),
            problem: ArcSwapOption::empty(),
            tried: AtomicBool::new(false),
            missed: Notify::new(),
        }
    }

    /// It says this now. True: that is something else than before.
    ///
    /// # Errors
    /// What is wrong with it; what was known stays.
    pub fn replace(&self, text: &str) -> Result<bool, String> {
        let is_new = self.says(text, Duration::ZERO).inspect_err(|problem| self.failed(problem))?;
        self.problem.store(None);
        self.tried.store(true, Relaxed);
        Ok(is_new)
    }

    /// It said this so long ago, to the process before this one. Whether it still does was not tried.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn recall(&self, text: &str, ago: Duration) -> Result<(), String> {
        self.says(text, ago).map(drop)
    }

    fn says(&self, text: &str, ago: Duration) -> Result<bool, String> {
        let keys = read(text)?;
        let digest = crate::base::digest::full(text.as_bytes());
        let is_new = self.digest.load().as_ref().is_none_or(|before| **before != digest);
        if is_new {
            self.keys.store(Arc::new(keys));
            self.digest.store(Some(Arc::new(digest)));
        }
        let ago = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
        self.confirmed_ms.store(now_ms().saturating_sub(ago), Relaxed);
        Ok(is_new)
    }

    /// It could not be fetched; what was known stays.
    pub fn failed(&self, problem: &str) {
        self.problem.store(Some(Arc::new(problem.to_owned())));
        self.tried.store(true, Relaxed);
    }

    pub(super) fn keys(&self) -> arc_swap::Guard<Arc<Vec<Key>>> {
        self.keys.load()
    }

    /// A token names a key that is not among them: there may be a newer set.
    pub(super) fn misses(&self) {
        self.missed.notify_one();
    }

    /// Waits until a token names a key that is not among them.
    pub async fn missed(&self) {
        self.missed.notified().await;
    }

    /// Somebody has tried to fetch it.
    pub fn was_tried(&self) -> bool {
        self.tried.load(Relaxed)
    }

    /// How many keys it has that can check a signature.
    pub fn len(&self) -> usize {
        self.keys.load().len()
    }

    /// None was fetched yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Time since it was confirmed last; none: it never was.
    pub fn age(&self) -> Option<Duration> {
        let known = self.digest.load().is_some();
        let age = || u64::try_from(now_ms().saturating_sub(self.confirmed_ms.load(Relaxed))).unwrap_or(0);
        known.then(|| Duration::from_millis(age()))
    }

    /// What is wrong with the newest try.
    pub fn problem(&self) -> Option<Arc<String>> {
        self.problem.load_full()
    }
}

fn now_ms() -> i64 {
    i64::try_from(process_ms()).unwrap_or(i64::MAX)
}

/// The keys of a set that can check signatures; others in it are for somebody else.
fn read(text: &str) -> Result<Vec<Key>, String> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Value>,
    }
    let set: Set = serde_json::from_str(text).map_err(|error| format!("is no JSON Web Key Set: {error}"))?;
    if set.keys.len() > MOST {
        return Err(format!("has {} keys, and {MOST} are the most", set.keys.len()));
    }
    let keys: Vec<Key> = set.keys.into_iter().filter_map(Key::read).collect();
    if keys.is_empty() { Err("has no key that can check a signature (RSA, EC or OKP)".to_owned()) } else { Ok(keys) }
}

impl Key {
    fn read(value: Value) -> Option<Self> {
        let kind = value.get("kty")?.as_str()?.to_owned();
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        let for_signing = jwk.common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature);
        // A symmetric key must not lie about in a set of public ones.
        if kind == "oct" || !for_signing {
            return None;
        }
        let algorithm = match &jwk.common.key_algorithm {
            Some(named) => Some(named.to_string().parse().ok().filter(|named| ASYMMETRIC.contains(named))?),
            None => None,
        };
        Some(Key { id: jwk.common.key_id.clone(), algorithm, key: DecodingKey::from_jwk(&jwk).ok()? })
    }

    pub(super) fn can(&self, algorithm: Algorithm) -> bool {
        self.algorithm.is_none_or(|own| own == algorithm) && self.key.family().algorithms().contains(&algorithm)
    }
}

#[cfg(test)]
pub(super) const RSA: &str = r#"{"kty":"RSA","kid":"a","n":"sXchvnTHN8vL","e":"AQAB"}"#;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn symmetric_keys_and_keys_for_something_else_are_left_out() {
        let of = |text: &str| read(text).map(|keys| keys.len());
        let set = |keys: &str| of(&format!("{{\"keys\":[{keys}]}}"));
        let others = r#"{"kty":"oct","k":"AAAA"},{"kty":"new"},{"kty":"RSA","use":"enc","n":"sXch","e":"AQAB"},{"kty":"EC","crv":"secp256k1","x":"","y":""},1"#;
        assert_eq!(set(&format!("{RSA},{others}")), Ok(1));
        assert_eq!(set(others), Err("has no key that can check a signature (RSA, EC or OKP)".to_owned()));
        assert!(set(&vec![RSA; 101].join(",")).unwrap_err().starts_with("has 101 keys"));
        assert!(of("{}").unwrap_err().starts_with("is no JSON Web Key Set"));
    }

    #[test]
    fn what_was_good_last_stays_until_something_good_comes() {
        let remote = Remote { url: "https://a/keys".into(), ca: None, refresh: Duration::from_secs(600) };
        let (set, one) = (KeySet::at(remote), format!("{{\"keys\":[{RSA}]}}"));
        assert!(set.is_empty() && !set.was_tried() && set.age().is_none());
        set.failed("nobody is there");
        assert!(set.is_empty() && set.was_tried() && set.problem().is_some());
        assert_eq!(set.replace(&one), Ok(true));
        assert!(set.len() == 1 && set.problem().is_none() && set.age().is_some());
        for bad in ["", "{", "{\"keys\":[]}", "<html>"] {
            assert!(set.replace(bad).is_err());
            assert!(set.len() == 1 && set.problem().is_some(), "{bad}");
        }
        assert_eq!((set.replace(&one), set.problem()), (Ok(false), None));
        assert!(set.age() < Some(Duration::from_secs(3600)));
        assert_eq!(set.replace(&format!("{{\"keys\":[{RSA},{RSA}]}}")), Ok(true));
    }

    #[test]
    fn what_the_last_process_knew_is_as_old_as_it_is() {
        let remote = Remote { url: "https://a/keys".into(), ca: None, refresh: Duration::from_secs(600) };
        let (set, one, day) = (KeySet::at(remote), format!("{{\"keys\":[{RSA}]}}"), Duration::from_secs(86_400));
        assert!(set.recall("{}", day).is_err() && set.is_empty() && set.age().is_none() && set.problem().is_none());
        set.recall(&one, day).unwrap();
        assert!(set.len() == 1 && !set.was_tried() && set.age() >= Some(day));
        set.failed("nobody is there");
        assert!(set.len() == 1 && set.age() >= Some(day));
        assert_eq!(set.replace(&one), Ok(false));
        assert!(set.age() < Some(day) && set.problem().is_none());
    }

    proptest! {
        #[test]
        fn whatever_a_server_says_is_read_or_refused(text in ".{0,200}", inner in "[a-zA-Z0-9\":,{}\\[\\]]{0,80}") {
            let set = KeySet::empty(None);
            let _ = set.replace(&text);
            prop_assert_eq!(set.replace(&format!("{{\"keys\":[{inner}]}}")).is_ok(), !set.is_empty());
        }
    }
}
