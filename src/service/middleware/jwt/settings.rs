//! What the configuration says of tokens and of the keys that they are checked with.

use super::Jwt;
use super::keys::{ASYMMETRIC, BYTES, KeySet, Remote};
use crate::base::duration;
use crate::service::middleware::Read;
use crate::service::middleware::basic::{check_realm, realm};
use crate::service::middleware::request_id::check_header;
use jsonwebtoken::{Algorithm, Validation};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How often keys can be fetched.
const REFRESH: RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_secs(24 * 3600);
/// The most that clocks may differ.
const LEEWAY: Duration = Duration::from_secs(3600);

/// What is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The issuer's keys, a JSON Web Key Set; relative to the configuration's folder. Read again when it changes. This or
    /// `jwks_url`.
    jwks_file: Option<PathBuf>,
    /// The same by URL, which is fetched again and again; while that fails, the last good keys stay.
    jwks_url: Option<String>,
    /// From one time to the next.
    #[serde(default = "refresh", with = "duration")]
    jwks_refresh: Duration,
    /// Authorities that the URL's server is trusted by; none: the system's.
    ca: Option<PathBuf>,
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

fn refresh() -> Duration {
    Duration::from_secs(600)
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

impl Settings {
    /// Reads the keys.
    ///
    /// # Errors
    /// What is wrong with which key.
    pub(in crate::service::middleware) fn check(self, folder: &Path, read: &mut Read) -> Result<Jwt, String> {
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
        let keys = match (&self.jwks_file, self.jwks_url) {
            (Some(file), None) if self.ca.is_none() => {
                let text = read.text("jwks_file", folder.join(file), BYTES as u64)?;
                KeySet::read(&text).map_err(|problem| format!("jwks_file {}: {problem}", file.display()))?
            }
            (Some(_), None) => return Err("ca: is for `jwks_url`".to_owned()),
            (None, Some(url)) => {
                check_url(&url).map_err(|problem| format!("jwks_url: {problem}"))?;
                if !REFRESH.contains(&self.jwks_refresh) {
                    return Err("jwks_refresh: must be from 10s to 1day".to_owned());
                }
                let ca = self.ca.map(|file| read.text("ca", folder.join(file), BYTES as u64)).transpose()?;
                KeySet::at(Remote { url, ca, refresh: self.jwks_refresh })
            }
            _ => return Err("needs either `jwks_file` or `jwks_url`, where the issuer's keys stand".to_owned()),
        };
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
            keys: Arc::new(keys),
            realm: self.realm,
            validation,
            require: self.require,
        })
    }
}

/// Whoever can put keys of their own in the place of the issuer's can sign whatever they like.
fn check_url(url: &str) -> Result<(), &'static str> {
    let parsed: http::Uri = url.parse().map_err(|_| "is no URL, like `https://id.example/keys`")?;
    let host = parsed.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if parsed.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("a password does not belong in a URL");
    }
    match parsed.scheme_str() {
        _ if host.is_empty() => Err("names no host"),
        Some("https") => Ok(()),
        Some("http") if is_here => Ok(()),
        _ => Err("must begin with `https://`: over `http://`, anybody in between could put other keys there"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_algorithm_that_needs_a_secret_is_refused() {
        let settings: Settings = toml::from_str("jwks_file = 'a'\nalgorithms = ['HS256']").unwrap();
        let problem = settings.check(Path::new("/"), &mut Read::default()).unwrap_err();
        assert!(problem.starts_with("algorithms: `HS256` needs a secret"), "{problem}");
        assert!(toml::from_str::<Settings>("jwks_file = 'a'\nalgorithms = ['none']").is_err());
    }

    #[test]
    fn keys_stand_in_one_place_and_come_over_tls() {
        let check = |text: &str| {
            let settings: Settings = toml::from_str(text).unwrap();
            settings.check(Path::new("/"), &mut Read::default()).map(|jwt| jwt.keys.remote.clone())
        };
        for url in ["https://id.example/keys?a", "http://127.0.0.1:1/a", "http://[::1]/", "http://localhost/a"] {
            let remote = check(&format!("jwks_url = '{url}'")).unwrap().unwrap();
            assert_eq!((&*remote.url, remote.refresh), (url, Duration::from_secs(600)));
        }
        for (text, problem) in [
            ("", "needs either `jwks_file` or `jwks_url`"),
            ("jwks_file = 'a'\njwks_url = 'https://a/'", "needs either"),
            ("jwks_file = 'a'\nca = 'b'", "ca: is for `jwks_url`"),
            ("jwks_url = 'http://id.example/keys'", "jwks_url: must begin with `https://`"),
            ("jwks_url = 'http://127.0.0.1.example/keys'", "jwks_url: must begin with `https://`"),
            ("jwks_url = 'http://localhost@a/'", "jwks_url: a password does not belong"),
            ("jwks_url = 'ftp://a/'", "jwks_url: must begin"),
            ("jwks_url = '/keys'", "jwks_url: names no host"),
            ("jwks_url = 'a b'", "jwks_url: is no URL"),
            ("jwks_url = 'https://a/'\njwks_refresh = '1s'", "jwks_refresh: must be from 10s"),
            ("jwks_url = 'https://a/'\nca = '/nowhere.pem'", "ca /nowhere.pem: cannot be read"),
        ] {
            let told = check(text).unwrap_err();
            assert!(told.starts_with(problem), "{told}");
        }
    }
}
