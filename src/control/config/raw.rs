//! The configuration as it is written, and the way from there to what is checked.

use super::{Config, Declared, DeclaredRoute};
use crate::discovery::{Lookup, SourceSettings};
use crate::http::headers::Via;
use crate::http::headers::untrusted::{self, Untrusted};
use crate::http::settings::{ConnectionLimits, Gateway, Listen, Paths, Policies, Telemetry, Tunnels};
use crate::http::tls::client::{self, Connector};
use crate::http::tls::{Pair, server};
use crate::service::plan::Strategy;
use crate::service::route::RawMatch;
use crate::service::{HashOn, HealthCheck, Settings};
use ipnet::IpNet;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    gateway: RawGateway,
    policies: Option<RawPolicies>,
    #[serde(default)]
    telemetry: Telemetry,
    #[serde(default)]
    sources: BTreeMap<String, toml::Table>,
    #[serde(default)]
    services: BTreeMap<String, RawService>,
    #[serde(default)]
    routes: Vec<RawRoute>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawGateway {
    listen: Vec<toml::Value>,
    admin: SocketAddr,
    workers: Option<usize>,
    zone: Option<String>,
    #[serde(with = "crate::base::duration")]
    drain_timeout: Duration,
    #[serde(with = "crate::base::duration")]
    max_timeout: Duration,
    max_attempts: u32,
    trusted_proxies: Vec<String>,
    remove_from_untrusted: Vec<String>,
    forwarded: bool,
    via: String,
    paths: Paths,
    max_connections: usize,
    max_connections_per_client: usize,
    max_requests_per_connection: u64,
    #[serde(with = "crate::base::duration")]
    connection_lifetime: Duration,
    #[serde(with = "crate::base::duration")]
    head_timeout: Duration,
    #[serde(with = "crate::base::duration")]
    idle_timeout: Duration,
    #[serde(with = "crate::base::duration")]
    stall_timeout: Duration,
    max_head_bytes: usize,
    max_headers: usize,
    max_streams: u32,
    idle_upstream_connections: usize,
    #[serde(with = "crate::base::duration")]
    upstream_idle_timeout: Duration,
    #[serde(with = "crate::base::duration")]
    upstream_lifetime: Duration,
    #[serde(with = "crate::base::duration")]
    upgrade_idle_timeout: Duration,
    #[serde(with = "crate::base::duration")]
    upgrade_drain_timeout: Duration,
}

/// A listener that is more than an address.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawListen {
    address: String,
    #[serde(default)]
    proxy_protocol: bool,
    #[serde(default)]
    certificates: Vec<RawPair>,
    client_ca: Option<PathBuf>,
    client_certificates: Option<ClientCertificates>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPair {
    chain: PathBuf,
    key: PathBuf,
}

impl RawPair {
    fn at(self, folder: &Path) -> Pair {
        Pair { chain: folder.join(self.chain), key: folder.join(self.key) }
    }
}

#[derive(Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "lowercase")]
enum ClientCertificates {
    Required,
    Optional,
}

impl Default for RawGateway {
    fn default() -> Self {
        RawGateway {
            listen: vec!["127.0.0.1:8080".into()],
            admin: SocketAddr::from(([127, 0, 0, 1], 9901)),
            workers: None,
            zone: None,
            drain_timeout: Duration::from_secs(30),
            max_timeout: Duration::from_secs(3600),
            max_attempts: 5,
            trusted_proxies: Vec::new(),
            remove_from_untrusted: untrusted::DEFAULT.map(str::to_owned).into(),
            forwarded: false,
            via: "wayside".into(),
            paths: Paths::default(),
            max_connections: 10_000,
            max_connections_per_client: 1000,
            max_requests_per_connection: 100_000,
            connection_lifetime: Duration::from_secs(3600),
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(30),
            max_head_bytes: 64 << 10,
            max_headers: 100,
            max_streams: 256,
            idle_upstream_connections: 1024,
            // Less than the 60 to 75 s after which most servers close theirs.
            upstream_idle_timeout: Duration::from_secs(45),
            upstream_lifetime: Duration::from_secs(3600),
            // WebSocket's libraries ping at least every minute or two.
            upgrade_idle_timeout: Duration::from_secs(300),
            upgrade_drain_timeout: Duration::from_secs(5),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPolicies {
    directory: PathBuf,
    cache: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawService {
    source: String,
    registered_as: Option<String>,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    allow_empty: bool,
    #[serde(default)]
    strategy: Strategy,
    hash_on: Option<String>,
    host: Option<String>,
    #[serde(default)]
    protocol: Protocol,
    #[serde(default, deserialize_with = "crate::base::duration::option::deserialize")]
    timeout: Option<Duration>,
    #[serde(default = "fifteen_seconds", with = "crate::base::duration")]
    attempt_timeout: Duration,
    #[serde(default = "two_seconds", with = "crate::base::duration")]
    connect_timeout: Duration,
    #[serde(default = "two")]
    max_attempts: u32,
    #[serde(default)]
    retry_status: Vec<u16>,
    max_body_bytes: Option<u64>,
    #[serde(default = "one_hour", with = "crate::base::duration")]
    sticky_ttl: Duration,
    health: Option<RawHealth>,
    tls: Option<RawTls>,
}

/// TLS with a service's endpoints.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTls {
    server_name: Option<String>,
    ca: Option<PathBuf>,
    certificate: Option<RawPair>,
}

#[derive(Deserialize, Default, Clone, Copy, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Protocol {
    #[default]
    Http1,
    H2,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHealth {
    path: String,
    #[serde(default = "two_seconds", with = "crate::base::duration")]
    interval: Duration,
    #[serde(default = "half_a_second", with = "crate::base::duration")]
    timeout: Duration,
    #[serde(default = "three")]
    unhealthy_after: u32,
    #[serde(default = "two")]
    healthy_after: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRoute {
    name: Option<String>,
    #[serde(rename = "match", default)]
    rule: RawMatch,
    service: String,
}

fn fifteen_seconds() -> Duration {
    Duration::from_secs(15)
}
fn two_seconds() -> Duration {
    Duration::from_secs(2)
}
fn half_a_second() -> Duration {
    Duration::from_millis(500)
}
fn one_hour() -> Duration {
    Duration::from_secs(3600)
}
fn two() -> u32 {
    2
}
fn three() -> u32 {
    3
}

/// Settings of a service that only a file source names.
pub(super) fn default_settings(source: &Arc<str>) -> Settings {
    Settings {
        source: Arc::clone(source),
        strategy: Strategy::default(),
        hash_on: HashOn::ClientAddress,
        host: None,
        http2: false,
        timeout: None,
        attempt_timeout: fifteen_seconds(),
        connect_timeout: two_seconds(),
        max_attempts: two(),
        retry_status: Vec::new(),
        max_body_bytes: None,
        sticky_ttl: one_hour(),
        health: None,
        tls: None,
    }
}

/// A gateway of which nothing is declared.
pub(super) fn default_gateway() -> Gateway {
    RawGateway::default().checked(Path::new(""), 1)
}

pub(super) fn parse(file: &Path, text: &str) -> Result<Config, String> {
    let raw: Raw = toml::from_str(text).map_err(|e| crate::base::place::toml_problem(text, &e))?;
    let folder = file.parent().unwrap_or(Path::new(""));
    let gateway = raw.gateway.check(folder)?;
    let sources = raw
        .sources
        .into_iter()
        .map(|(name, table)| {
            let settings = SourceSettings::parse(table, folder).map_err(|e| format!("sources.{name}: {e}"))?;
            Ok((Arc::from(name), settings))
        })
        .collect::<Result<BTreeMap<Arc<str>, _>, String>>()?;
    let services = raw
        .services
        .into_iter()
        .map(|(name, service)| {
            let declared =
                service.check(&name, &sources, &gateway, folder).map_err(|e| format!("services.{name}.{e}"))?;
            Ok((Arc::from(name), declared))
        })
        .collect::<Result<BTreeMap<Arc<str>, _>, String>>()?;
    let some_file = sources.values().any(SourceSettings::names_services);
    let mut names = BTreeSet::new();
    let mut routes = Vec::new();
    for (number, route) in raw.routes.into_iter().enumerate() {
        let at = |e: String| format!("routes, number {}: {e}", number + 1);
        let matcher = route.rule.check().map_err(|e| at(format!("match.{e}")))?;
        // A file source may name services that are not declared here.
        if !services.contains_key(route.service.as_str()) && !some_file {
            return Err(at(format!("`service`: there is no `[services.{}]`", route.service)));
        }
        let name = route.name.unwrap_or_else(|| matcher.label());
        if !names.insert(name.clone()) {
            tracing::debug!(route = name, "several routes have this name; metrics add them up");
        }
        routes.push(DeclaredRoute { name: name.into(), matcher, service: route.service.into() });
    }
    let policies = raw.policies.map(|policies| {
        let directory = folder.join(policies.directory);
        let cache = policies.cache.map_or_else(|| directory.join(".cache"), |cache| folder.join(cache));
        Policies { directory, cache }
    });
    if let Some(sample) = raw.telemetry.sample.filter(|sample| !(0.0..=1.0).contains(sample)) {
        return Err(format!("telemetry.sample: {sample} is not between 0 and 1"));
    }
    if let Some(otlp) = &raw.telemetry.otlp
        && !(otlp.starts_with("http://") || otlp.starts_with("https://"))
    {
        return Err(format!("telemetry.otlp: `{otlp}` is no URL (expected like `http://127.0.0.1:4317`)"));
    }
    // What stands in its files is a part of what is declared.
    let mut declared = text.to_owned();
    for connector in services.values().filter_map(|declared: &Declared| declared.settings.tls.as_ref()) {
        declared.push_str(&connector.digest);
    }
    let digest = crate::base::digest::short(declared.as_bytes());
    Ok(Config { file: file.to_owned(), digest, gateway, policies, telemetry: raw.telemetry, sources, services, routes })
}

impl RawGateway {
    fn check(self, folder: &Path) -> Result<Gateway, String> {
        let between = |key: &str, value: usize, low: usize, high: usize| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            Err(format!("gateway.{key}: {value} is not between {low} and {high}"))
        };
        if self.listen.is_empty() {
            return Err("gateway.listen: name at least one address, like [\"127.0.0.1:8080\"]".into());
        }
        check_networks(&self.trusted_proxies)?;
        check_names(&self.remove_from_untrusted)?;
        if !self.via.is_empty() && Via::new(&self.via).is_none() {
            return Err(format!(
                "gateway.via: `{}` must be a name of letters, digits, `-`, `.`, `_` and `:`",
                self.via
            ));
        }
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let positive = [
            ("head_timeout", self.head_timeout),
            ("idle_timeout", self.idle_timeout),
            ("stall_timeout", self.stall_timeout),
            ("max_timeout", self.max_timeout),
            ("connection_lifetime", self.connection_lifetime),
            ("upstream_lifetime", self.upstream_lifetime),
            ("upgrade_idle_timeout", self.upgrade_idle_timeout),
        ];
        if let Some((key, _)) = positive.into_iter().find(|(_, duration)| duration.is_zero()) {
            return Err(format!("gateway.{key}: must be more than 0"));
        }
        between("workers", self.workers.unwrap_or(cores), 1, 256)?;
        between("max_attempts", self.max_attempts as usize, 1, 100)?;
        between("max_connections", self.max_connections, 1, 10_000_000)?;
        between("max_connections_per_client", self.max_connections_per_client, 1, 10_000_000)?;
        if self.max_requests_per_connection == 0 {
            return Err("gateway.max_requests_per_connection: must be at least 1".into());
        }
        // hyper's smallest buffer is 8 KiB.
        between("max_head_bytes", self.max_head_bytes, 8 << 10, 1 << 20)?;
        between("max_headers", self.max_headers, 1, 10_000)?;
        check_listeners(&self.listen, folder)?;
        Ok(self.checked(folder, cores))
    }

    /// The same, once every number was checked.
    fn checked(self, folder: &Path, cores: usize) -> Gateway {
        Gateway {
            // What is no listener was found before.
            listen: check_listeners(&self.listen, folder).unwrap_or_default(),
            admin: self.admin,
            workers: self.workers.unwrap_or(cores),
            zone: self.zone.map(Arc::from),
            drain_timeout: self.drain_timeout,
            max_timeout: self.max_timeout,
            max_attempts: self.max_attempts,
            // What is no network was found before.
            trusted_proxies: check_networks(&self.trusted_proxies).unwrap_or_default(),
            forwarded: self.forwarded,
            // What is no name was found before.
            remove_from_untrusted: check_names(&self.remove_from_untrusted).unwrap_or_default(),
            via: Via::new(&self.via),
            paths: self.paths,
            tunnels: Tunnels { idle_timeout: self.upgrade_idle_timeout, drain_timeout: self.upgrade_drain_timeout },
            limits: ConnectionLimits {
                connections: self.max_connections,
                connections_per_client: self.max_connections_per_client,
                requests: self.max_requests_per_connection,
                lifetime: self.connection_lifetime,
                head_timeout: self.head_timeout,
                idle_timeout: self.idle_timeout,
                stall_timeout: self.stall_timeout,
                head_bytes: self.max_head_bytes,
                headers: self.max_headers,
                streams: self.max_streams.max(1),
            },
            idle_upstream_connections: self.idle_upstream_connections,
            upstream_idle_timeout: self.upstream_idle_timeout,
            upstream_lifetime: self.upstream_lifetime,
        }
    }
}

impl RawService {
    fn check(
        self,
        name: &str,
        sources: &BTreeMap<Arc<str>, SourceSettings>,
        gateway: &Gateway,
        folder: &Path,
    ) -> Result<Declared, String> {
        let Some((source, _)) = sources.get_key_value(self.source.as_str()) else {
            return Err(format!("source: there is no `[sources.{}]`", self.source));
        };
        let retryable = |status: &u16| matches!(status, 408 | 425 | 429 | 500..=599);
        if let Some(status) = self.retry_status.iter().find(|status| !retryable(status)) {
            return Err(format!("retry_status: {status} is none of 408, 425, 429, 500 to 599"));
        }
        if self.max_attempts == 0 || self.max_attempts > gateway.max_attempts {
            let most = gateway.max_attempts;
            return Err(format!(
                "max_attempts: {} is not between 1 and {most} (gateway.max_attempts)",
                self.max_attempts
            ));
        }
        if self.connect_timeout.is_zero() {
            return Err("connect_timeout: must be more than 0".into());
        }
        let host = self.host.as_deref().map(check_host).transpose()?;
        let http2 = self.protocol == Protocol::H2;
        let tls = self.tls.map(|tls| tls.check(folder, http2, self.host.as_deref()).map(Arc::new)).transpose()?;
        let settings = Settings {
            source: Arc::clone(source),
            strategy: self.strategy,
            hash_on: check_hash_on(self.hash_on.as_deref())?,
            host,
            http2,
            tls,
            timeout: self.timeout,
            attempt_timeout: self.attempt_timeout,
            connect_timeout: self.connect_timeout,
            max_attempts: self.max_attempts,
            retry_status: self.retry_status,
            max_body_bytes: self.max_body_bytes,
            sticky_ttl: self.sticky_ttl,
            health: self.health.map(RawHealth::check).transpose()?,
        };
        let lookup = Lookup {
            service: Arc::from(name),
            registered_as: self.registered_as.unwrap_or_else(|| name.to_owned()),
            tags: self.tags,
            allow_empty: self.allow_empty,
        };
        Ok(Declared { settings: Arc::new(settings), lookup })
    }
}

impl RawTls {
    fn check(self, folder: &Path, http2: bool, host: Option<&str>) -> Result<Connector, String> {
        let host =
            || host.and_then(|host| host.parse::<http::uri::Authority>().ok()).map(|host| host.host().to_owned());
        let server_name = self.server_name.or_else(host);
        let connector = Connector::new(&client::Settings {
            server_name,
            ca: self.ca.map(|file| folder.join(file)),
            certificate: self.certificate.map(|pair| pair.at(folder)),
            http2,
        });
        connector.map_err(|problem| format!("tls: {problem}"))
    }
}

impl RawHealth {
    fn check(self) -> Result<HealthCheck, String> {
        if !self.path.starts_with('/') || self.path.parse::<http::uri::PathAndQuery>().is_err() {
            return Err(format!("health.path: `{}` must start with `/` and be a path", self.path));
        }
        for (key, duration) in [("interval", self.interval), ("timeout", self.timeout)] {
            if duration < Duration::from_millis(10) {
                return Err(format!("health.{key}: must be at least 10ms"));
            }
        }
        if self.unhealthy_after == 0 || self.healthy_after == 0 {
            return Err("health: `unhealthy_after` and `healthy_after` must be at least 1".into());
        }
        Ok(HealthCheck {
            path: self.path,
            interval: self.interval,
            timeout: self.timeout,
            unhealthy_after: self.unhealthy_after,
            healthy_after: self.healthy_after,
        })
    }
}

fn check_listeners(listen: &[toml::Value], folder: &Path) -> Result<Vec<Listen>, String> {
    let one = |value: &toml::Value| match value {
        toml::Value::String(text) => Ok(Listen { address: check_address(text)?, proxy_protocol: false, tls: None }),
        toml::Value::Table(table) => {
            RawListen::deserialize(table.clone()).map_err(|e| e.message().to_owned())?.check(folder)
        }
        _ => Err("must be an address, or a table with one".to_owned()),
    };
    let at = |number: usize, problem: String| format!("gateway.listen, number {}: {problem}", number + 1);
    listen.iter().enumerate().map(|(number, value)| one(value).map_err(|problem| at(number, problem))).collect()
}

fn check_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("`{text}` is no address with a port, like `127.0.0.1:8080`"))
}

impl RawListen {
    fn check(self, folder: &Path) -> Result<Listen, String> {
        let address = check_address(&self.address)?;
        if self.certificates.is_empty() && (self.client_ca.is_some() || self.client_certificates.is_some()) {
            return Err("`client_ca` and `client_certificates` need `certificates`".into());
        }
        if self.client_ca.is_none() && self.client_certificates.is_some() {
            return Err("`client_certificates` needs `client_ca`: who says that a client's certificate is good?".into());
        }
        let tls = (!self.certificates.is_empty()).then(|| server::Settings {
            certificates: self.certificates.into_iter().map(|pair| pair.at(folder)).collect(),
            client_ca: self.client_ca.map(|file| folder.join(file)),
            client_required: self.client_certificates != Some(ClientCertificates::Optional),
        });
        Ok(Listen { address, proxy_protocol: self.proxy_protocol, tls })
    }
}

fn check_host(text: &str) -> Result<http::HeaderValue, String> {
    let good =
        http::HeaderValue::from_str(text).ok().filter(|_| crate::http::request::check::is_authority(text.as_bytes()));
    good.ok_or_else(|| format!("host: `{text}` is no host, like `shop.example` or `shop.example:8080`"))
}

fn check_networks(texts: &[String]) -> Result<Vec<IpNet>, String> {
    let read = |text: &String| text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let wrong =
        |text: &String| format!("gateway.trusted_proxies: `{text}` is no network, like `10.0.0.0/8`, and no address");
    texts.iter().map(|text| read(text).map_err(|_| wrong(text))).collect()
}

fn check_names(names: &[String]) -> Result<Untrusted, String> {
    Untrusted::new(names.iter().map(String::as_str))
        .map_err(|problem| format!("gateway.remove_from_untrusted: {problem}"))
}

fn check_hash_on(text: Option<&str>) -> Result<HashOn, String> {
    let wrong =
        || format!("hash_on: `{}` is none of `client-address`, `header:NAME`, `cookie:NAME`", text.unwrap_or(""));
    match text {
        None | Some("client-address") => Ok(HashOn::ClientAddress),
        Some(text) => match text.split_once(':') {
            Some(("header", name)) => name.parse().map(HashOn::Header).map_err(|_| wrong()),
            Some(("cookie", name)) if !name.is_empty() => Ok(HashOn::Cookie(name.into())),
            _ => Err(wrong()),
        },
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
