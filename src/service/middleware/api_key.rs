//! `api_key`: a key in a header or in the query, of those that a file lists. Looked up by its SHA-256, so that the time it
//! takes says nothing of any key.

use super::Read;
use super::basic::{check_realm, realm, subject};
use super::request_id::check_header;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The largest file, bytes.
const BYTES: u64 = 16 << 20;
/// The shortest key, bytes: shorter ones can be guessed.
const SHORTEST: usize = 16;

/// What is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Lines `ID: KEY` or `ID: SHA-256 OF IT IN HEX`; relative to the configuration's folder.
    file: PathBuf,
    /// The header that has the key, like `x-api-key`; this or `query`.
    header: Option<String>,
    /// The query parameter that has it. It never goes on, and stands in no log.
    query: Option<String>,
    /// What a client without a key is told.
    #[serde(default = "realm")]
    realm: String,
    /// The header in which the endpoint is told the key's id.
    #[serde(default = "subject")]
    subject: String,
    /// The endpoint gets the key's header, too.
    #[serde(default)]
    forward: bool,
}

/// Where the key stands.
#[derive(Debug, PartialEq, Eq)]
pub enum Place {
    /// In this header.
    Header(String),
    /// In this parameter of the query.
    Query(String),
}

/// Whose key opens.
#[derive(Debug)]
pub struct ApiKey {
    /// Where it stands.
    pub place: Place,
    /// What a client without one is told.
    pub challenge: String,
    /// The header in which the endpoint is told the key's id.
    pub subject: String,
    /// The endpoint gets the key's header, too.
    pub forward: bool,
    keys: HashMap<[u8; 32], Arc<str>>,
}

impl Settings {
    /// Reads the file.
    ///
    /// # Errors
    /// What is wrong with which key or line; no key is quoted.
    pub(super) fn check(self, folder: &Path, read: &mut Read) -> Result<ApiKey, String> {
        check_realm(&self.realm)?;
        check_header("subject", &self.subject)?;
        let place = match (self.header, self.query) {
            (Some(header), None) => {
                check_header("header", &header)?;
                Place::Header(header)
            }
            (None, Some(query)) if query.is_empty() => return Err("query: is empty; name a parameter".to_owned()),
            (None, Some(_)) if self.forward => return Err("forward: a key in the query never goes on".to_owned()),
            (None, Some(query)) => Place::Query(query),
            _ => return Err("needs either `header` or `query`, where the key stands".to_owned()),
        };
        let text = read.text("file", folder.join(&self.file), BYTES)?;
        let keys = keys(&text).map_err(|problem| format!("file {}: {problem}", self.file.display()))?;
        let challenge = format!("ApiKey realm=\"{}\"", self.realm);
        Ok(ApiKey { place, challenge, subject: self.subject, forward: self.forward, keys })
    }
}

fn keys(text: &str) -> Result<HashMap<[u8; 32], Arc<str>>, String> {
    let mut keys = HashMap::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'))
    {
        let at = |problem: &str| format!("line {}: {problem}", number + 1);
        let (id, key) = line.split_once(':').ok_or_else(|| at("is not `ID: KEY`"))?;
        let (id, key) = (id.trim(), key.trim());
        // It goes into a header.
        if id.is_empty() || id.len() > 255 || id.bytes().any(|byte| byte.is_ascii_control()) {
            return Err(at("the id is empty, too long, or has control characters"));
        }
        let digest = match digest(key) {
            Some(digest) => digest,
            None if key.len() < SHORTEST => return Err(at("the key is shorter than 16 bytes")),
            None => Sha256::digest(key).into(),
        };
        if keys.insert(digest, id.into()).is_some() {
            return Err(at("the key stands there twice"));
        }
    }
    if keys.is_empty() { Err("there is no key in it".to_owned()) } else { Ok(keys) }
}

/// 64 hex digits.
fn digest(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    let good = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    good.then_some(digest)
}

impl ApiKey {
    /// The id of this key.
    pub fn id(&self, key: &[u8]) -> Option<&Arc<str>> {
        self.keys.get(&<[u8; 32]>::from(Sha256::digest(key)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_are_found_by_what_they_are_or_by_their_digest() {
        let hashed =
            Sha256::digest("a key that stands in no file").iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let keys = keys(&format!("# partners\nshop: 0123456789abcdef\nbank:{hashed}\n")).unwrap();
        let id = |key: &str| keys.get(&<[u8; 32]>::from(Sha256::digest(key))).map(|id| &**id);
        assert_eq!(id("0123456789abcdef"), Some("shop"));
        assert_eq!(id("a key that stands in no file"), Some("bank"));
        // Whoever reads the file has no key of it.
        assert_eq!(id(&hashed), None);
        assert_eq!(id(""), None);
    }

    #[test]
    fn what_is_wrong_is_told_by_its_line_and_not_quoted() {
        for (text, problem) in [
            ("", "there is no key in it"),
            ("0123456789abcdef", "line 1: is not `ID: KEY`"),
            ("a: short", "line 1: the key is shorter than 16 bytes"),
            (": 0123456789abcdef", "line 1: the id is empty"),
            ("a: 0123456789abcdef\nb: 0123456789abcdef", "line 2: the key stands there twice"),
        ] {
            let told = keys(text).unwrap_err();
            assert!(told.starts_with(problem) && !told.contains("abcdef"), "{told}");
        }
    }

    proptest! {
        #[test]
        fn any_file_is_read_or_refused(text in ".{0,200}") {
            let _ = keys(&text);
        }
    }
}
