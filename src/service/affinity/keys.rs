//! The keys of a fleet: a file with one key a line, in hex or in base64. The first one signs, all of them verify. So keys
//! are changed without losing a session: the new one is added to the file of every gateway, then put first in each, and the
//! old one goes when what it has signed is too old.

use crate::base::{digest, files};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
use std::path::PathBuf;

/// The largest file, bytes, and the most keys in it.
const BYTES: u64 = 64 << 10;
const MOST: usize = 8;
/// A key's bytes: at least 128 bits.
const LEAST: usize = 16;
const LONGEST: usize = 64;

/// Names a key without telling it.
pub(super) type Id = [u8; 4];

/// One key, as it is used.
pub(super) struct Key {
    pub(super) id: Id,
    /// Signs cookies.
    pub(super) mac: hmac::Key,
    /// Seals sessions.
    pub(super) aead: XChaCha20Poly1305,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({})", self.name())
    }
}

/// All of a file, in its order.
#[derive(Debug)]
pub struct Keys {
    pub(super) all: Vec<Key>,
    /// What they were read from.
    pub file: PathBuf,
    /// Of what stood there: 12 hex digits.
    pub digest: String,
}

impl Keys {
    /// Reads a file.
    ///
    /// # Errors
    /// What is wrong with it, or with which line; no key is quoted.
    pub(super) fn read(file: PathBuf) -> Result<Self, String> {
        let text = files::read_text(&file, BYTES).map_err(|error| format!("cannot be read: {error}"));
        let read = text.and_then(|text| Ok((keys(&text)?, digest::short(text.as_bytes()))));
        let (all, digest) = read.map_err(|problem| format!("{}: {problem}", file.display()))?;
        Ok(Keys { all, file, digest })
    }

    /// For tests: those of this text.
    #[cfg(test)]
    pub(super) fn of(text: &str) -> Self {
        let digest = digest::short(text.as_bytes());
        Keys { all: keys(text).unwrap(), file: PathBuf::new(), digest }
    }

    /// What they are called, which tells nothing of them: gateways of a fleet have the same.
    pub fn names(&self) -> impl Iterator<Item = String> {
        self.all.iter().map(Key::name)
    }

    /// The one that signs.
    pub(super) fn first(&self) -> Option<&Key> {
        self.all.first()
    }

    /// The one that is called so.
    pub(super) fn find(&self, id: Id) -> Option<&Key> {
        self.all.iter().find(|key| key.id == id)
    }
}

fn keys(text: &str) -> Result<Vec<Key>, String> {
    let mut keys: Vec<Key> = Vec::new();
    let lines = text.lines().map(str::trim).enumerate();
    for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        let at = |problem: &str| format!("line {}: {problem}", number + 1);
        let bytes =
            bytes(line).ok_or_else(|| at("is no key in hex or base64; make one with `openssl rand -hex 32`"))?;
        if !(LEAST..=LONGEST).contains(&bytes.len()) {
            return Err(at("the key is not 16 to 64 bytes long; make one with `openssl rand -hex 32`"));
        }
        let key = Key::new(&bytes);
        if keys.iter().any(|other| other.id == key.id) {
            return Err(at("the key stands there twice"));
        }
        keys.push(key);
    }
    match keys.len() {
        0 => Err("there is no key in it; make one with `openssl rand -hex 32`".to_owned()),
        1..=MOST => Ok(keys),
        many => Err(format!("there are {many} keys in it, and {MOST} are the most")),
    }
}

/// Of hex digits, or else of base64 in either alphabet, with padding or without.
fn bytes(line: &str) -> Option<Vec<u8>> {
    if line.len().is_multiple_of(2) && line.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let pairs = line.as_bytes().chunks_exact(2);
        return pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect();
    }
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let of = |alphabet| GeneralPurpose::new(alphabet, config).decode(line).ok();
    of(&alphabet::STANDARD).or_else(|| of(&alphabet::URL_SAFE))
}

impl Key {
    /// Each use has a key of its own, made of the file's.
    fn new(bytes: &[u8]) -> Self {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, bytes);
        let derive = |what: &str| {
            let mut derived = [0; 32];
            let made = hmac::sign(&secret, what.as_bytes());
            derived.iter_mut().zip(made.as_ref()).for_each(|(byte, made)| *byte = *made);
            derived
        };
        let [one, two, three, four, ..] = derive("wayside sticky: id");
        Key {
            id: [one, two, three, four],
            mac: hmac::Key::new(hmac::HMAC_SHA256, &derive("wayside sticky: cookie")),
            aead: XChaCha20Poly1305::new(&derive("wayside sticky: header").into()),
        }
    }

    fn name(&self) -> String {
        self.id.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_key_is_the_same_in_any_spelling_and_a_wrong_one_is_named_by_its_line() {
        let spellings = [
            "ffeeffeeffeeffeeffeeffeeffeeffee",
            "FFEEFFEEFFEEFFEEFFEEFFEEFFEEFFEE",
            "  /+7/7v/u/+7/7v/u/+7/7g==\r",
            "_-7_7v_u_-7_7v_u_-7_7g",
        ];
        let ids: Vec<_> = spellings.iter().map(|text| Keys::of(text).all[0].id).collect();
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        let good = "# of 2026\n\nffeeffeeffeeffeeffeeffeeffeeffee\n00112233445566778899aabbccddeeff\n";
        assert_eq!(Keys::of(good).all.len(), 2);
        let many: String = (0..9).map(|number| format!("{number:032x}\n")).collect();
        for (text, problem) in [
            ("", "there is no key in it"),
            ("# none\n", "there is no key in it"),
            (&format!("{good}hunter2!"), "line 5: is no key in hex or base64"),
            ("00ff", "line 1: the key is not 16 to 64 bytes long"),
            (&format!("{good}{good}"), "line 7: the key stands there twice"),
            (&many, "there are 9 keys in it, and 8 are the most"),
        ] {
            let told = keys(text).unwrap_err();
            assert!(told.starts_with(problem) && !told.contains("hunter2"), "{told}");
        }
        assert!(!format!("{:?}", Keys::of(good)).contains("ffee"));
    }

    proptest! {
        #[test]
        fn whatever_stands_there_is_read_or_refused(text in "[0-9a-f+/=_#\n -]{0,200}", any: String) {
            for text in [text, any] {
                if let Ok(keys) = keys(&text) {
                    prop_assert!((1..=MOST).contains(&keys.len()));
                }
            }
        }
    }
}
