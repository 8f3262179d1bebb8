//! `jwt`: a signed token (RFC 7519) against the issuer's public keys (RFC 7517), as RFC 8725 wants it checked: only
//! algorithms that were allowed, only asymmetric ones, each with a key of its own kind.

mod keys;
mod settings;

pub use keys::{BYTES, KeySet, Remote};
pub use settings::Settings;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Validation, decode, decode_header};
use serde_json::{Map, Value};
use std::sync::Arc;

/// The largest token, bytes.
const TOKEN: usize = 16 << 10;
/// The most keys that are tried for a token that does not say which.
const TRIED: usize = 8;

/// How tokens are checked.
#[derive(Debug, Clone)]
pub struct Jwt {
    /// Headers in which the endpoint is told claims, with the claim.
    pub headers: Vec<(String, String)>,
    /// A cookie that may have the token.
    pub cookie: Option<String>,
    /// The endpoint gets the token, too.
    pub forward: bool,
    /// The issuer's.
    pub keys: Arc<KeySet>,
    realm: String,
    validation: Validation,
    require: Vec<String>,
}

/// Claims that were verified.
pub type Claims = Map<String, Value>;

/// Why a token is not taken, in the words that a client gets.
pub type Problem = &'static str;

/// A token that is not taken.
#[derive(Debug, PartialEq, Eq)]
pub enum Untaken {
    /// Whether it is good is not known: no keys are there yet.
    NoKeys,
    /// It is not good.
    Bad(Problem),
}

impl From<Problem> for Untaken {
    fn from(problem: Problem) -> Self {
        Untaken::Bad(problem)
    }
}

impl Jwt {
    /// The same with these keys.
    #[must_use]
    pub fn with(&self, keys: Arc<KeySet>) -> Self {
        Jwt { keys, ..self.clone() }
    }

    /// The claims of a token.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn verify(&self, token: &[u8]) -> Result<Claims, Untaken> {
        if token.len() > TOKEN {
            return Err(Untaken::Bad("the token is too large"));
        }
        // It also knows no `none`, and no critical extensions.
        let header = decode_header(token).map_err(|_| "this is no token that can be read")?;
        if !self.validation.algorithms.contains(&header.alg) {
            return Err(Untaken::Bad("the token's algorithm is not allowed"));
        }
        let keys = self.keys.keys();
        if keys.is_empty() {
            return Err(Untaken::NoKeys);
        }
        let fits = |key: &&keys::Key| key.can(header.alg) && (header.kid.is_none() || key.id == header.kid);
        // The library wants all that are allowed to be of one family.
        let validation = Validation { algorithms: vec![header.alg], ..self.validation.clone() };
        let mut problem = None;
        for key in keys.iter().filter(fits).take(TRIED) {
            match decode::<Claims>(token, &key.key, &validation) {
                Ok(data) => return Ok(self.has_all(data.claims)?),
                Err(error) => problem = Some(told(error.kind())),
            }
        }
        if problem.is_none() {
            self.keys.misses();
        }
        Err(Untaken::Bad(problem.unwrap_or("the token's key is not known")))
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
    use jsonwebtoken::Algorithm;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_comes_is_no_token(token: Vec<u8>, dotted in "[a-zA-Z0-9_=-]{0,40}\\.[a-zA-Z0-9_-]{0,40}\\.[a-z]{0,9}") {
            let jwt = Jwt {
                headers: vec![],
                cookie: None,
                forward: true,
                realm: String::new(),
                keys: Arc::new(KeySet::read(&format!("{{\"keys\":[{}]}}", keys::RSA)).unwrap()),
                validation: Validation::new(Algorithm::RS256),
                require: vec![],
            };
            prop_assert!(jwt.verify(&token).is_err());
            prop_assert!(jwt.verify(dotted.as_bytes()).is_err());
            let _ = bearer(&token);
        }
    }
}
