//! What `[services.NAME]` of the configuration says. Each key is a field here, with its default and its bounds, and
//! nowhere else.

use super::admission::{Limits, adaptive, queue};
use super::affinity;
use super::breaker;
use super::budget::RetryBudget;
use super::health::outlier::Outlier;
use super::health::settings::{HealthCheck, Kind};
use super::hedge::Hedge;
use super::plan::Strategy;
use super::retry::{Backoff, RetryOn, is_retryable};
use super::subset::Subset;
use crate::base::duration;
use crate::discovery::Lookup;
use crate::discovery::registry::members::OneOrMore;
use crate::http::request::check::is_authority;
use crate::http::tls::client;
use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde::de::{self, Deserializer};
use std::fmt;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What holds where neither a service nor a policy names a `timeout`.
pub const UNNAMED_TIMEOUT: Duration = Duration::from_secs(300);

/// The longest `slow_start`.
const LONGEST_SLOW_START: Duration = Duration::from_secs(3600);

/// How a service is found, balanced, timed and retried.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The sources that report its endpoints. The one key that must be there.
    pub source: Sources,
    /// Endpoints with a higher number in their metadata's `priority` take what those with lower ones can't: nothing while 72 %
    /// of these are healthy, by weight, then more and more. Of several sources, each is one place behind the one before it.
    pub failover: bool,
    /// Traffic stays in the gateway's own zone (`gateway.zone`) as far as that has its share of the capacity. Needs six usable
    /// endpoints, two of them in the own zone.
    pub zone_aware: bool,
    /// What the source calls it; none: as the gateway does.
    pub registered_as: Option<String>,
    /// Only endpoints with all these tags.
    pub tags: Vec<String>,
    /// An empty answer of the source is applied at once.
    pub allow_empty: bool,
    /// How an endpoint is chosen where no policy says otherwise.
    pub strategy: Strategy,
    /// Which request property the `hash` and `sticky` strategies use where no policy gives a key; `maglev`, too.
    pub hash_on: HashOn,
    /// Slots of the table that `hash` (and `sticky`, for a new key) goes by: 1,024 to 4,194,304, or 0: none, each pick looks at
    /// each endpoint. None: 0 for up to 16 endpoints, else 131,072. Where one becomes the other, all keys move once.
    pub hash_table: Option<u32>,
    /// Slots of the table of `maglev`: a prime from 251 to 4,194,301. Shares are even to 2 % where it is 100 times as many as
    /// endpoints.
    pub maglev_table: u32,
    /// An endpoint takes no key while it has so many times its share of what is in flight from this gateway: 1.05 to 10
    /// (Mirrokni et al. 2018). Other keys than the hot ones move, too. None: it takes any number.
    pub hash_bound: Option<f64>,
    /// Only endpoints whose metadata says so; none: all. Zones are out of the question then.
    pub subset: Option<Subset>,
    /// What `Host` says upstream; none: as the client sent it. A policy can say otherwise for each request.
    #[serde(deserialize_with = "host")]
    pub host: Option<HeaderValue>,
    /// What its endpoints are spoken to with.
    pub protocol: Protocol,
    /// Whole exchange, all attempts, until the last byte of the response. Zero: no limit. None: [`UNNAMED_TIMEOUT`] until
    /// the response's head, and from then on for each silence.
    #[serde(deserialize_with = "duration::option::deserialize")]
    pub timeout: Option<Duration>,
    /// One attempt, until its response head is there; the time in which the client sends its body is not counted. Zero: no
    /// limit.
    #[serde(with = "duration")]
    pub attempt_timeout: Duration,
    /// Until a connection is established.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    /// Attempts, the first one counted.
    pub max_attempts: u32,
    /// Also retry when an attempt was answered with one of these.
    pub retry_status: Vec<u16>,
    /// What else is tried again, beside connections that failed before a byte was sent: `reset`, `timeout`, `protocol`,
    /// statuses, `grpc:NAME`.
    pub retry_on: RetryOn,
    /// How long before another attempt.
    pub retry_backoff: Backoff,
    /// How many retries it may cost.
    pub retry_budget: RetryBudget,
    /// Where an answer to a request without body that does no harm when it is done twice takes long, another endpoint is asked
    /// beside. It counts as an attempt, and draws on the retry budget. None: never.
    pub hedge: Option<Hedge>,
    /// Requests are refused while most of them fail; none: they never are.
    pub breaker: Option<breaker::Settings>,
    /// How much of it may go on at a time.
    pub limits: Limits,
    /// What is beyond waits; none: it is refused.
    pub queue: Option<queue::Settings>,
    /// How many requests may be in flight is found by how long answers take; none: only what `limits` say holds.
    pub adaptive: Option<adaptive::Settings>,
    /// Bytes of a request's body; one more is refused with 413. None: as many as come.
    pub max_body_bytes: Option<u64>,
    /// Clients come back to the endpoint that has answered them; none: each request is anybody's.
    pub sticky: Option<affinity::Settings>,
    /// How long the strategy `sticky` remembers a key that is not used.
    #[serde(with = "duration")]
    pub sticky_ttl: Duration,
    /// Speak TLS with its endpoints.
    pub tls: Option<client::Settings>,
    /// Active health check; none: only what the source and failing connects say.
    pub health: Option<HealthCheck>,
    /// Endpoints are put aside for what they answer; none: they are not.
    pub outlier: Option<Outlier>,
    /// An endpoint that has come, or comes back, gets its whole share after this time, and a tenth of it at first; none: all
    /// of it at once.
    #[serde(deserialize_with = "duration::option::deserialize")]
    pub slow_start: Option<Duration>,
    /// Where fewer of a hundred endpoints are usable, all with weight are used: too many are unwell for that to be about
    /// them. None: only usable ones ever are.
    pub panic: Option<u32>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            source: Sources::default(),
            failover: false,
            zone_aware: false,
            registered_as: None,
            tags: Vec::new(),
            allow_empty: false,
            strategy: Strategy::default(),
            hash_on: HashOn::ClientAddress,
            hash_table: None,
            maglev_table: 65_537,
            hash_bound: None,
            subset: None,
            host: None,
            protocol: Protocol::Http1,
            timeout: None,
            attempt_timeout: Duration::from_secs(15),
            connect_timeout: Duration::from_secs(2),
            max_attempts: 2,
            retry_status: Vec::new(),
            retry_on: RetryOn::default(),
            retry_backoff: Backoff::default(),
            retry_budget: RetryBudget::default(),
            hedge: None,
            breaker: None,
            limits: Limits::default(),
            queue: None,
            adaptive: None,
            max_body_bytes: None,
            sticky: None,
            sticky_ttl: Duration::from_secs(3600),
            tls: None,
            health: None,
            outlier: None,
            slow_start: None,
            panic: None,
        }
    }
}

impl Settings {
    /// Those of a service that nobody declared: this source has named it.
    pub fn of(source: &str) -> Self {
        Settings { source: Sources(vec![Arc::from(source)]), ..Settings::default() }
    }

    /// Is every number within its bounds? `most_attempts`: of the gateway.
    ///
    /// # Errors
    /// The key that is not, and what was expected.
    pub fn check(&self, most_attempts: u32) -> Result<(), String> {
        if let Some(status) = self.retry_status.iter().find(|status| !is_retryable(**status)) {
            return Err(format!("retry_status: {status} is none of 408, 425, 429, 500 to 599"));
        }
        if !(1..=most_attempts).contains(&self.max_attempts) {
            let given = self.max_attempts;
            return Err(format!("max_attempts: {given} is not between 1 and {most_attempts} (gateway.max_attempts)"));
        }
        if let Some(slots) = self.hash_table.filter(|slots| !matches!(slots, 0 | 1_024..=4_194_304)) {
            return Err(format!("hash_table: {slots} is neither 0 nor between 1024 and 4194304"));
        }
        if !(251..=4_194_301).contains(&self.maglev_table) || !is_prime(self.maglev_table) {
            let given = self.maglev_table;
            return Err(format!("maglev_table: {given} is no prime between 251 and 4194301, like 65537 or 655373"));
        }
        if let Some(bound) = self.hash_bound.filter(|bound| !(1.05..=10.0).contains(bound)) {
            return Err(format!("hash_bound: {bound} is not between 1.05 and 10"));
        }
        if self.subset.is_some() && self.zone_aware {
            return Err("subset: goes without `zone_aware`, whose shares are those of all endpoints".into());
        }
        if self.connect_timeout.is_zero() {
            return Err("connect_timeout: must be more than 0".into());
        }
        self.retry_backoff.check().map_err(|problem| format!("retry_backoff{problem}"))?;
        self.retry_budget.check().map_err(|problem| format!("retry_budget{problem}"))?;
        if let Some(hedge) = &self.hedge {
            hedge.check().map_err(|problem| format!("hedge{problem}"))?;
        }
        if let Some(breaker) = &self.breaker {
            breaker.check().map_err(|problem| format!("breaker{problem}"))?;
        }
        if let Some(queue) = &self.queue {
            queue.check().map_err(|problem| format!("queue{problem}"))?;
            if !self.is_limited() {
                return Err("queue: nobody waits where nothing is limited: it needs `limits` or `adaptive`".into());
            }
        }
        if let Some(adaptive) = &self.adaptive {
            adaptive.check().map_err(|problem| format!("adaptive{problem}"))?;
        }
        if let Some(health) = &self.health {
            health.check().map_err(|problem| format!("health{problem}"))?;
            if health.kind == Kind::Grpc && self.tls.is_some() && !self.http2() {
                return Err("health.kind: `grpc` speaks HTTP/2, which over TLS needs `protocol = \"h2\"`".into());
            }
        }
        if let Some(outlier) = &self.outlier {
            outlier.check().map_err(|problem| format!("outlier{problem}"))?;
        }
        if self.slow_start.is_some_and(|window| window.is_zero() || window > LONGEST_SLOW_START) {
            return Err("slow_start: must be more than 0, and at most 1h".into());
        }
        if let Some(percent) = self.panic.filter(|percent| !(1..=100).contains(percent)) {
            return Err(format!("panic: {percent} is not between 1 and 100 (percent)"));
        }
        Ok(())
    }

    /// What its source looks for, where the gateway calls it this.
    pub fn lookup(&self, name: &Arc<str>) -> Lookup {
        Lookup {
            service: Arc::clone(name),
            registered_as: self.registered_as.clone().unwrap_or_else(|| name.to_string()),
            tags: self.tags.clone(),
            allow_empty: self.allow_empty,
        }
    }

    /// What makes handshakes with its endpoints, with files relative to `folder`.
    ///
    /// # Errors
    /// Which of the settings or files is wrong, and why.
    pub fn connector(&self, folder: &Path) -> Result<Option<Arc<client::Connector>>, String> {
        let Some(tls) = self.tls.clone() else { return Ok(None) };
        let mut tls = tls.at(folder);
        if tls.server_name.is_none() {
            let host = self.host.as_ref().and_then(|host| host.to_str().ok()?.parse::<http::uri::Authority>().ok());
            tls.server_name = host.map(|host| host.host().to_owned());
        }
        let connector = client::Connector::new(&tls, self.http2());
        connector.map(|connector| Some(Arc::new(connector))).map_err(|problem| format!("tls: {problem}"))
    }

    /// Requests may have to wait for others, or be refused for them.
    pub fn is_limited(&self) -> bool {
        !self.limits.is_none() || self.adaptive.is_some()
    }

    /// What holds clients to endpoints, with its file relative to `folder`.
    ///
    /// # Errors
    /// Which of the settings is wrong, or what is wrong with the file.
    pub fn affinity(&self, folder: &Path) -> Result<Option<Arc<affinity::Rule>>, String> {
        let rule = self.sticky.as_ref().map(|sticky| sticky.check(folder).map(Arc::new)).transpose();
        rule.map_err(|problem| format!("sticky{problem}"))
    }

    /// HTTP/2 is spoken to its endpoints.
    pub fn http2(&self) -> bool {
        self.protocol == Protocol::H2
    }
}

fn is_prime(number: u32) -> bool {
    number > 1 && (2..).take_while(|divisor| divisor * divisor <= number).all(|divisor| !number.is_multiple_of(divisor))
}

/// Names of sources, the first of which wins where they differ: `"a"` or `["a", "b"]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "OneOrMore")]
pub struct Sources(Vec<Arc<str>>);

impl TryFrom<OneOrMore> for Sources {
    type Error = String;

    fn try_from(given: OneOrMore) -> Result<Self, String> {
        let names: Vec<Arc<str>> = Vec::from(given).into_iter().map(Arc::from).collect();
        match names.iter().enumerate().find(|(place, name)| names[..*place].contains(name)) {
            Some((_, twice)) => Err(format!("`{twice}` is there twice")),
            None => Ok(Sources(names)),
        }
    }
}

impl Deref for Sources {
    type Target = [Arc<str>];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl fmt::Display for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

/// What endpoints are spoken to with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2, over TLS by ALPN, else by prior knowledge.
    H2,
}

/// What `hash` and `sticky` use as the key by default.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum HashOn {
    /// The client's IP address: `client-address`.
    ClientAddress,
    /// The value of this header; the client's address where there is none: `header:NAME`.
    Header(HeaderName),
    /// The value of this cookie; the client's address where there is none: `cookie:NAME`.
    Cookie(String),
}

impl TryFrom<String> for HashOn {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("`{text}` is none of `client-address`, `header:NAME`, `cookie:NAME`");
        match text.split_once(':') {
            None if text == "client-address" => Ok(HashOn::ClientAddress),
            Some(("header", name)) => name.parse().map(HashOn::Header).map_err(|_| wrong()),
            Some(("cookie", name)) if !name.is_empty() => Ok(HashOn::Cookie(name.into())),
            _ => Err(wrong()),
        }
    }
}

fn host<'de, D: Deserializer<'de>>(from: D) -> Result<Option<HeaderValue>, D::Error> {
    let text = String::deserialize(from)?;
    let good = HeaderValue::from_str(&text).ok().filter(|_| is_authority(text.as_bytes()));
    let wrong = || de::Error::custom(format!("`{text}` is no host, like `shop.example` or `shop.example:8080`"));
    good.map(Some).ok_or_else(wrong)
}
