//! What entries refer to, by value: services with their endpoints, versions of policies, and where a file comes from.

use crate::discovery::Observed;
use crate::service::catalog::Catalog;
use crate::service::{Endpoint, Service, Settings};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

/// Endpoints of one revision, at most: what a reader makes of a file must have an end.
pub const MOST_ENDPOINTS: usize = 100_000;
/// The same of services.
pub const MOST_SERVICES: usize = 20_000;

/// The first frame of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    /// Of the format; 1.
    pub format: u32,
    /// The gateway's version.
    pub gateway: String,
    /// What compiled code depends on; see [`crate::policy::Engine::fingerprint`].
    pub engine: String,
    /// What the workers' seeds follow from.
    pub seed: u64,
    /// What was taken out.
    pub redact: Vec<String>,
}

/// The services at one time, or what is different in them from an earlier revision.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Its number in this file, from 1.
    pub number: u64,
    /// The one that it differs from; 0: it is whole.
    pub base: u64,
    /// Services that are new or different.
    pub put: Vec<ServiceSaid>,
    /// Names of services that are gone.
    pub gone: Vec<String>,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSaid {
    /// Its name.
    pub name: String,
    /// In the source's order.
    pub endpoints: Vec<EndpointSaid>,
}

/// An endpoint: what stands still of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointSaid {
    /// Its number while that gateway ran.
    pub id: u32,
    /// Where it listens.
    pub address: SocketAddr,
    /// Share of traffic.
    pub weight: u32,
    /// In the gateway's own zone.
    pub local: bool,
    /// Its zone.
    pub zone: Option<String>,
    /// What is said of it.
    pub metadata: Vec<(String, String)>,
}

/// Part of a file that could not be recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// How many exchanges.
    pub count: u64,
    /// Since when, ms since 1970-01-01 UTC.
    pub since_ms: u64,
    /// Why.
    pub why: String,
}

impl Revision {
    /// What is different in `now` from `before`, which has the number `base`; all of it, if there is none.
    pub fn between(before: Option<(u64, &Catalog)>, now: &Catalog, number: u64) -> Self {
        let same = |service: &&Arc<Service>| {
            let known = before.and_then(|(_, before)| before.service(&service.name));
            known.is_some_and(|known| Arc::ptr_eq(known, service))
        };
        let gone = |service: &&Arc<Service>| now.service(&service.name).is_none();
        Revision {
            number,
            base: before.map_or(0, |(base, _)| base),
            put: now.services().filter(|service| !same(service)).map(|service| ServiceSaid::of(service)).collect(),
            gone: before.map_or_else(Vec::new, |(_, before)| {
                before.services().filter(gone).map(|service| service.name.as_ref().to_owned()).collect()
            }),
        }
    }

    /// The services, as a replay asks them. `base`: those of the revision that it differs from.
    pub fn catalog(&self, base: &Catalog) -> Option<Catalog> {
        let mut catalog = base.clone();
        self.gone.iter().for_each(|name| catalog.remove(name));
        self.put.iter().for_each(|service| catalog.put(Arc::new(service.service())));
        fits(&catalog).then_some(catalog)
    }

    /// None: it names more than there can be.
    pub(super) fn within_bounds(self) -> Option<Self> {
        let endpoints: usize = self.put.iter().map(|service| service.endpoints.len()).sum();
        (endpoints <= MOST_ENDPOINTS && self.put.len() <= MOST_SERVICES).then_some(self)
    }
}

/// They are not too many to be recorded.
pub(super) fn fits(catalog: &Catalog) -> bool {
    let endpoints: usize = catalog.services().map(|service| service.endpoints.len()).sum();
    endpoints <= MOST_ENDPOINTS && catalog.services().count() <= MOST_SERVICES
}

impl ServiceSaid {
    fn of(service: &Service) -> Self {
        let endpoint = |endpoint: &Arc<Endpoint>| EndpointSaid {
            id: endpoint.id,
            address: endpoint.address,
            weight: endpoint.weight,
            local: endpoint.local,
            zone: endpoint.zone.as_deref().map(str::to_owned),
            metadata: endpoint.metadata.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        };
        ServiceSaid {
            name: service.name.as_ref().to_owned(),
            endpoints: service.endpoints.iter().map(endpoint).collect(),
        }
    }

    fn service(&self) -> Service {
        static SETTINGS: LazyLock<Arc<Settings>> = LazyLock::new(|| Arc::new(Settings::of("record")));
        static REPORTED: LazyLock<Arc<Observed>> = LazyLock::new(Arc::default);
        let endpoint = |said: &EndpointSaid| {
            Arc::new(Endpoint {
                weight: said.weight,
                local: said.local,
                zone: said.zone.as_deref().map(Arc::from),
                metadata: said.metadata.iter().cloned().collect(),
                ..Endpoint::of(&self.name, said.id, said.address)
            })
        };
        Service {
            name: self.name.as_str().into(),
            settings: Arc::clone(&SETTINGS),
            endpoints: self.endpoints.iter().map(endpoint).collect(),
            reported: Arc::clone(&REPORTED),
            digest: 0,
            tls: None,
            affinity: None,
            live: Arc::default(),
        }
    }
}
