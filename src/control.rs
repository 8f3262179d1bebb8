//! Control: the only writer. Reports of sources and lists of policies come in, one immutable snapshot goes out.

use crate::admin;
use crate::config::{Config, default_settings};
use crate::discovery::{Entry, Lookup, Observed, Report, Reports, Source};
use crate::gateway::Shared;
use crate::policy::{Engine, EngineSettings, Scope, directory::Directory};
use crate::route::Route;
use crate::service::{Endpoint, Live, Service, ServiceLive};
use crate::snapshot::Snapshot;
use anyhow::Context;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::mpsc;

/// The running control.
#[derive(Debug)]
pub struct Control {
    /// Where the admin listens.
    pub admin: SocketAddr,
}

/// How long the ready line waits for sources that do not answer.
const FIRST_ANSWERS: Duration = Duration::from_secs(5);

/// All that a snapshot is made of.
struct State {
    config: Config,
    shared: Arc<Shared>,
    observed: BTreeMap<Arc<str>, (Arc<str>, Observed)>,
    policies: Vec<Arc<Scope>>,
    known: HashMap<(Arc<str>, SocketAddr), (u32, Arc<Live>)>,
    services: HashMap<Arc<str>, Arc<ServiceLive>>,
    next_id: u32,
    generation: u64,
    answered: HashSet<Arc<str>>,
}

impl Control {
    /// Starts sources, policies and admin on the current runtime, and waits for their first answers.
    ///
    /// # Errors
    /// The admin's address is taken, or a source's or the policies' settings cannot be used.
    pub async fn start(config: Config, shared: Arc<Shared>) -> anyhow::Result<Self> {
        let listener = tokio::net::TcpListener::bind(config.gateway.admin)
            .await
            .with_context(|| format!("gateway.admin: cannot listen on {}", config.gateway.admin))?;
        let admin = listener.local_addr()?;
        tokio::spawn(admin::serve(listener, Arc::clone(&shared)));
        let (to, mut reports) = mpsc::channel(64);
        for (name, settings) in &config.sources {
            let source: Arc<dyn Source> = settings.build().map_err(|e| anyhow::anyhow!("sources.{name}: {e}"))?;
            let lookups: Vec<Lookup> =
                config.services.values().filter(|d| d.settings.source == *name).map(|d| d.lookup.clone()).collect();
            tokio::spawn(source.watch(lookups, Reports { source: Arc::clone(name), to: to.clone() }));
        }
        let (policies_to, mut policies) = mpsc::channel(1);
        let mut waiting_for_policies = false;
        if let Some(declared) = &config.policies {
            let engine = Engine::new(EngineSettings::for_workers(config.gateway.workers))?;
            let program = std::env::current_exe()?;
            let directory = Directory::open(&declared.directory, &declared.cache, &program, engine)
                .map_err(|e| anyhow::anyhow!("{e}"))?;
            tokio::spawn(directory.watch(policies_to));
            waiting_for_policies = true;
        }
        let mut state = State {
            config,
            shared,
            observed: BTreeMap::new(),
            policies: Vec::new(),
            known: HashMap::new(),
            services: HashMap::new(),
            next_id: 1,
            generation: 0,
            answered: HashSet::new(),
        };
        state.publish();
        let sources = state.expected();
        let deadline = tokio::time::Instant::now() + FIRST_ANSWERS;
        while waiting_for_policies || !sources.is_subset(&state.answered) {
            tokio::select! {
                Some((source, report)) = reports.recv() => state.report(source, report),
                Some(scopes) = policies.recv() => {
                    state.policies = scopes;
                    waiting_for_policies = false;
                }
                () = tokio::time::sleep_until(deadline), if !waiting_for_policies => break,
            }
        }
        state.publish();
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_millis(250));
            loop {
                tokio::select! {
                    Some((source, report)) = reports.recv() => { state.report(source, report); state.publish(); }
                    Some(scopes) = policies.recv() => { state.policies = scopes; state.publish(); }
                    _ = tick.tick() => state.try_again(),
                }
            }
        });
        Ok(Control { admin })
    }
}

impl State {
    /// The declared services: each must have been answered for before the gateway is ready.
    fn expected(&self) -> HashSet<Arc<str>> {
        self.config.services.keys().cloned().collect()
    }

    fn report(&mut self, source: Arc<str>, report: Report) {
        match report {
            Report::Service(service, observed) => {
                self.answered.insert(Arc::clone(&service));
                self.observe(service, source, observed);
            }
            Report::All(services) => {
                self.answered.extend(
                    self.config
                        .services
                        .iter()
                        .filter(|(_, d)| d.settings.source == source)
                        .map(|(n, _)| Arc::clone(n)),
                );
                self.observed.retain(|_, (from, _)| *from != source);
                for (service, observed) in services {
                    self.observe(service, Arc::clone(&source), observed);
                }
            }
            Report::Failed(service, problem) => {
                tracing::warn!(%source, service = service.as_deref().unwrap_or("all"), problem, "source failed; what was known stays");
                let of_source = |name: &Arc<str>| self.observed.get(name).is_some_and(|(from, _)| *from == source);
                for (name, live) in &self.services {
                    if service.as_ref().map_or_else(|| of_source(name), |service| service == name) {
                        live.stale.store(true, Relaxed);
                    }
                }
            }
        }
    }

    /// A service's list was read. One that is held back confirms nothing, so its age goes on.
    fn observe(&mut self, service: Arc<str>, source: Arc<str>, observed: Observed) {
        let live = self.services.entry(Arc::clone(&service)).or_default();
        live.stale.store(false, Relaxed);
        if observed.held.is_none() {
            live.confirmed_ms.store(crate::time::process_ms(), Relaxed);
        }
        self.observed.insert(service, (source, observed));
    }

    /// Builds the next snapshot aside and publishes it.
    fn publish(&mut self) {
        let mut services = HashMap::new();
        let mut seen = HashSet::new();
        let declared: Vec<(Arc<str>, _)> =
            self.config.services.iter().map(|(name, d)| (Arc::clone(name), Arc::clone(&d.settings))).collect();
        let from_files = self.observed.iter().filter(|(name, _)| !self.config.services.contains_key(*name));
        let found: Vec<(Arc<str>, _)> =
            from_files.map(|(name, (source, _))| (Arc::clone(name), Arc::new(default_settings(source)))).collect();
        let routed: Vec<(Arc<str>, _)> = self
            .config
            .routes
            .iter()
            .filter(|route| {
                !self.config.services.contains_key(&route.service) && !self.observed.contains_key(&route.service)
            })
            .map(|route| (Arc::clone(&route.service), Arc::new(default_settings(&Arc::from("none")))))
            .collect();
        for (name, settings) in declared.into_iter().chain(found).chain(routed) {
            let live = Arc::clone(self.services.entry(Arc::clone(&name)).or_default());
            let entries = self.observed.get(&name).filter(|(source, _)| *source == settings.source);
            let entries = entries.map(|(_, observed)| observed.endpoints.clone()).unwrap_or_default();
            let endpoints = entries.into_iter().map(|entry| self.endpoint(&name, entry, &mut seen)).collect();
            services.insert(Arc::clone(&name), Arc::new(Service { name, settings, endpoints, live }));
        }
        self.known.retain(|key, _| seen.contains(key));
        let routes = self.config.routes.iter().filter_map(|route| {
            let service = Arc::clone(services.get(&route.service)?);
            Some(Route { name: Arc::clone(&route.name), matcher: route.matcher.clone(), service })
        });
        let routes = routes.collect();
        let told = format!(
            "{:?} {:?}",
            self.observed,
            self.policies.iter().map(|p| (&p.name, format!("{:?}", p.standing))).collect::<Vec<_>>()
        );
        self.generation += 1;
        self.shared.snapshot.store(Arc::new(Snapshot {
            generation: self.generation,
            digest: crate::digest::short(told.as_bytes()),
            gateway: Arc::new(self.config.gateway.clone()),
            telemetry: Arc::new(self.config.telemetry.clone()),
            services,
            routes,
            policies: self.policies.clone(),
        }));
    }

    /// An endpoint keeps its number and its live state while its address stays.
    fn endpoint(
        &mut self,
        service: &Arc<str>,
        entry: Entry,
        seen: &mut HashSet<(Arc<str>, SocketAddr)>,
    ) -> Arc<Endpoint> {
        let key = (Arc::clone(service), entry.address);
        let next = &mut self.next_id;
        let (id, live) = self.known.entry(key.clone()).or_insert_with(|| {
            *next += 1;
            (*next, Arc::default())
        });
        let zone: Option<Arc<str>> = entry.metadata.get("zone").map(|zone| Arc::from(zone.as_str()));
        let own = self.config.gateway.zone.as_ref();
        seen.insert(key);
        Arc::new(Endpoint {
            id: *id,
            service: Arc::clone(service),
            address: entry.address,
            weight: entry.weight,
            local: own.is_none() || zone.is_none() || own == zone.as_ref(),
            zone,
            metadata: entry.metadata,
            source_healthy: entry.healthy,
            live: Arc::clone(live),
        })
    }

    /// Endpoints that failing connects made unhealthy get another chance: one more failure puts them aside again.
    fn try_again(&self) {
        let now = crate::time::process_ms();
        for (_, live) in self.known.values() {
            if !live.healthy.load(Relaxed) && live.retry_at_ms.load(Relaxed) <= now {
                live.failed_connects.store(2, Relaxed);
                live.healthy.store(true, Relaxed);
            }
        }
    }
}
