//! Match rules, shared by declared routes and by policies' sidecars. All parts that are given must fit.

use crate::http::request::{Head, path, without_dot};
use crate::http::settings::Paths;
use http::{HeaderName, HeaderValue, Method};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A match rule as it is written; an empty one fits every request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RawMatch {
    /// Host, lower case, no port; `*.example.com` fits one or more labels more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The whole path; however it is written, it fits all that reads the same (see [`path::matched`]).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Whole leading segments of the path: `/api` fits `/api` and `/api/x`, not `/apix`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_prefix: Option<String>,
    /// Any of these methods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Each of these headers with exactly this value; `*` fits any value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

/// A match rule that was checked.
#[derive(Debug, Clone, Default)]
pub struct Match {
    pub(super) host: Option<Host>,
    /// Both as requests' paths are compared.
    pub(super) path: Option<Vec<u8>>,
    pub(super) prefix: Option<Vec<u8>>,
    methods: Vec<Method>,
    headers: Vec<(HeaderName, Option<HeaderValue>)>,
}

/// The hosts that a rule takes.
#[derive(Debug, Clone)]
pub(super) enum Host {
    /// This one.
    Exact(String),
    /// With its leading dot: `.example.com`.
    Under(String),
}

impl RawMatch {
    /// Checks every part.
    ///
    /// # Errors
    /// A sentence that names the key and the value, and says what was expected.
    pub fn check(&self) -> Result<Match, String> {
        let host = match self.host.as_deref() {
            None | Some("*") => None,
            Some(host) => Some(check_host(host)?),
        };
        let path = |key, path: &Option<String>| path.as_ref().map(|path| check_path(key, path)).transpose();
        let methods = self.methods.iter().map(|method| {
            Method::from_bytes(method.as_bytes()).map_err(|_| format!("`methods`: `{method}` is not an HTTP method"))
        });
        let headers = self.headers.iter().map(|(name, value)| {
            let name = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| format!("`headers`: `{name}` is not a header name"))?;
            if value == "*" {
                return Ok((name, None));
            }
            let value = HeaderValue::from_str(value)
                .map_err(|_| format!("`headers`: the value of `{name}` has characters that no header can have"))?;
            Ok((name, Some(value)))
        });
        Ok(Match {
            host,
            path: path("path", &self.path)?,
            // `/` fits every path; `/api/` is `/api`.
            prefix: path("path_prefix", &self.path_prefix)?.map(without_slash).filter(|prefix| !prefix.is_empty()),
            methods: methods.collect::<Result<_, String>>()?,
            headers: headers.collect::<Result<_, String>>()?,
        })
    }
}

fn check_host(host: &str) -> Result<Host, String> {
    let plain = host.strip_prefix("*.").unwrap_or(host);
    let good = |c: char| c.is_ascii_alphanumeric() || "-._[]:".contains(c);
    if plain.is_empty() || !plain.chars().all(good) || (plain.contains(':') && !plain.starts_with('[')) {
        return Err(format!("`host`: `{host}` is not a host (expected a name without port, or `*.NAME`)"));
    }
    let plain = without_dot(plain).to_ascii_lowercase();
    Ok(if host.starts_with("*.") { Host::Under(format!(".{plain}")) } else { Host::Exact(plain) })
}

fn check_path(key: &str, written: &str) -> Result<Vec<u8>, String> {
    if !written.starts_with('/') || written.contains(['?', '#', ' ']) {
        return Err(format!("`{key}`: `{written}` must start with `/` and have no `?`, `#` or space"));
    }
    let normal = path::normal(written, Paths::Normal).map_err(|_| {
        format!("`{key}`: `{written}` could be read in several ways (write it without dot segments and backslashes)")
    })?;
    Ok(path::matched(&normal).into_owned())
}

fn without_slash(path: Vec<u8>) -> Vec<u8> {
    path.strip_suffix(b"/").map(<[u8]>::to_vec).unwrap_or(path)
}

impl Match {
    /// Does the rule fit this request?
    pub fn fits(&self, head: &Head) -> bool {
        self.fits_path(head.matched_path())
            && self.fits_host(head.host())
            && (self.methods.is_empty() || self.methods.contains(&head.parts.method))
            && self.headers.iter().all(|(name, expected)| {
                let mut values = head.parts.headers.all(name.as_str());
                // A second line of the same name never equals a single expected value.
                match (values.next(), values.next(), expected) {
                    (Some(_), _, None) => true,
                    (Some(value), None, Some(expected)) => value == expected,
                    _ => false,
                }
            })
    }

    fn fits_path(&self, path: &[u8]) -> bool {
        let whole = self.path.as_ref().is_none_or(|expected| expected == path);
        whole
            && self.prefix.as_ref().is_none_or(|prefix| {
                path.strip_prefix(prefix.as_slice()).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
            })
    }

    fn fits_host(&self, host: &str) -> bool {
        match &self.host {
            None => true,
            Some(Host::Exact(expected)) => expected == host,
            Some(Host::Under(suffix)) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
        }
    }

    /// A short name for people: the path, prefix or host, or `any`.
    pub fn label(&self) -> String {
        let host = match &self.host {
            None => String::new(),
            Some(Host::Exact(host)) => host.clone(),
            Some(Host::Under(suffix)) => format!("*{suffix}"),
        };
        let text = |path: &Vec<u8>| String::from_utf8_lossy(path).into_owned();
        let prefix = || self.prefix.as_ref().map(|prefix| text(prefix) + "/*");
        let path = self.path.as_ref().map(text).or_else(prefix).unwrap_or_default();
        let label = format!("{host}{path}");
        if label.is_empty() { "any".into() } else { label }
    }
}

#[cfg(test)]
mod tests;
