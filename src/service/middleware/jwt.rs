//! `jwt`: a signed token (RFC 7519) against the issuer's public keys (RFC 7517), as RFC 8725 wants it checked: only
//! algorithms that were allowed, only asymmetric ones, each with a key of its own kind.

use super::Read;
use super::basic::{check_realm, realm};
use super::request_id::check_header;
use crate::base::duration;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The largest set of keys, bytes, and the most keys in it.
const BYTES: u64 = 1 << 20;
const MOST_KEYS: usize = 100;
/// The largest token, bytes.
const TOKEN: usize = 16 << 10;
/// The most keys that are tried for a token that does not say which.
const TRIED: usize = 8;
/// The most that clocks may differ.
const LEEWAY: Duration = Duration::from_secs(3600);

/// What is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The issuer's keys, a JSON Web Key Set; relative to the configuration's folder. Read again when it changes.
    jwks_file: PathBuf,
    /// Who must have issued it (`iss`); none: anybody who has one of the keys.
    issuer: Option<String>,
    /// Whom it must be for (`aud`), one of these; empty: anybody.
    #[serde(default, deserialize_with = "one_or_more")]
    audience: Vec<String>,
    /// Algorithms that are taken.
    #[serde(default = "algorithms")]
    algorithms: Vec<Algorithm>,
    /// How much clocks may differ.
    #[serde(default = "leeway", with = "duration")]
    leeway: Duration,
    /// Claims that must be there beside `exp`, and beside `iss` and `aud` where those are checked.
    #[serde(default)]
    require: Vec<String>,
    /// A cookie that may have the token instead of `authorization: Bearer`.
    cookie: Option<String>,
    /// Headers in which the endpoint is told claims: by header. Text as it is, anything else as JSON.
    #[serde(default = "headers")]
    headers: BTreeMap<String, String>,
    /// The endpoint gets the token, too.
    #[serde(default = "yes")]
    forward: bool,
    /// What a client without a token is told.
    #[serde(default = "realm")]
    realm: String,
}

fn algorithms() -> Vec<Algorithm> {
    ASYMMETRIC.to_vec()
}

fn leeway() -> Duration {
    Duration::from_secs(30)
}

fn headers() -> BTreeMap<String, String> {
    [("x-auth-subject".to_owned(), "sub".to_owned())].into()
}

fn yes() -> bool {
    true
}

fn one_or_more<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "text, or a list of texts")]
    enum Given {
        One(String),
        More(Vec<String>),
    }
    Ok(match Given::deserialize(from)? {
        Given::One(one) => vec![one],
        Given::More(more) => more,
    })
}

/// Whoever checks with these cannot sign.
const ASYMMETRIC: [Algorithm; 9] = [
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

/// How tokens are checked.
#[derive(Debug)]
pub struct Jwt {
    /// Headers in which the endpoint is told claims, with the claim.
    pub headers: Vec<(String, String)>,
    /// A cookie that may have the token.
    pub cookie: Option<String>,
    /// The endpoint gets the token, too.
    pub forward: bool,
    realm: String,
    keys: Vec<Key>,
    validation: Validation,
    require: Vec<String>,
}

/// One of the issuer's keys.
struct Key {
    id: Option<String>,
    /// What it is for, if it says so.
    algorithm: Option<Algorithm>,
    key: DecodingKey,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({:?})", self.id)
    }
}

/// Claims that were verified.
pub type Claims = Map<String, Value>;

impl Settings {
    /// Reads the keys.
    ///
    /// # Errors
    /// What is wrong with which key.
    pub(super) fn check(self, folder: &Path, read: &mut Read) -> Result<Jwt, String> {
        check_realm(&self.realm)?;
        if self.algorithms.is_empty() {
            return Err("algorithms: is empty; leave it out, or name one like `RS256`".to_owned());
        }
        if let Some(bad) = self.algorithms.iter().find(|algorithm| !ASYMMETRIC.contains(algorithm)) {
            return Err(format!(
                "algorithms: `{bad:?}` needs a secret that could also sign; name one like `RS256` or `ES256`"
            ));
        }
        if self.leeway > LEEWAY {
            return Err("leeway: more than `1h` would be no check".to_owned());
        }
        self.headers.keys().try_for_each(|header| check_header("headers", header))?;
        let text = read.text("jwks_file", folder.join(&self.jwks_file), BYTES)?;
        let keys = keys(&text).map_err(|problem| format!("jwks_file {}: {problem}", self.jwks_file.display()))?;
        let mut validation = Validation::new(Algorithm::RS256);
        validation.algorithms = self.algorithms;
        validation.leeway = self.leeway.as_secs();
        validation.validate_nbf = true;
        validation.validate_aud = !self.audience.is_empty();
        let mut required = vec!["exp"];
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        if !self.audience.is_empty() {
            validation.set_audience(&self.audience);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        Ok(Jwt {
            headers: self.headers.into_iter().collect(),
            cookie: self.cookie,
            forward: self.forward,
            realm: self.realm,
            keys,
            validation,
            require: self.require,
        })
    }
}

/// The keys of a set that can check signatures; others in it are for somebody else.
fn keys(text: &str) -> Result<Vec<Key>, String> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Value>,
    }
    let set: Set = serde_json::from_str(text).map_err(|error| format!("is no JSON Web Key Set: {error}"))?;
    if set.keys.len() > MOST_KEYS {
        return Err(format!("has {} keys, and {MOST_KEYS} are the most", set.keys.len()));
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

    fn can(&self, algorithm: Algorithm) -> bool {
        self.algorithm.is_none_or(|own| own == algorithm) && self.key.family().algorithms().contains(&algorithm)
    }
}

/// Why a token is not taken, in the words that a client gets.
pub type Problem = &'static str;

impl Jwt {
    /// The claims of a token.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn verify(&self, token: &[u8]) -> Result<Claims, Problem> {
        if token.len() > TOKEN {
            return Err("the token is too large");
        }
        // It also knows no `none`, and no critical extensions.
        let header = decode_header(token).map_err(|_| "this is no token that can be read")?;
        if !self.validation.algorithms.contains(&header.alg) {
            return Err("the token's algorithm is not allowed");
        }
        let fits = |key: &&Key| key.can(header.alg) && (header.kid.is_none() || key.id == header.kid);
        // The library wants all that are allowed to be of one family.
        let validation = Validation { algorithms: vec![header.alg], ..self.validation.clone() };
        let mut problem = "the token's key is not known";
        for key in self.keys.iter().filter(fits).take(TRIED) {
            match decode::<Claims>(token, &key.key, &validation) {
                Ok(data) => return self.has_all(data.claims),
                Err(error) => problem = told(error.kind()),
            }
        }
        Err(problem)
    }

    fn has_all(&self, claims: Claims) -> Result<Claims, Problem> {
        let there = |name: &String| claims.get(name).is_some_and(|value| !value.is_null());
        if self.require.iter().all(there) { Ok(claims) } else { Err("the token lacks a claim that is required") }
    }

    /// What a client is told (RFC 6750 §3): nothing of an error if it showed no token.
    pub fn challenge(&self, problem: Option<Problem>) -> String {
        let realm = &self.realm;
        match problem {
            None => format!("Bearer realm=\"{realm}\""),
            Some(problem) => {
                format!("Bearer realm=\"{realm}\", error=\"invalid_token\", error_description=\"{problem}\"")
            }
        }
    }
}

fn told(kind: &ErrorKind) -> Problem {
    match kind {
        ErrorKind::ExpiredSignature => "the token has expired",
        ErrorKind::ImmatureSignature => "the token is not valid yet",
        ErrorKind::InvalidIssuer => "the token has another issuer",
        ErrorKind::InvalidAudience => "the token is for somebody else",
        ErrorKind::MissingRequiredClaim(_) => "the token lacks a claim that is required",
        ErrorKind::InvalidSignature => "the token's signature is wrong",
        _ => "this is no token that can be read",
    }
}

/// The token of an `Authorization` line (RFC 6750 §2.1).
pub fn bearer(line: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = line.split_at_checked(7)?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

/// A claim as it stands in a header; none: it cannot.
pub fn text(value: &Value) -> Option<String> {
    let text = match value {
        Value::Null => return None,
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    (text.len() <= 4096 && !text.bytes().any(|byte| byte.is_ascii_control())).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RSA: &str = r#"{"kty":"RSA","kid":"a","n":"sXchvnTHN8vL","e":"AQAB"}"#;

    #[test]
    fn symmetric_keys_and_keys_for_something_else_are_left_out() {
        let set = |keys: &str| keys_of(&format!("{{\"keys\":[{keys}]}}"));
        fn keys_of(text: &str) -> Result<usize, String> {
            keys(text).map(|keys| keys.len())
        }
        let others = r#"{"kty":"oct","k":"AAAA"},{"kty":"new"},{"kty":"RSA","use":"enc","n":"sXch","e":"AQAB"},{"kty":"EC","crv":"secp256k1","x":"","y":""},1"#;
        assert_eq!(set(&format!("{RSA},{others}")), Ok(1));
        assert_eq!(set(others), Err("has no key that can check a signature (RSA, EC or OKP)".to_owned()));
        assert!(set(&vec![RSA; 101].join(",")).unwrap_err().starts_with("has 101 keys"));
        assert!(keys_of("{}").unwrap_err().starts_with("is no JSON Web Key Set"));
    }

    #[test]
    fn an_algorithm_that_needs_a_secret_is_refused() {
        let settings: Settings = toml::from_str("jwks_file = 'a'\nalgorithms = ['HS256']").unwrap();
        let problem = settings.check(Path::new("/"), &mut Read::default()).unwrap_err();
        assert!(problem.starts_with("algorithms: `HS256` needs a secret"), "{problem}");
        assert!(toml::from_str::<Settings>("jwks_file = 'a'\nalgorithms = ['none']").is_err());
    }

    proptest! {
        #[test]
        fn whatever_comes_is_no_token(token: Vec<u8>, dotted in "[a-zA-Z0-9_=-]{0,40}\\.[a-zA-Z0-9_-]{0,40}\\.[a-z]{0,9}") {
            let jwt = Jwt {
                headers: vec![],
                cookie: None,
                forward: true,
                realm: String::new(),
                keys: keys(&format!("{{\"keys\":[{RSA}]}}")).unwrap(),
                validation: Validation::new(Algorithm::RS256),
                require: vec![],
            };
            prop_assert!(jwt.verify(&token).is_err());
            prop_assert!(jwt.verify(dotted.as_bytes()).is_err());
            let _ = bearer(&token);
        }
    }
}
