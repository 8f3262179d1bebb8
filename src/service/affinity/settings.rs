//! `sticky = { … }` of a service: what is written, and what it means.

use super::cookie::Cookie;
use super::keys::Keys;
use super::sealed::Header;
use super::{Kind, Rule};
use crate::base::duration;
use http::HeaderName;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How old a sealed session may become where nobody says.
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);

/// A client comes back to the endpoint that has answered it, by a cookie of the gateway's or by a header of the endpoint's.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table with `cookie` or `header`")]
pub struct Settings {
    /// The cookie that the gateway sets and signs.
    cookie: Option<String>,
    /// Or the header by which endpoints name their sessions; the gateway seals the endpoint's address into its value.
    header: Option<String>,
    /// How a header's value is learnt. There is one way.
    learn: Option<Learn>,
    /// One key a line; the same on all gateways. Relative to the configuration's folder, read again when it changes.
    key_file: Option<PathBuf>,
    /// `Max-Age` of the cookie; none: it ends with the browser.
    #[serde(default, deserialize_with = "duration::option::deserialize")]
    ttl: Option<Duration>,
    /// How long a session may last from the response that began it; default a day.
    #[serde(default, deserialize_with = "duration::option::deserialize")]
    max_age: Option<Duration>,
    /// `Path` of the cookie; default `/`.
    path: Option<String>,
    /// `SameSite` of the cookie; default lax.
    same_site: Option<SameSite>,
    /// The cookie is sent over TLS only; default true.
    secure: Option<bool>,
}

/// How a header's value is learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Learn {
    /// It stands in a response.
    Response,
}

/// To whose requests a browser adds the cookie (RFC 6265bis §5.6.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SameSite {
    Strict,
    Lax,
    None,
}

impl Settings {
    /// What they mean, with the keys that are in the file.
    ///
    /// # Errors
    /// The key that is wrong, and what was expected.
    pub fn check(&self, folder: &Path) -> Result<Rule, String> {
        let kind = match (&self.cookie, &self.header) {
            (Some(name), None) => Kind::Cookie(self.cookie(name)?),
            (None, Some(name)) => Kind::Header(self.header(name)?),
            _ => return Err(": needs either `cookie` or `header`, by which a client is known".to_owned()),
        };
        let Some(file) = &self.key_file else {
            return Err(
                ".key_file: is missing; name a file with one key a line, the same for each gateway: `openssl rand \
                        -hex 32 > sticky.keys`"
                    .to_owned(),
            );
        };
        let keys = Keys::read(folder.join(file)).map_err(|problem| format!(".key_file {problem}"))?;
        Ok(Rule { kind, keys, settings: self.clone() })
    }

    fn cookie(&self, name: &str) -> Result<Cookie, String> {
        let others = [("learn", self.learn.is_some()), ("max_age", self.max_age.is_some())];
        if let Some((key, _)) = others.iter().find(|(_, is)| *is) {
            return Err(format!(".{key}: belongs to `header`, not to `cookie`"));
        }
        // A name is a token (RFC 6265 §4.1.1), as a header's is.
        if name.len() > 64 || name.parse::<HeaderName>().is_err() {
            return Err(format!(".cookie: `{name}` is no name of a cookie, like `shop-endpoint`"));
        }
        let path = self.path.as_deref().unwrap_or("/");
        let good = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b';';
        if !path.starts_with('/') || path.len() > 1024 || !path.bytes().all(good) {
            return Err(".path: must begin with `/` and have no `;`, and no more than 1024 bytes".to_owned());
        }
        if self.ttl.is_some_and(|ttl| ttl < Duration::from_secs(1)) {
            return Err(".ttl: must be at least 1s; left out, the cookie ends with the browser".to_owned());
        }
        let secure = self.secure.unwrap_or(true);
        let same_site = match self.same_site {
            Some(SameSite::Strict) => cookie::SameSite::Strict,
            Some(SameSite::Lax) | None => cookie::SameSite::Lax,
            Some(SameSite::None) if !secure => {
                return Err(".same_site: no browser takes `none` without `secure = true`".to_owned());
            }
            Some(SameSite::None) => cookie::SameSite::None,
        };
        // What browsers demand of these names (RFC 6265bis §4.1.3).
        let host_alone = name.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("__host-"));
        let secure_alone = name.get(..9).is_some_and(|start| start.eq_ignore_ascii_case("__secure-"));
        if (host_alone || secure_alone) && !secure || host_alone && path != "/" {
            return Err(format!(
                ".cookie: a browser takes `{name}` with `secure = true` only, and `__Host-` with path `/`"
            ));
        }
        Ok(Cookie { name: name.to_owned(), ttl: self.ttl, path: path.to_owned(), same_site, secure })
    }

    fn header(&self, name: &str) -> Result<Header, String> {
        let others = [
            ("ttl", self.ttl.is_some()),
            ("path", self.path.is_some()),
            ("same_site", self.same_site.is_some()),
            ("secure", self.secure.is_some()),
        ];
        if let Some((key, _)) = others.iter().find(|(_, is)| *is) {
            return Err(format!(".{key}: belongs to `cookie`, not to `header`"));
        }
        let parsed = name.parse::<HeaderName>().ok().filter(|_| name.len() <= 64);
        let name = parsed.ok_or_else(|| format!(".header: `{name}` is no name of a header, like `mcp-session-id`"))?;
        if super::sealed::RESERVED.contains(&name.as_str()) {
            return Err(format!(".header: `{name}` has a meaning of its own; name the one that endpoints send"));
        }
        let max_age = self.max_age.unwrap_or(MAX_AGE);
        if max_age < Duration::from_secs(1) {
            return Err(".max_age: must be at least 1s".to_owned());
        }
        Ok(Header { name: name.as_str().into(), max_age_s: max_age.as_secs() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Rule, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("keys"), "00112233445566778899aabbccddeeff").unwrap();
        toml::from_str::<Settings>(text).map_err(|error| error.to_string())?.check(folder.path())
    }

    #[test]
    fn what_is_wrong_is_named_with_what_to_do() {
        for good in [
            "cookie = 'a'\nkey_file = 'keys'",
            "cookie = '__Host-a'\nkey_file = 'keys'\nttl = '1h'\nsame_site = 'none'",
            "cookie = 'a'\nkey_file = 'keys'\nsecure = false\npath = '/shop'\nsame_site = 'strict'",
            "header = 'Mcp-Session-Id'\nkey_file = 'keys'\nlearn = 'response'\nmax_age = '1h'",
        ] {
            check(good).unwrap();
        }
        for (wrong, problem) in [
            ("key_file = 'keys'", ": needs either `cookie` or `header`"),
            ("cookie = 'a'\nheader = 'b'\nkey_file = 'keys'", ": needs either"),
            ("cookie = 'a'", ".key_file: is missing; name a file with one key a line"),
            ("cookie = 'a b'\nkey_file = 'keys'", ".cookie: `a b` is no name"),
            ("cookie = 'a'\nmax_age = '1h'\nkey_file = 'keys'", ".max_age: belongs to `header`"),
            ("header = 'a'\nttl = '1h'\nkey_file = 'keys'", ".ttl: belongs to `cookie`"),
            ("header = 'a b'\nkey_file = 'keys'", ".header: `a b` is no name"),
            ("header = 'Set-Cookie'\nkey_file = 'keys'", ".header: `set-cookie` has a meaning"),
            ("header = 'a'\nmax_age = '0s'\nkey_file = 'keys'", ".max_age: must be"),
            ("cookie = 'a'\nttl = '1ms'\nkey_file = 'keys'", ".ttl: must be"),
            ("cookie = 'a'\npath = 'x;y'\nkey_file = 'keys'", ".path: must begin"),
            ("cookie = 'a'\nsame_site = 'none'\nsecure = false\nkey_file = 'keys'", ".same_site: no browser"),
            ("cookie = '__Secure-a'\nsecure = false\nkey_file = 'keys'", ".cookie: a browser takes"),
            ("cookie = '__host-a'\npath = '/x'\nkey_file = 'keys'", ".cookie: a browser takes"),
        ] {
            let told = check(wrong).unwrap_err();
            assert!(told.starts_with(problem), "{wrong}: {told}");
        }
        let told = check("cookie = 'a'\nkey_file = 'none'").unwrap_err();
        assert!(told.starts_with(".key_file /") && told.contains("cannot be read"), "{told}");
        assert!(check("cookie = 'a'\nother = 1").unwrap_err().contains("unknown field `other`"));
    }
}
