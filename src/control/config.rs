//! The configuration: what `wayside.toml` says, checked as a whole, in types that cannot be wrong.

use crate::base::digest;
use crate::base::files;
use crate::base::place::toml_problem;
use crate::discovery::registry::place::Place;
use crate::discovery::shelf::Shelf;
use crate::discovery::store;
use crate::discovery::{Lookup, SourceSettings};
use crate::http::settings::{Gateway, Policies, Telemetry};
use crate::http::tls::client::Connector;
use crate::service::Settings;
use crate::service::affinity;
use crate::service::middleware::{self, Chain};
use crate::service::plan::Plan;
use crate::service::rate_limit;
use crate::service::route::{Match, RawMatch};
use crate::service::subset::Subset;
use crate::service::tape;
use serde::Deserialize;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The largest file that is read, bytes.
const MAX_BYTES: u64 = 16 << 20;

/// A whole configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file that it came from.
    pub file: PathBuf,
    /// Of its text, and of the files of TLS with endpoints that it names: 12 hex digits.
    pub digest: String,
    /// `[gateway]`.
    pub gateway: Gateway,
    /// `[policies]`; none: no policies.
    pub policies: Option<Policies>,
    /// `[telemetry]`.
    pub telemetry: Telemetry,
    /// `[record]`.
    pub record: tape::settings::Settings,
    /// `[sources.NAME]`.
    pub sources: BTreeMap<Arc<str>, SourceSettings>,
    /// `[stores.NAME]`.
    pub stores: BTreeMap<Arc<str>, store::Settings>,
    /// `[services.NAME]`.
    pub services: BTreeMap<Arc<str>, Declared>,
    /// `[[middleware]]`, in file order.
    pub middleware: Arc<Chain>,
    /// `[[rate_limits]]`, in file order.
    pub rate_limits: Vec<Arc<rate_limit::Declared>>,
    /// `[[routes]]`, in file order.
    pub routes: Vec<DeclaredRoute>,
}

/// A declared service.
#[derive(Debug, Clone, PartialEq)]
pub struct Declared {
    /// How it is found, balanced, timed and retried.
    pub settings: Arc<Settings>,
    /// What makes TLS handshakes with its endpoints.
    pub tls: Option<Arc<Connector>>,
    /// What holds clients to endpoints.
    pub affinity: Option<Arc<affinity::Rule>>,
}

/// A declared route.
#[derive(Debug, Clone)]
pub struct DeclaredRoute {
    /// Its `name`, else what it matches.
    pub name: Arc<str>,
    /// Which requests it takes.
    pub matcher: Arc<Match>,
    /// Name of the service that it leads to.
    pub service: Arc<str>,
    /// Which of its endpoints.
    pub plan: Plan,
}

/// A configuration that cannot be used: the file, and all that is wrong with it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{}: {problem}", file.display())]
pub struct Error {
    /// The configuration file.
    pub file: PathBuf,
    /// What is wrong, with its key or line, and what to do.
    pub problem: String,
}

/// A configuration as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    gateway: Gateway,
    policies: Option<Policies>,
    #[serde(default)]
    telemetry: Telemetry,
    #[serde(default)]
    record: tape::settings::Settings,
    #[serde(default)]
    sources: BTreeMap<Arc<str>, toml::Table>,
    #[serde(default)]
    stores: BTreeMap<Arc<str>, toml::Table>,
    #[serde(default)]
    services: BTreeMap<Arc<str>, Settings>,
    #[serde(default)]
    middleware: Vec<middleware::Written>,
    #[serde(default)]
    rate_limits: Vec<rate_limit::settings::Written>,
    #[serde(default)]
    routes: Vec<WrittenRoute>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRoute {
    name: Option<String>,
    #[serde(rename = "match", default)]
    rule: RawMatch,
    service: Arc<str>,
    subset: Option<Subset>,
}

impl Config {
    /// Reads and checks a configuration file. Relative paths in it are relative to its folder.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn read(file: &Path) -> Result<Self, Error> {
        Self::parse(file, &Self::text(file)?)
    }

    /// The text of a configuration file.
    ///
    /// # Errors
    /// It cannot be read, or says nothing at all, as while it is being written.
    pub fn text(file: &Path) -> Result<String, Error> {
        let error = |problem: String| Error { file: file.to_owned(), problem };
        let text = files::read_text(file, MAX_BYTES).map_err(|e| error(format!("cannot be read: {e}")))?;
        let says_nothing = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
        if text.lines().all(says_nothing) {
            return Err(error("it is empty; write at least `[gateway]`".to_owned()));
        }
        Ok(text)
    }

    /// Checks the text of a configuration file.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn parse(file: &Path, text: &str) -> Result<Self, Error> {
        parse(file, text).map_err(|problem| Error { file: file.to_owned(), problem })
    }

    /// What only a restart can change stays as it is in `running`. Gives the keys of what differed.
    pub fn keep_until_restart(&mut self, running: &Config) -> Vec<&'static str> {
        let mut kept = Vec::new();
        keep(&mut self.gateway.listen, &running.gateway.listen, "gateway.listen", &mut kept);
        keep(&mut self.gateway.admin, &running.gateway.admin, "gateway.admin", &mut kept);
        keep(&mut self.gateway.admin_hosts, &running.gateway.admin_hosts, "gateway.admin_hosts", &mut kept);
        keep(&mut self.gateway.workers, &running.gateway.workers, "gateway.workers", &mut kept);
        keep(&mut self.telemetry.otlp, &running.telemetry.otlp, "telemetry.otlp", &mut kept);
        kept
    }

    /// What a source shall look up.
    pub fn lookups(&self, source: &str) -> Vec<Lookup> {
        let of_source =
            self.services.iter().filter(|(_, declared)| declared.settings.source.iter().any(|of| **of == *source));
        of_source.map(|(name, declared)| declared.settings.lookup(name)).collect()
    }

    /// What registries shall look up: by source, with what identifies its settings.
    pub fn all_lookups(&self) -> impl Iterator<Item = (Arc<str>, String, Lookup)> {
        let registries = self.sources.iter().filter(|(_, settings)| !settings.names_services());
        registries.flat_map(|(source, settings)| {
            let lookups = self.lookups(source).into_iter();
            lookups.map(|lookup| (Arc::clone(source), settings.identity(), lookup))
        })
    }

    /// What the gateway waits for before it is ready: each declared service, and each source that names its own.
    pub fn awaited(&self) -> HashSet<(Arc<str>, Option<Arc<str>>)> {
        let of = |(name, declared): (&Arc<str>, &Declared)| {
            let sources: Vec<_> = declared.settings.source.iter().map(Arc::clone).collect();
            let name = Arc::clone(name);
            sources.into_iter().map(move |source| (source, Some(Arc::clone(&name))))
        };
        let declared = self.services.iter().flat_map(of);
        let naming = self.sources.iter().filter(|(_, settings)| settings.names_services());
        declared.chain(naming.map(|(name, _)| (Arc::clone(name), None))).collect()
    }
}

fn parse(file: &Path, text: &str) -> Result<Config, String> {
    let written: Written = toml::from_str(text).map_err(|e| toml_problem(text, &e))?;
    let folder = file.parent().unwrap_or(Path::new(""));
    let Written { gateway, policies, telemetry, record, sources, stores, services, middleware, rate_limits, routes } =
        written;
    gateway.check().map_err(|e| format!("gateway.{e}"))?;
    telemetry.check().map_err(|e| format!("telemetry.{e}"))?;
    record.check().map_err(|e| format!("record.{e}"))?;
    let source = |(name, table)| match SourceSettings::parse(table, folder) {
        Ok(settings) => Ok((name, settings)),
        Err(problem) => Err(format!("sources.{name}: {problem}")),
    };
    let sources = sources.into_iter().map(source).collect::<Result<BTreeMap<Arc<str>, _>, String>>()?;
    let store = |(name, table): (Arc<str>, _)| match store::Settings::parse(table, folder) {
        _ if *name == *rate_limit::settings::LOCAL => Err(format!(
            "stores.{name}: this name is taken: as `store` of a rate limit, it says that each gateway counts for itself; \
             call the store something else"
        )),
        Ok(settings) => Ok((name, settings)),
        Err(problem) => Err(format!("stores.{name}: {problem}")),
    };
    let stores = stores.into_iter().map(store).collect::<Result<BTreeMap<Arc<str>, _>, String>>()?;
    let service = |(name, settings): (Arc<str>, Settings)| {
        let declared = declared(&name, settings, &sources, gateway.max_attempts, folder);
        declared.map(|declared| (Arc::clone(&name), declared)).map_err(|e| format!("services.{name}.{e}"))
    };
    let services = services.into_iter().map(service).collect::<Result<BTreeMap<Arc<str>, _>, String>>()?;
    // A source that names services may name some that are not declared here.
    let some_name = sources.values().any(SourceSettings::names_services);
    let route = |(index, written): (usize, WrittenRoute)| {
        let at = |e: String| format!("routes, number {}: {e}", index + 1);
        let WrittenRoute { name, rule, service, subset } = written;
        let matcher = Arc::new(rule.check().map_err(|e| at(format!("match.{e}")))?);
        if !services.contains_key(&service) && !some_name {
            return Err(at(format!("`service`: there is no `[services.{service}]`")));
        }
        let name = name.unwrap_or_else(|| matcher.label()).into();
        let plan = subset.map(|subset| subset.plan()).unwrap_or_default();
        Ok(DeclaredRoute { name, matcher, service, plan })
    };
    let routes = routes.into_iter().enumerate().map(route).collect::<Result<Vec<_>, String>>()?;
    let middleware = Chain::check(middleware, folder, |name| some_name || services.contains_key(name))
        .map_err(|problem| format!("middleware, {problem}"))?;
    let rate_limits = rate_limit::settings::check(rate_limits, |store| stores.contains_key(store));
    let rate_limits = rate_limits.map_err(|problem| format!("rate_limits, {problem}"))?;
    // What stands in its files is a part of what is declared.
    let mut declared = text.to_owned();
    for connector in services.values().filter_map(|declared| declared.tls.as_ref()) {
        declared.push_str(&connector.digest);
    }
    for rule in services.values().filter_map(|declared| declared.affinity.as_ref()) {
        declared.push_str(&rule.keys.digest);
    }
    declared.push_str(&middleware.digest);
    let gateway = gateway.at(folder);
    let record = record.at(folder, &gateway.state_directory);
    let policies = policies.map(|policies| policies.at(folder, &gateway.state_directory)).transpose();
    let policies = policies.map_err(|problem| format!("policies: {problem}"))?;
    if let Some(policies) = policies.as_ref().filter(|policies| policies.from.is_some()) {
        shelf(policies).map_err(|problem| format!("policies.from: {problem}"))?;
    }
    Ok(Config {
        file: file.to_owned(),
        digest: digest::short(declared.as_bytes()),
        gateway,
        policies,
        telemetry,
        record,
        sources,
        stores,
        services,
        middleware: Arc::new(middleware),
        rate_limits,
        routes,
    })
}

/// Where policies are copied from.
///
/// # Errors
/// There is none, or what is wrong with it.
pub(super) fn shelf(policies: &Policies) -> Result<Shelf, String> {
    let place: Place = policies.from.as_deref().unwrap_or_default().parse()?;
    let Policies { username, password_file, token_file, ca, .. } = policies.clone();
    Shelf::at(&place.with(username, password_file, token_file, ca))
}

/// A service that was checked.
fn declared(
    name: &Arc<str>,
    settings: Settings,
    sources: &BTreeMap<Arc<str>, SourceSettings>,
    most_attempts: u32,
    folder: &Path,
) -> Result<Declared, String> {
    if settings.source.is_empty() {
        return Err("source: is missing; name one of `[sources]`".into());
    }
    for named in settings.source.iter() {
        let source = sources.get(named).ok_or_else(|| format!("source: there is no `[sources.{named}]`"))?;
        source.check(&settings.lookup(name))?;
    }
    settings.check(most_attempts)?;
    let (tls, affinity) = (settings.connector(folder)?, settings.affinity(folder)?);
    Ok(Declared { settings: Arc::new(settings), tls, affinity })
}

fn keep<T: Clone + PartialEq>(new: &mut T, running: &T, key: &'static str, kept: &mut Vec<&'static str>) {
    if new != running {
        new.clone_from(running);
        kept.push(key);
    }
}

#[cfg(test)]
mod tests;
