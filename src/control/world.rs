//! The world as control knows it: what is declared, what was observed, and who is who. Snapshots are built from it.

use crate::control::config::{Config, Declared, DeclaredRoute};
use crate::discovery::left_out::LeftOut;
use crate::discovery::{Entry, Observed, Report};
use crate::policy::Scopes;
use crate::service::catalog::Catalog;
use crate::service::route::{Index, Route, Routes};
use crate::service::{Endpoint, Live, Service, ServiceLive, Settings};
use crate::snapshot::Snapshot;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// All that a snapshot is made of.
pub(super) struct World {
    /// What is declared.
    pub(super) config: Config,
    /// Why the newest configuration file is not the one in force.
    pub(super) config_error: Option<String>,
    /// What is in the policies' directory.
    pub(super) policies: Scopes,
    /// By service: the source that reported it, and what it said last.
    observed: BTreeMap<Arc<str>, (Arc<str>, Arc<Observed>)>,
    services: HashMap<Arc<str>, Arc<ServiceLive>>,
    endpoints: Identities,
    /// What was published last.
    catalog: Arc<Catalog>,
    /// Of the configuration's routes.
    index: Arc<Index>,
    generation: u64,
}

/// Number and live state of each endpoint, which stay its own while its service lists its address.
#[derive(Default)]
struct Identities {
    known: HashMap<(Arc<str>, SocketAddr), (u32, Arc<Live>)>,
    /// The numbers given so far.
    given: u32,
}

impl World {
    /// Nothing was observed yet.
    pub(super) fn new(config: Config) -> Self {
        let index = Arc::new(index(&config));
        World {
            config,
            config_error: None,
            policies: Scopes::default(),
            observed: BTreeMap::new(),
            services: HashMap::new(),
            endpoints: Identities::default(),
            catalog: Arc::default(),
            index,
            generation: 0,
        }
    }

    /// Another configuration. What was observed stays, until a service's new source reports it.
    pub(super) fn declare(&mut self, config: Config) {
        self.index = Arc::new(index(&config));
        self.config = config;
        self.config_error = None;
        let config = &self.config;
        self.observed.retain(|service, (source, _)| {
            config.services.contains_key(service) || config.sources.get(source).is_some_and(|s| s.names_services())
        });
    }

    /// Takes in a report. True: the world is another one now.
    pub(super) fn report(&mut self, source: &Arc<str>, report: Report) -> bool {
        match report {
            Report::Service(service, observed) => self.observe(service, source, observed),
            Report::All(services) => {
                let before = self.observed.len();
                self.observed.retain(|service, (from, _)| from != source || services.contains_key(service));
                let mut changed = self.observed.len() != before;
                // A declared service that it does not name has no endpoints, which is an answer, too.
                let declared = self.config.services.iter().filter(|(_, declared)| declared.settings.source == *source);
                for (service, _) in declared {
                    confirm(self.services.entry(Arc::clone(service)).or_default());
                }
                for (service, observed) in services {
                    changed |= self.observe(service, source, observed);
                }
                changed
            }
            Report::Failed(service, problem) => {
                let shown = service.as_deref().unwrap_or("all");
                tracing::warn!(%source, service = shown, problem, "source failed; what was known stays");
                for (name, live) in &self.services {
                    if service.as_ref().map_or_else(|| self.source(name) == Some(source), |service| service == name) {
                        live.stale.store(true, Relaxed);
                    }
                }
                false
            }
        }
    }

    /// Who reports this service: the declared source, else the one that named it.
    fn source(&self, service: &str) -> Option<&Arc<str>> {
        match self.config.services.get(service) {
            Some(declared) => Some(&declared.settings.source),
            None => self.observed.get(service).map(|(source, _)| source),
        }
    }

    /// A service's list was read. One that is held back confirms nothing, so its age goes on.
    fn observe(&mut self, service: Arc<str>, source: &Arc<str>, observed: Observed) -> bool {
        if let Some(other) = self.source(&service).filter(|other| *other != source) {
            tracing::debug!(%service, %source, %other, "left alone: it belongs to another source");
            return false;
        }
        let live = self.services.entry(Arc::clone(&service)).or_default();
        match observed.held {
            None => confirm(live),
            Some(_) => live.stale.store(false, Relaxed),
        }
        let known = self.observed.get(&service).filter(|(from, _)| from == source).map(|(_, known)| known);
        if known.is_some_and(|known| **known == observed) {
            return false;
        }
        let told = known.map_or(&[][..], |known| &known.left_out);
        for LeftOut { entry, reason } in observed.left_out.iter().filter(|left_out| !told.contains(left_out)) {
            tracing::warn!(%service, %source, entry, reason, "an entry is left out");
        }
        self.observed.insert(service, (Arc::clone(source), Arc::new(observed)));
        true
    }

    /// The next snapshot.
    pub(super) fn snapshot(&mut self) -> Snapshot {
        let mut services = Vec::new();
        let mut listed = HashSet::new();
        for (name, Declared { settings, tls }) in self.named() {
            let live = Arc::clone(self.services.entry(Arc::clone(&name)).or_default());
            let reported = self.observed.get(&name).map(|(_, observed)| Arc::clone(observed)).unwrap_or_default();
            let mut endpoints = Vec::with_capacity(reported.endpoints.len());
            for entry in &reported.endpoints {
                let key = (Arc::clone(&name), entry.address);
                let (id, live) = self.endpoints.of(&key);
                listed.insert(key);
                endpoints.push(Arc::new(endpoint(&name, entry, self.config.gateway.zone.as_ref(), id, live)));
            }
            let endpoints = endpoints.into_iter().collect();
            services.push(Arc::new(Service { name, settings, endpoints, reported, tls, live }));
        }
        self.endpoints.known.retain(|key, _| listed.contains(key));
        self.catalog = Arc::new(services.into_iter().collect());
        let catalog = &self.catalog;
        self.services.retain(|name, _| catalog.service(name).is_some());
        let route = |declared: &DeclaredRoute| {
            let service = Arc::clone(catalog.service(&declared.service)?);
            Some(Route { name: Arc::clone(&declared.name), matcher: Arc::clone(&declared.matcher), service })
        };
        let routes = Routes::new(self.config.routes.iter().filter_map(route).collect(), &self.index);
        self.generation += 1;
        Snapshot {
            generation: self.generation,
            digest: self.digest(),
            config_error: self.config_error.clone(),
            gateway: Arc::new(self.config.gateway.clone()),
            telemetry: Arc::new(self.config.telemetry.clone()),
            catalog: Arc::clone(&self.catalog),
            routes,
            policies: self.policies.clone(),
        }
    }

    /// Every service that is declared, that a source names, or that a route leads to.
    fn named(&self) -> Vec<(Arc<str>, Declared)> {
        let declared = self.config.services.iter().map(|(name, declared)| (Arc::clone(name), declared.clone()));
        let by = |source: &str| Declared { settings: Arc::new(Settings::of(source)), tls: None };
        let known = |name: &Arc<str>| self.config.services.contains_key(name);
        let observed = self.observed.iter().filter(|(name, _)| !known(name));
        let observed = observed.map(|(name, (source, _))| (Arc::clone(name), by(source)));
        let routed: HashSet<&Arc<str>> = self.config.routes.iter().map(|route| &route.service).collect();
        let routed = routed.into_iter().filter(|name| !known(name) && !self.observed.contains_key(*name));
        let routed = routed.map(|name| (Arc::clone(name), by("none")));
        declared.chain(observed).chain(routed).collect()
    }

    /// Endpoints that our own checks or connects call unhealthy.
    pub(super) fn unhealthy(&self) -> Vec<Arc<Endpoint>> {
        let of = |service: &Arc<Service>| {
            let endpoints = service.endpoints.clone();
            let ready = endpoints.ready();
            ready.unhealthy.iter().map(|place| Arc::clone(&endpoints[*place as usize])).collect::<Vec<_>>()
        };
        self.catalog.services().flat_map(of).collect()
    }

    /// All that was declared and observed, but for what only time changes.
    fn digest(&self) -> String {
        let policies: Vec<_> = self.policies.iter().map(|p| (&p.name, &p.standing, p.loading, &p.error)).collect();
        crate::base::digest::short(format!("{} {:?} {policies:?}", self.config.digest, self.observed).as_bytes())
    }
}

impl Identities {
    /// The endpoint's own; a new number for one that was not known, never given twice.
    fn of(&mut self, key: &(Arc<str>, SocketAddr)) -> (u32, Arc<Live>) {
        let given = &mut self.given;
        let new = || {
            *given += 1;
            (*given, Arc::default())
        };
        self.known.entry(key.clone()).or_insert_with(new).clone()
    }
}

fn index(config: &Config) -> Index {
    Index::of(config.routes.iter().map(|route| &*route.matcher))
}

fn confirm(live: &Arc<ServiceLive>) {
    live.stale.store(false, Relaxed);
    live.confirmed_ms.store(crate::base::time::process_ms(), Relaxed);
}

fn endpoint(service: &Arc<str>, entry: &Entry, own_zone: Option<&Arc<str>>, id: u32, live: Arc<Live>) -> Endpoint {
    let zone: Option<Arc<str>> = entry.metadata.get("zone").map(|zone| Arc::from(zone.as_str()));
    Endpoint {
        id,
        service: Arc::clone(service),
        address: entry.address,
        weight: entry.weight,
        local: own_zone.is_none() || zone.is_none() || own_zone == zone.as_ref(),
        zone,
        metadata: entry.metadata.clone(),
        source_healthy: entry.healthy,
        live,
    }
}

#[cfg(test)]
mod tests;
