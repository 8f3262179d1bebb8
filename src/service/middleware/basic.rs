//! `basic`: name and password (RFC 7617) against a file as `htpasswd` writes it. To verify a password is slow on purpose,
//! so it is done aside, few at a time, and what was right is known for a while.

mod hash;

use super::Read;
use super::request_id::check_header;
use arc_swap::ArcSwap;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hash::{Hash, users};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// The largest file, bytes.
const BYTES: u64 = 4 << 20;
/// More of a password is refused, bytes: bcrypt itself looks at no more.
const PASSWORD: usize = 72;
/// Passwords that are verified at once, by the whole gateway.
static VERIFYING: Semaphore = Semaphore::const_new(2);
/// Requests that wait for it; one more is told to come again.
const WAITING: usize = 256;
static WAIT: AtomicUsize = AtomicUsize::new(0);
/// What was right is known for so long, and that of so many.
const KNOWN_FOR: Duration = Duration::from_secs(300);
const KNOWN: usize = 1024;

/// What is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Lines `NAME:HASH`, bcrypt (`htpasswd -B`) or `$5$` and `$6$` of SHA-crypt; relative to the configuration's folder.
    file: PathBuf,
    /// What clients show when they ask for the password.
    #[serde(default = "realm")]
    realm: String,
    /// The header in which the endpoint is told the name.
    #[serde(default = "subject")]
    header: String,
    /// The endpoint gets `authorization`, too.
    #[serde(default)]
    forward: bool,
}

pub(super) fn realm() -> String {
    "wayside".to_owned()
}

pub(super) fn subject() -> String {
    "x-auth-subject".to_owned()
}

/// A realm can stand between quotes.
pub(super) fn check_realm(realm: &str) -> Result<(), String> {
    let good = realm.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\');
    if good { Ok(()) } else { Err("realm: may have printable ASCII but `\"` and `\\`".to_owned()) }
}

/// Who may come in.
#[derive(Debug)]
pub struct Basic {
    /// What a client without a right password is told.
    pub challenge: String,
    /// The header in which the endpoint is told the name.
    pub header: String,
    /// The endpoint gets `authorization`, too.
    pub forward: bool,
    users: HashMap<String, Hash>,
    /// What strangers are verified against, so that it takes as long as for a name that there is.
    decoy: Hash,
    /// Salted digests of what was right, and until when it counts.
    known: ArcSwap<HashMap<[u8; 32], Instant>>,
    salt: [u64; 2],
}

/// Too many passwords wait to be verified.
#[derive(Debug, PartialEq, Eq)]
pub struct Busy;

impl Settings {
    /// Reads the file.
    ///
    /// # Errors
    /// What is wrong with which key or line; no hash is quoted.
    pub(super) fn check(self, folder: &Path, read: &mut Read) -> Result<Basic, String> {
        check_header("header", &self.header)?;
        check_realm(&self.realm)?;
        let text = read.text("file", folder.join(&self.file), BYTES)?;
        let told = |problem| format!("file {}: {problem}", self.file.display());
        let users = users(&text).map_err(told)?;
        let Some(decoy) = users.values().next().cloned() else { return Err(told("nobody stands in it".to_owned())) };
        Ok(Basic {
            challenge: format!("Basic realm=\"{}\", charset=\"UTF-8\"", self.realm),
            header: self.header,
            forward: self.forward,
            users,
            decoy,
            known: ArcSwap::default(),
            salt: [RandomState::new().hash_one(1), RandomState::new().hash_one(2)],
        })
    }
}

/// Name and password of an `Authorization` line (RFC 7617 §2).
pub fn credentials(line: &[u8]) -> Option<(String, Vec<u8>)> {
    let (scheme, token) = line.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let mut decoded = BASE64_STANDARD.decode(token.trim_ascii()).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let password = decoded.split_off(colon + 1);
    decoded.pop();
    let name = String::from_utf8(decoded).ok()?;
    (password.len() <= PASSWORD && !password.contains(&0)).then_some((name, password))
}

impl Basic {
    /// Is this the name's password?
    ///
    /// # Errors
    /// Too many wait.
    pub async fn verify(self: &Arc<Self>, name: &str, password: Vec<u8>) -> Result<bool, Busy> {
        let digest = self.digest(name, &password);
        if self.is_known(&digest) {
            return Ok(true);
        }
        let Some(_place) = Place::take() else { return Err(Busy) };
        let permit = VERIFYING.acquire().await.map_err(|_| Busy)?;
        // Many come at once with the same, as a browser's requests do.
        if self.is_known(&digest) {
            return Ok(true);
        }
        let found = self.users.get(name);
        let (hash, is_user) = (found.unwrap_or(&self.decoy).clone(), found.is_some());
        let verified = tokio::task::spawn_blocking(move || {
            let right = hash.verify(&password);
            drop(permit);
            right
        });
        let right = verified.await.map_err(|_| Busy)? && is_user;
        if right {
            self.know(digest, Instant::now());
        }
        Ok(right)
    }

    fn digest(&self, name: &str, password: &[u8]) -> [u8; 32] {
        let mut digest = Sha256::new();
        self.salt.iter().for_each(|salt| digest.update(salt.to_le_bytes()));
        digest.update((name.len() as u64).to_le_bytes());
        digest.update(name);
        digest.update(password);
        digest.finalize().into()
    }

    fn is_known(&self, digest: &[u8; 32]) -> bool {
        self.known.load().get(digest).is_some_and(|until| Instant::now() < *until)
    }

    fn know(&self, digest: [u8; 32], now: Instant) {
        self.known.rcu(|known| {
            let mut known = HashMap::clone(known);
            known.retain(|_, until| now < *until);
            if known.len() >= KNOWN
                && let Some(oldest) = known.iter().min_by_key(|(_, until)| **until).map(|(digest, _)| *digest)
            {
                known.remove(&oldest);
            }
            known.insert(digest, now + KNOWN_FOR);
            known
        });
    }
}

/// A place among those who wait.
struct Place;

impl Place {
    fn take() -> Option<Self> {
        let place = Place;
        // Given back by the drop, also where there was none.
        (WAIT.fetch_add(1, Relaxed) < WAITING).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        WAIT.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn basic(text: &str) -> Result<Arc<Basic>, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("users"), text).unwrap();
        let settings: Settings = toml::from_str("file = 'users'").unwrap();
        settings.check(folder.path(), &mut Read::default()).map(Arc::new)
    }

    // `openssl passwd -6 -salt saltsalt secret` and `openssl passwd -5 -salt saltsalt secret`.
    const SHA512: &str =
        "$6$saltsalt$pXECmQ0eVWNIG3BSL4zJC1vKRbtOj.i6ItYyOHXHjGUQJOHNRhGeqHMHRHy5KYSkhHNzT/Y3lHXwPjFTqyLRB1";

    #[tokio::test]
    async fn the_right_password_comes_in_and_no_other() {
        let hash = bcrypt::hash("secret", 4).unwrap();
        let basic = basic(&format!("# people\nada:{hash}\n\nbob:{}\n", bcrypt::hash("other", 4).unwrap())).unwrap();
        for (name, password, right) in [
            ("ada", "secret", true),
            ("ada", "secret", true),
            ("bob", "secret", false),
            ("eve", "secret", false),
            ("ada", "", false),
        ] {
            assert_eq!(basic.verify(name, password.into()).await, Ok(right), "{name} {password}");
        }
        assert_eq!(basic.known.load().len(), 1);
        assert_eq!(WAIT.load(Relaxed), 0);
    }

    #[test]
    fn what_is_weak_or_dear_is_refused_by_its_line_and_not_quoted() {
        for (line, problem) in [
            ("ada:$apr1$abc$def", "line 1: MD5 is too weak"),
            ("ada:{SHA}abc", "line 1: is no hash that is taken"),
            ("ada:secret", "line 1: is no hash that is taken"),
            ("ada", "line 1: is not `NAME:HASH`"),
            (":x", "line 1: the name is empty"),
            ("ada:$2y$10$short", "line 1: is no hash of bcrypt"),
            ("ada:$6$rounds=2000000$a$b", "line 1: its rounds are 2000000"),
            ("\n# nobody", "nobody stands in it"),
        ] {
            let told = basic(line).unwrap_err();
            assert!(told.starts_with(&format!("file users: {problem}")) && !told.contains("secret"), "{told}");
        }
        let dear = bcrypt::hash("a", 4).unwrap().replace("$04$", "$15$");
        assert!(basic(&format!("a:{dear}")).unwrap_err().contains("its cost is 15"));
        assert!(Hash::parse(SHA512).is_ok());
    }

    #[test]
    fn what_was_right_is_known_for_a_while_and_of_few() {
        let basic = basic(&format!("ada:{}", bcrypt::hash("a", 4).unwrap())).unwrap();
        let now = Instant::now();
        for number in 0..KNOWN + 10 {
            basic.know(basic.digest("ada", number.to_string().as_bytes()), now);
        }
        assert_eq!(basic.known.load().len(), KNOWN);
        basic.know([0; 32], now + KNOWN_FOR);
        assert_eq!(basic.known.load().len(), 1);
    }

    proptest! {
        #[test]
        fn credentials_are_read_back_and_nothing_panics(name in "[a-z]{0,9}", password in "[ -~]{0,90}", bytes: Vec<u8>) {
            let line = format!("bAsic {}", BASE64_STANDARD.encode(format!("{name}:{password}")));
            let read = credentials(line.as_bytes());
            prop_assert_eq!(read, (password.len() <= PASSWORD).then(|| (name, password.into_bytes())));
            let _ = credentials(&bytes);
        }
    }
}
