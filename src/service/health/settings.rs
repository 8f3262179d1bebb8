//! What `health` of `[services.NAME]` says: how its endpoints are asked whether they are well.

use super::statuses::Statuses;
use crate::base::duration;
use crate::http::request::check::is_authority;
use serde::Deserialize;
use std::num::NonZeroU16;
use std::time::Duration;

/// An active health check, on a connection of its own each time, with TLS where the service has it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HealthCheck {
    /// What is asked.
    pub kind: Kind,
    /// `http`: path and query to ask for with GET. Must be there.
    pub path: String,
    /// `http` and `grpc`: what `Host` or `:authority` says; none: the service's `host`, else the address.
    pub host: Option<String>,
    /// `http`: statuses that are good; none: 200 to 399.
    pub expect: Option<Statuses>,
    /// `http`: the first 64 KiB of a good answer's body have this text in them.
    pub body: Option<String>,
    /// Where it listens for checks; none: where it listens for requests.
    pub port: Option<NonZeroU16>,
    /// `grpc`: the name that `grpc.health.v1` is asked for; none: that of the server as a whole, "".
    pub service: Option<String>,
    /// From the end of one check to the start of the next, ± 10 %.
    #[serde(with = "duration")]
    pub interval: Duration,
    /// The same while it is unhealthy or its last check was bad; none: `interval`.
    #[serde(deserialize_with = "duration::option::deserialize")]
    pub interval_after_failure: Option<Duration>,
    /// For the whole check.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// This many bad checks in a row make it unhealthy.
    pub unhealthy_after: u32,
    /// This many good checks in a row make it healthy again.
    pub healthy_after: u32,
    /// What an endpoint is that has just come, until its first check, which decides alone.
    pub initial: Initial,
}

/// What is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `GET path`, over the service's protocol.
    #[default]
    Http,
    /// That it takes a connection, and makes a TLS handshake where the service has TLS.
    Tcp,
    /// `grpc.health.v1.Health/Check` (grpc/doc/health-checking.md): `SERVING` is good.
    Grpc,
}

/// What nobody has checked yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Initial {
    /// Takes traffic at once.
    #[default]
    Healthy,
    /// Takes none before a check was good.
    Unhealthy,
}

impl Default for HealthCheck {
    fn default() -> Self {
        HealthCheck {
            kind: Kind::default(),
            path: String::new(),
            host: None,
            expect: None,
            body: None,
            port: None,
            service: None,
            interval: Duration::from_secs(2),
            interval_after_failure: None,
            timeout: Duration::from_millis(500),
            unhealthy_after: 3,
            healthy_after: 2,
            initial: Initial::default(),
        }
    }
}

/// Checks in a row that may be asked for.
const MOST_CHECKS: u32 = 1000;
/// Bytes of `body` and of `service`.
const MOST_TEXT: usize = 1024;

impl HealthCheck {
    /// Is this a good answer's status?
    pub fn expects(&self, status: u16) -> bool {
        self.expect.as_ref().map_or((200..400).contains(&status), |expect| expect.contains(status))
    }

    /// Is everything within its bounds, and of its kind?
    ///
    /// # Errors
    /// The key that is not, after a dot, and what was expected.
    pub fn check(&self) -> Result<(), String> {
        let (http, tcp) = (self.kind == Kind::Http, self.kind == Kind::Tcp);
        let needless = [
            ("path", !http && !self.path.is_empty(), "`http`"),
            ("expect", !http && self.expect.is_some(), "`http`"),
            ("body", !http && self.body.is_some(), "`http`"),
            ("host", tcp && self.host.is_some(), "`http` and `grpc`"),
            ("service", self.kind != Kind::Grpc && self.service.is_some(), "`grpc`"),
        ];
        if let Some((key, _, kinds)) = needless.into_iter().find(|(_, given, _)| *given) {
            return Err(format!(".{key}: belongs to checks of kind {kinds}; take it away, or say another `kind`"));
        }
        if http && (!self.path.starts_with('/') || self.path.parse::<http::uri::PathAndQuery>().is_err()) {
            return Err(format!(".path: `{}` must start with `/` and be a path", self.path));
        }
        if let Some(host) = self.host.as_ref().filter(|host| !is_authority(host.as_bytes())) {
            return Err(format!(".host: `{host}` is no host, like `shop.example` or `shop.example:8080`"));
        }
        if self.body.as_ref().is_some_and(|text| text.is_empty() || text.len() > MOST_TEXT) {
            return Err(format!(".body: must be a text of 1 to {MOST_TEXT} bytes"));
        }
        if self.service.as_ref().is_some_and(|name| name.len() > MOST_TEXT) {
            return Err(format!(".service: must have at most {MOST_TEXT} bytes"));
        }
        let least = Duration::from_millis(10);
        let after_failure = self.interval_after_failure.unwrap_or(least);
        let durations =
            [("interval", self.interval), ("interval_after_failure", after_failure), ("timeout", self.timeout)];
        if let Some((key, _)) = durations.into_iter().find(|(_, duration)| *duration < least) {
            return Err(format!(".{key}: must be at least 10ms"));
        }
        for (key, checks) in [("unhealthy_after", self.unhealthy_after), ("healthy_after", self.healthy_after)] {
            if !(1..=MOST_CHECKS).contains(&checks) {
                return Err(format!(".{key}: {checks} is not between 1 and {MOST_CHECKS}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(), String> {
        toml::from_str::<HealthCheck>(text).map_err(|e| e.message().to_owned())?.check()
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_key() {
        for good in [
            "path = '/health'",
            "path = '/h?x=1'\nhost = 'shop.example:80'\nexpect = ['200-299', 304]\nbody = 'ok'\nport = 9000",
            "kind = 'tcp'\nport = 1\ninterval_after_failure = '10ms'\ninitial = 'unhealthy'",
            "kind = 'grpc'\nservice = 'shop'\nhost = 'shop'",
            "kind = 'grpc'\nservice = ''",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, told) in [
            ("", ".path: ``"),
            ("path = 'health'", ".path: `health`"),
            ("path = '/'\nkind = 'tcp'", ".path: belongs to checks of kind `http`"),
            ("kind = 'grpc'\nexpect = [200]", ".expect: belongs"),
            ("kind = 'tcp'\nbody = 'x'", ".body: belongs"),
            ("kind = 'tcp'\nhost = 'x'", ".host: belongs to checks of kind `http` and `grpc`"),
            ("path = '/'\nservice = 'x'", ".service: belongs to checks of kind `grpc`"),
            ("path = '/'\nhost = 'a b'", ".host: `a b`"),
            ("path = '/'\nbody = ''", ".body: must be a text"),
            ("path = '/'\ninterval = '1ms'", ".interval: must be at least 10ms"),
            ("path = '/'\ninterval_after_failure = '9ms'", ".interval_after_failure: must"),
            ("path = '/'\ntimeout = '0s'", ".timeout: must"),
            ("path = '/'\nunhealthy_after = 0", ".unhealthy_after: 0 is not between 1 and 1000"),
            ("path = '/'\nhealthy_after = 1001", ".healthy_after: 1001"),
            ("path = '/'\nport = 0", "nonzero"),
            ("kind = 'udp'", "unknown variant `udp`"),
            ("path = '/'\nstatus = 200", "unknown field `status`"),
        ] {
            let problem = check(bad).unwrap_err();
            assert!(problem.contains(told), "{bad}: {problem}");
        }
    }

    #[test]
    fn without_expect_two_and_three_hundreds_are_good() {
        let good = |check: &HealthCheck| (100..600).filter(|s| check.expects(*s)).collect::<Vec<u16>>();
        assert_eq!(good(&HealthCheck::default()), (200..400).collect::<Vec<_>>());
        let expect = Some(Statuses::between(404, 404));
        assert_eq!(good(&HealthCheck { expect, ..HealthCheck::default() }), [404]);
    }
}
