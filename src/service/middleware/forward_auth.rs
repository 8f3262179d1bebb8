//! `forward_auth`: an external check is asked about each request, once, before that goes on. As Traefik's ForwardAuth,
//! nginx's `auth_request` and Envoy's `ext_authz` over HTTP: 2xx lets it pass, and any other answer is the client's. A 5xx
//! says nothing of the request (Envoy), so it is a failure of the check.

use super::request_id::check_header;
use crate::base::duration;
use serde::Deserialize;
use std::time::Duration;

/// The longest that a check may take: the client waits meanwhile.
const LONGEST: Duration = Duration::from_secs(60);
/// Headers that it may be given, and that may be copied of it.
const MOST: usize = 50;

/// What is written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardAuth {
    /// The service that is asked, as any other is: balanced, checked, tried again.
    pub service: String,
    /// What it is asked for: a path, perhaps with a query.
    #[serde(default = "path")]
    pub path: String,
    /// What of the request's headers it is given.
    #[serde(default = "headers")]
    pub headers: Vec<String>,
    /// What of the headers of its 2xx goes on with the request, in place of what the client may have sent.
    #[serde(default)]
    pub copy: Vec<String>,
    /// In which its answer must be there, with all attempts.
    #[serde(default = "timeout", with = "duration")]
    pub timeout: Duration,
    /// What becomes of a request of which the check says nothing.
    #[serde(default)]
    pub on_failure: OnFailure,
}

/// What becomes of a request while the check fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// It is refused, with 503.
    #[default]
    Deny,
    /// It goes on, without what would have been copied.
    Allow,
}

fn path() -> String {
    "/".to_owned()
}

fn headers() -> Vec<String> {
    ["authorization", "cookie", "accept"].map(str::to_owned).to_vec()
}

fn timeout() -> Duration {
    Duration::from_secs(1)
}

impl ForwardAuth {
    /// `is_service`: there is a service of this name, or may be.
    ///
    /// # Errors
    /// What is wrong with which key.
    pub(super) fn check(&self, is_service: &impl Fn(&str) -> bool) -> Result<(), String> {
        if !is_service(&self.service) {
            return Err(format!("service: there is no `[services.{}]`", self.service));
        }
        // The parser takes more bytes than a target may have, and cuts off what no server is sent.
        let is_ascii = self.path.bytes().all(|byte| matches!(byte, b'!'..=b'~'));
        let is_target = self.path.parse::<http::uri::PathAndQuery>().is_ok_and(|parsed| parsed.as_str() == self.path);
        if !self.path.starts_with('/') || !is_ascii || !is_target {
            return Err(format!("path: `{}` is no path, like `/check`", self.path));
        }
        for (key, names) in [("headers", &self.headers), ("copy", &self.copy)] {
            if names.len() > MOST {
                return Err(format!("{key}: {MOST} are the most"));
            }
            names.iter().try_for_each(|name| check_header(key, name))?;
        }
        if self.timeout.is_zero() || self.timeout > LONGEST {
            return Err(format!("timeout: must be more than 0 and at most {}s", LONGEST.as_secs()));
        }
        Ok(())
    }

    /// What is copied and that no request may come with. What the check is given to replace it, it has to see first.
    pub(super) fn facts(&self) -> impl Iterator<Item = &String> {
        self.copy.iter().filter(|name| !self.headers.contains(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(rest: &str) -> Result<(), String> {
        let settings: ForwardAuth = toml::from_str(&format!("service = 'auth'\n{rest}")).map_err(|e| e.to_string())?;
        settings.check(&|name: &str| name == "auth")
    }

    #[test]
    fn what_is_wrong_is_told_with_its_key() {
        check("").unwrap();
        check("path = '/check?a=b'\nheaders = []\ncopy = ['x-user', 'authorization']\non_failure = 'allow'").unwrap();
        for (rest, problem) in [
            ("path = 'check'", "path: `check` is no path"),
            ("path = '/a b'", "path: `/a b` is no path"),
            ("path = '/a#b'", "path: `/a#b` is no path"),
            ("headers = ['X-A']", "`headers`: `X-A` cannot be set"),
            ("headers = ['content-length']", "`headers`: `content-length` cannot be set"),
            ("copy = ['host']", "`copy`: `host` cannot be set"),
            ("timeout = '0s'", "timeout: must be more than 0"),
            ("timeout = '2m'", "timeout: must be more than 0 and at most 60s"),
        ] {
            let told = check(rest).unwrap_err();
            assert!(told.starts_with(problem), "{told}");
        }
        assert!(check("on_failure = 'next'").is_err() && check("url = 'a'").is_err());
        let other: ForwardAuth = toml::from_str("service = 'other'").unwrap();
        assert_eq!(other.check(&|_: &str| false), Err("service: there is no `[services.other]`".to_owned()));
    }

    proptest! {
        #[test]
        fn any_path_is_one_or_is_refused(path in ".{0,30}") {
            let settings = ForwardAuth { path: path.clone(), ..toml::from_str("service = 'auth'").unwrap() };
            if settings.check(&|_: &str| true).is_ok() {
                prop_assert!(path.starts_with('/') && path.is_ascii() && !path.contains([' ', '#']));
            }
        }
    }
}
