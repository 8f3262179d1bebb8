//! The world as control knows it: what is declared, what was observed, and who is who. Snapshots are built from it.

mod known;
mod merge;

use crate::base::time::process_ms;
use crate::control::config::{Config, Declared, DeclaredRoute};
use crate::control::last_known::Kept;
use crate::discovery::left_out::LeftOut;
use crate::discovery::store::Stores;
use crate::discovery::{Observed, Report};
use crate::policy::Scopes;
use crate::service::affinity::Affinity;
use crate::service::balance;
use crate::service::catalog::Catalog;
use crate::service::decision::Forward;
use crate::service::endpoints::changed;
use crate::service::health::settings::Initial;
use crate::service::middleware::Chain;
use crate::service::rate_limit::Limits;
use crate::service::route::{Index, Route, Routes};
use crate::service::{Endpoint, Endpoints, Service, ServiceLive, Settings};
use crate::snapshot::Snapshot;
use known::{Known, Maker};
use merge::Merge;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

/// All that a snapshot is made of.
pub(super) struct World {
    /// What is declared.
    pub(super) config: Config,
    /// Why the newest configuration file is not the one in force.
    pub(super) config_error: Option<String>,
    /// What is in the policies' directory.
    pub(super) policies: Scopes,
    /// Where their state and the limits' is shared.
    pub(super) stores: Stores,
    rate_limits: Limits,
    /// The configuration's, with what they have counted so far.
    middleware: Arc<Chain>,
    /// By service. An endpoint stays itself while its service lists its address.
    known: BTreeMap<Arc<str>, Known>,
    /// Of the digests of all of them. Each has its service's name in it, so their order is no part of it.
    sum: u64,
    /// Of services with more than one source.
    merges: BTreeMap<Arc<str>, Merge>,
    services: HashMap<Arc<str>, Arc<ServiceLive>>,
    /// Services that remember endpoints that left them.
    left: HashSet<Arc<str>>,
    /// Names of services that are another one in the next snapshot.
    changed: HashSet<Arc<str>>,
    /// Of those that were another one in the last.
    published: HashSet<Arc<str>>,
    /// As they were published last.
    catalog: Arc<Catalog>,
    routes: Routes,
    /// Of the configuration's routes.
    index: Arc<Index>,
    /// Numbers given to endpoints so far.
    given: u32,
    generation: u64,
}

impl World {
    /// Nothing was observed yet.
    pub(super) fn new(config: Config) -> Self {
        let mut world = World {
            config,
            config_error: None,
            policies: Scopes::default(),
            stores: Stores::default(),
            rate_limits: Limits::default(),
            middleware: Arc::default(),
            known: BTreeMap::new(),
            sum: 0,
            merges: BTreeMap::new(),
            services: HashMap::new(),
            left: HashSet::new(),
            changed: HashSet::new(),
            published: HashSet::new(),
            catalog: Arc::default(),
            routes: Routes::default(),
            index: Arc::default(),
            given: 0,
            generation: 0,
        };
        world.regroup();
        world.all_changed();
        world
    }

    /// Another configuration. What was observed stays, until a service's new source reports it.
    pub(super) fn declare(&mut self, config: Config) {
        self.config = config;
        self.config_error = None;
        let config = &self.config;
        self.known.retain(|service, known| {
            config.services.contains_key(service)
                || config.sources.get(&known.source).is_some_and(|source| source.names_services())
        });
        for (service, known) in &mut self.known {
            let failover = config.services.get(service).is_some_and(|declared| declared.settings.failover);
            known.seen_from(config.gateway.zone.as_ref(), failover);
        }
        self.sum = self.known.values().fold(0, |sum, known| sum.wrapping_add(known.digest));
        self.regroup();
        self.all_changed();
    }

    /// Who is reported by one source, and who by several, as it is declared now. What each of them said stays.
    fn regroup(&mut self) {
        let mut before = std::mem::take(&mut self.merges);
        let mut alone = Vec::new();
        for (service, declared) in &self.config.services {
            match (&*declared.settings.source, before.remove(service)) {
                ([source], Some(merge)) => {
                    let said = merge.said(source).map(|said| Observed::clone(said));
                    alone.extend(said.map(|said| (Arc::clone(service), Arc::clone(source), said)));
                }
                ([_], None) => {}
                (sources, merge) => {
                    let mut merge = merge.unwrap_or_default();
                    merge.of(sources);
                    if let Some(known) = self.known.get(service) {
                        merge.say(&known.source, Arc::clone(&known.observed));
                    }
                    self.merges.insert(Arc::clone(service), merge);
                }
            }
        }
        for (service, source, said) in alone {
            self.observe(service, &source, said);
        }
        let merged: Vec<_> = self.merges.keys().map(Arc::clone).collect();
        for service in merged {
            self.merge(&service);
        }
    }

    /// What is known of a service that several sources report.
    fn merge(&mut self, service: &Arc<str>) -> bool {
        let (Some(merge), Some(declared)) = (self.merges.get(service), self.config.services.get(service)) else {
            return false;
        };
        let settings = &declared.settings;
        let union = merge.union(settings.failover);
        let live = self.services.entry(Arc::clone(service)).or_default();
        live.partial.store(merge.partial(), Relaxed);
        match merge.stale() {
            true => live.stale.store(true, Relaxed),
            false if union.held.is_none() => confirm(live),
            false => live.stale.store(false, Relaxed),
        }
        let sources = settings.source.to_string().into();
        self.know(service, &sources, union)
    }

    fn all_changed(&mut self) {
        self.index = Arc::new(Index::of(self.config.routes.iter().map(|route| &*route.matcher)));
        self.routes = Routes::default();
        self.rate_limits = self.rate_limits.declare(&self.config.rate_limits);
        self.middleware = Arc::new(self.config.middleware.after(&self.middleware));
        let named = self.known.keys().chain(self.config.services.keys());
        let routed = self.config.routes.iter().map(|route| &route.service);
        let before = self.catalog.services().map(|service| &service.name);
        self.changed.extend(named.chain(routed).chain(before).map(Arc::clone));
    }

    /// Takes in a report. True: the world is another one now.
    pub(super) fn report(&mut self, source: &Arc<str>, report: Report) -> bool {
        match report {
            Report::Service(service, observed) => self.observe(service, source, observed),
            Report::All(services) => {
                let gone =
                    |service: &Arc<str>, known: &Known| known.source == *source && !services.contains_key(service);
                let gone: Vec<_> = self.known.extract_if(.., |service, known| gone(service, known)).collect();
                let mut changed = !gone.is_empty();
                for (service, known) in gone {
                    self.sum = self.sum.wrapping_sub(known.digest);
                    self.leave(&service, &known.endpoints);
                    self.changed.insert(service);
                }
                // A declared service that it does not name has no endpoints, which is an answer, too.
                let declared =
                    self.config.services.iter().filter(|(_, declared)| declared.settings.source.contains(source));
                let absent = declared.map(|(service, _)| service).filter(|service| !services.contains_key(*service));
                for service in absent.cloned().collect::<Vec<_>>() {
                    match self.merges.contains_key(&service) {
                        true => changed |= self.observe(service, source, Observed::default()),
                        false => confirm(self.services.entry(service).or_default()),
                    }
                }
                for (service, observed) in services {
                    changed |= self.observe(service, source, observed);
                }
                changed
            }
            Report::Confirmed => {
                let lasts = |known: &&Known| known.source == *source && known.observed.held.is_none();
                let services = self.known.iter().filter(|(_, known)| lasts(known)).map(|(service, _)| service);
                services.filter_map(|service| self.services.get(service)).for_each(confirm);
                self.parts(source, None, false)
            }
            Report::Failed(service, problem) => {
                let shown = service.as_deref().unwrap_or("all");
                tracing::warn!(%source, service = shown, problem, "source failed; what was known stays");
                for (name, live) in &self.services {
                    if service.as_ref().is_none_or(|service| service == name) && self.source(name) == Some(source) {
                        live.stale.store(true, Relaxed);
                    }
                }
                self.parts(source, service.as_ref(), true)
            }
        }
    }

    /// A source of several of a service's fails (for this service; none: for all), or lasts.
    fn parts(&mut self, source: &Arc<str>, service: Option<&Arc<str>>, failing: bool) -> bool {
        let concerned = |name: &Arc<str>| service.is_none_or(|service| service == name);
        let mut changed = false;
        for name in self.merges.keys().filter(|name| concerned(name)).cloned().collect::<Vec<_>>() {
            if let Some(merge) = self.merges.get_mut(&name).filter(|merge| merge.has(source)) {
                merge.fails(source, failing);
                changed |= self.merge(&name);
            }
        }
        changed
    }

    /// Who alone reports this service: the declared source, else the one that named it.
    fn source(&self, service: &str) -> Option<&Arc<str>> {
        match self.config.services.get(service) {
            Some(declared) => match &*declared.settings.source {
                [source] => Some(source),
                _ => None,
            },
            None => self.known.get(service).map(|known| &known.source),
        }
    }

    /// What the last process knew: it counts until the source reports, and is stale until then.
    pub(super) fn remember(&mut self, kept: Kept) {
        let Kept { source, lookup, observed, confirmed, .. } = kept;
        let service = lookup.service;
        self.observe(Arc::clone(&service), &source, Observed::clone(&observed));
        self.parts(&source, Some(&service), true);
        let live = self.services.entry(service).or_default();
        live.stale.store(true, Relaxed);
        live.confirmed(confirmed.elapsed().unwrap_or_default());
    }

    /// What each registry said last, of these services or of all, to be kept for the next process.
    pub(super) fn kept(&self, services: Option<&HashSet<Arc<str>>>) -> Vec<Kept> {
        let registries = self.config.sources.iter().filter(|(_, settings)| !settings.names_services());
        let registries: HashMap<&Arc<str>, String> =
            registries.map(|(source, settings)| (source, settings.identity())).collect();
        let now = SystemTime::now();
        let mut all = Vec::new();
        let names: Box<dyn Iterator<Item = &Arc<str>>> = match services {
            Some(some) => Box::new(some.iter()),
            None => Box::new(self.config.services.keys()),
        };
        for (service, declared) in names.filter_map(|name| self.config.services.get_key_value(name)) {
            let Some(live) = self.services.get(service) else { continue };
            let confirmed = now.checked_sub(live.age()).unwrap_or(SystemTime::UNIX_EPOCH);
            for source in &*declared.settings.source {
                let Some(settings) = registries.get(source) else { continue };
                let said = match self.merges.get(service) {
                    Some(merge) => merge.said(source),
                    None => {
                        self.known.get(service).filter(|known| known.source == *source).map(|known| &known.observed)
                    }
                };
                if let Some(observed) = said {
                    let (lookup, settings) = (declared.settings.lookup(service), settings.clone());
                    let (source, observed) = (Arc::clone(source), Arc::clone(observed));
                    all.push(Kept { source, settings, lookup, observed, confirmed });
                }
            }
        }
        all
    }

    /// A service's list was read. One that is held back confirms nothing, so its age goes on.
    fn observe(&mut self, service: Arc<str>, source: &Arc<str>, observed: Observed) -> bool {
        if let Some(merge) = self.merges.get_mut(&service).filter(|merge| merge.has(source)) {
            merge.say(source, Arc::new(observed));
            return self.merge(&service);
        }
        if let Some(other) = self.source(&service).filter(|other| *other != source) {
            tracing::debug!(%service, %source, %other, "left alone: it belongs to another source");
            return false;
        }
        let live = self.services.entry(Arc::clone(&service)).or_default();
        live.partial.store(false, Relaxed);
        match observed.held {
            None => confirm(live),
            Some(_) => live.stale.store(false, Relaxed),
        }
        self.know(&service, source, observed)
    }

    /// This counts for a service from now on. True: it is something else than before.
    fn know(&mut self, service: &Arc<str>, source: &Arc<str>, observed: Observed) -> bool {
        let before = self.known.get(service);
        let settings = self.config.services.get(service).map(|declared| &*declared.settings);
        let failover = settings.is_some_and(|settings| settings.failover);
        let health = settings.and_then(|settings| settings.health.as_ref());
        let unchecked = health.is_some_and(|health| health.initial == Initial::Unhealthy);
        let zone = self.config.gateway.zone.as_ref();
        let live = self.services.entry(Arc::clone(service)).or_default();
        let maker = Maker { service, live, zone, failover, unchecked, given: &mut self.given };
        let told = before.filter(|known| known.source == *source).map(|known| Arc::clone(&known.observed));
        let Some(known) = Known::after(before, source, observed, maker) else { return false };
        let told = told.as_ref().map_or(&[][..], |told| &told.left_out);
        for LeftOut { entry, reason } in known.observed.left_out.iter().filter(|left_out| !told.contains(left_out)) {
            tracing::warn!(%service, %source, entry, reason, "an entry is left out");
        }
        self.changed.insert(Arc::clone(service));
        self.sum = self.sum.wrapping_add(known.digest);
        if let Some(before) = self.known.insert(Arc::clone(service), known) {
            self.sum = self.sum.wrapping_sub(before.digest);
            self.leave(service, &before.endpoints);
        }
        true
    }

    /// Of these endpoints, a service remembers those that it has no longer.
    fn leave(&mut self, service: &Arc<str>, before: &Endpoints) {
        let Some(live) = self.services.get(service) else { return };
        let nobody = Endpoints::default();
        let now = self.known.get(service).map_or(&nobody, |known| &known.endpoints);
        let (gone, _) = changed(before, now);
        let mut gone = gone.iter().filter(|endpoint| now.place(endpoint.id).is_none()).peekable();
        if gone.peek().is_some() {
            live.left.leave(gone, process_ms());
            self.left.insert(Arc::clone(service));
        }
    }

    /// The next snapshot. Services that did not change are those of the last one.
    pub(super) fn snapshot(&mut self) -> Snapshot {
        if !self.changed.is_empty() {
            let mut catalog = Catalog::clone(&self.catalog);
            for name in self.changed.clone() {
                match self.service(&name) {
                    Some(service) => catalog.put(Arc::new(service)),
                    None => {
                        catalog.remove(&name);
                        self.services.remove(&name);
                    }
                }
            }
            self.catalog = Arc::new(catalog);
            let leads_to_another = |route: &DeclaredRoute| self.changed.contains(&route.service);
            if self.config.routes.iter().any(leads_to_another) {
                self.routes = self.routes();
            }
        }
        self.published = std::mem::take(&mut self.changed);
        self.generation += 1;
        Snapshot {
            generation: self.generation,
            digest: self.digest(),
            config_digest: self.config.digest.clone(),
            config_error: self.config_error.clone(),
            gateway: Arc::new(self.config.gateway.clone()),
            telemetry: Arc::new(self.config.telemetry.clone()),
            record: Arc::new(self.config.record.clone()),
            catalog: Arc::clone(&self.catalog),
            middleware: Arc::clone(&self.middleware),
            routes: self.routes.clone(),
            policies: self.policies.clone(),
            rate_limits: self.rate_limits.clone(),
            stores: self.stores.clone(),
        }
    }

    /// Names of services that are another one in the last snapshot than in the one before, or are no longer in it.
    pub(super) fn published(&self) -> impl Iterator<Item = &Arc<str>> {
        self.published.iter()
    }

    /// The declared routes, with the services as they are now.
    fn routes(&self) -> Routes {
        let route = |declared: &DeclaredRoute| {
            let service = Arc::clone(self.catalog.service(&declared.service)?);
            let forward = Arc::new(Forward::to(service, declared.plan.clone()));
            Some(Route { name: Arc::clone(&declared.name), matcher: Arc::clone(&declared.matcher), forward })
        };
        Routes::new(self.config.routes.iter().filter_map(route).collect(), &self.index)
    }

    /// The service of this name, if it is declared, a source names it, or a route leads to it.
    fn service(&mut self, name: &Arc<str>) -> Option<Service> {
        let known = self.known.get(name);
        let by = |source: &str| Declared { settings: Arc::new(Settings::of(source)), tls: None, affinity: None };
        let routed = || self.config.routes.iter().any(|route| route.service == *name).then(|| by("none"));
        let declared = self.config.services.get(name).cloned();
        let declared = declared.or_else(|| known.map(|known| by(&known.source))).or_else(routed);
        let Declared { settings, tls, affinity } = declared?;
        let live = Arc::clone(self.services.entry(Arc::clone(name)).or_default());
        live.group.declare(settings.slow_start, settings.panic);
        live.admission.declare(&settings.limits, settings.adaptive, process_ms());
        let endpoints = known.map(|known| known.endpoints.clone()).unwrap_or_default();
        let before = self.catalog.service(name).and_then(|before| before.affinity.as_ref());
        let affinity = affinity.map(|rule| Affinity::after(before, &rule, name, &endpoints));
        let service = Service {
            name: Arc::clone(name),
            settings,
            endpoints,
            reported: known.map(|known| Arc::clone(&known.observed)).unwrap_or_default(),
            digest: known.map_or(0, |known| known.digest),
            tls,
            affinity,
            live,
        };
        balance::prepare(&service);
        Some(service)
    }

    /// The services as they were published last.
    pub(super) fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.catalog.services()
    }

    /// Endpoints that our own checks, their connects or their answers put aside, each with its service.
    pub(super) fn unhealthy(&self) -> Vec<(Arc<Service>, Arc<Endpoint>)> {
        let of = |service: &Arc<Service>| {
            let ready = service.endpoints.ready();
            let endpoints = ready.unhealthy.iter().filter_map(|place| service.endpoints.get(*place as usize));
            endpoints.map(|endpoint| (Arc::clone(service), Arc::clone(endpoint))).collect::<Vec<_>>()
        };
        self.catalog.services().flat_map(of).collect()
    }

    /// Forgets endpoints that left long ago and have finished.
    pub(super) fn tidy(&mut self, now_ms: u64) {
        let services = &self.services;
        self.left.retain(|name| services.get(name).is_some_and(|live| live.left.tidy(now_ms)));
    }

    /// All that was declared and observed, but for what only time changes, or what each gateway sees on its own way.
    fn digest(&self) -> String {
        let mut text = format!("configuration {}\n", self.config.digest);
        let _ = writeln!(text, "services {} {:016x}", self.known.len(), self.sum);
        for scope in self.policies.iter() {
            let version = scope.standing.live().map_or("none", |version| &version.id);
            let _ = writeln!(text, "policy {} {version}", scope.name);
        }
        crate::base::digest::short(text.as_bytes())
    }
}

fn confirm(live: &Arc<ServiceLive>) {
    live.stale.store(false, Relaxed);
    live.confirmed(Duration::ZERO);
}

#[cfg(test)]
mod tests;
