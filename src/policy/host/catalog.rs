//! `catalog`: services and endpoints as the request's snapshot has them, loads as they are now.

use crate::base::chance::Chance;
use crate::policy::bindings::wayside::policy::catalog::{Description, Endpoint, Host, Knowledge, ServiceInfo};
use crate::policy::context::Context;
use crate::policy::question::Question;
use crate::service::tape::{Asked, DescribedNow, EndpointNow, KnownNow, LoadedNow, ServiceNow};
use crate::service::{self, has_all};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

impl Host for Context {
    fn service(&mut self, name: String) -> Option<ServiceInfo> {
        let Question { catalog, started, wall, .. } = self.question("catalog.service")?;
        let service = catalog.service(&name)?;
        let now = || ServiceNow {
            usable: count(service.usable()),
            in_flight: service.endpoints.iter().fold(0, |sum, endpoint| sum.saturating_add(endpoint.in_flight())),
            age_ms: ms(service.live.age_at(*started)),
            stale: service.live.stale.load(Relaxed),
        };
        let now = match wall {
            Some(wall) => wall.service(&name, now),
            None => now(),
        };
        Some(ServiceInfo {
            endpoints: count(service.endpoints.len()),
            usable: now.usable,
            in_flight: now.in_flight,
            age_ms: now.age_ms,
            stale: now.stale,
        })
    }

    fn endpoints(&mut self, service: String, subset: Vec<(String, String)>) -> Vec<Endpoint> {
        let Some(Question { catalog, wall, .. }) = self.question("catalog.endpoints") else { return Vec::new() };
        let Some(service) = catalog.service(&service) else { return Vec::new() };
        let Some(wall) = wall else {
            return service
                .endpoints
                .iter()
                .filter(|e| has_all(&e.metadata, &subset))
                .map(|e| show(e, now(e)))
                .collect();
        };
        // Of all, so that a tape also says what another version asks for.
        let all = wall.endpoints(&service.name, || service.endpoints.iter().map(|e| now(e)).collect());
        let all = service.endpoints.iter().zip(all);
        all.filter(|(e, _)| has_all(&e.metadata, &subset)).map(|(e, now)| show(e, now)).collect()
    }

    fn least_loaded(
        &mut self,
        service: String,
        subset: Vec<(String, String)>,
        local_first: bool,
        count: u32,
    ) -> Vec<Endpoint> {
        let Some(Question { catalog, seed, wall, .. }) = self.question("catalog.least-loaded") else {
            return Vec::new();
        };
        let Some(service) = catalog.service(&service) else { return Vec::new() };
        // Not the sequence that the guest draws from, but as repeatable.
        let mut chance = Chance(!*seed);
        let fits = service.candidates().filter(|e| has_all(&e.metadata, &subset));
        // Loads change meanwhile, so each is read once.
        let keyed =
            fits.map(|e| ((local_first && !e.local, e.in_flight(), e.live.load.latency_us(), chance.next_u64()), e));
        let least = || least(keyed.collect(), count as usize).into_iter();
        let Some(wall) = wall else {
            return least().map(|(key, e)| show(e, loaded(key))).collect();
        };
        let note = |((_, in_flight, latency_us, _), e): Keyed<'_>| LoadedNow { id: e.id, in_flight, latency_us };
        let asked =
            Asked::LeastLoaded { service: service.name.as_ref().into(), subset: subset.clone(), local_first, count };
        let some = wall.least_loaded(asked, || least().map(note).collect());
        let shown = |now: LoadedNow| {
            let LoadedNow { id, in_flight, latency_us } = now;
            Some(show(service.endpoints.by_id(id)?, EndpointNow { usable: true, in_flight, latency_us }))
        };
        some.into_iter().filter_map(shown).collect()
    }

    fn find(&mut self, service: String, address: String) -> Option<Endpoint> {
        let at: SocketAddr = address.parse().ok()?;
        let Question { catalog, wall, .. } = self.question("catalog.find")?;
        let endpoint = catalog.service(&service)?.endpoints.by_address(at)?;
        let now = match wall {
            Some(wall) => wall.find(&service, &address, || now(endpoint)),
            None => now(endpoint),
        };
        Some(show(endpoint, now))
    }

    fn describe(&mut self, id: u32) -> Option<Description> {
        let Question { catalog, started, wall, .. } = self.question("catalog.describe")?;
        let endpoint = catalog.endpoint(id)?;
        let now = || DescribedNow {
            healthy: endpoint.usable(),
            ejected: endpoint.live.is_ejected(),
            age_ms: ms(started.saturating_duration_since(endpoint.live.born)),
        };
        let now = match wall {
            Some(wall) => wall.describe(id, now),
            None => now(),
        };
        Some(Description {
            service: endpoint.service.as_ref().to_owned(),
            address: endpoint.address.to_string(),
            zone: endpoint.zone.as_deref().map(str::to_owned),
            metadata: endpoint.metadata.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
            healthy: now.healthy,
            ejected: now.ejected,
            age_ms: now.age_ms,
        })
    }

    fn knowledge_of(&mut self, service: String) -> Option<Knowledge> {
        let Question { catalog, wall, .. } = self.question("catalog.knowledge-of")?;
        let service = catalog.service(&service)?;
        let now = || KnownNow {
            revision: service.reported.revision.as_str().into(),
            partial: service.live.partial.load(Relaxed),
            held: service.reported.held.is_some(),
        };
        let now = match wall {
            Some(wall) => wall.known(&service.name, now),
            None => now(),
        };
        Some(Knowledge { revision: now.revision.into(), partial: now.partial, held: now.held })
    }
}

/// How it is at this moment.
fn now(endpoint: &service::Endpoint) -> EndpointNow {
    EndpointNow {
        usable: endpoint.usable(),
        in_flight: endpoint.in_flight(),
        latency_us: endpoint.live.load.latency_us(),
    }
}

/// The same of one whose load was read.
fn loaded((_, in_flight, latency_us, _): Key) -> EndpointNow {
    EndpointNow { usable: true, in_flight, latency_us }
}

fn show(endpoint: &service::Endpoint, now: EndpointNow) -> Endpoint {
    Endpoint {
        id: endpoint.id,
        usable: now.usable,
        local: endpoint.local,
        weight: endpoint.weight,
        in_flight: now.in_flight,
        latency_us: now.latency_us,
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn ms(age: Duration) -> u32 {
    u32::try_from(age.as_millis()).unwrap_or(u32::MAX)
}

/// Farther, in flight, latency, chance.
type Key = (bool, u32, u32, u64);
type Keyed<'a> = (Key, &'a Arc<service::Endpoint>);

/// The first `count` in order of their keys, without sorting the rest.
fn least(mut all: Vec<Keyed<'_>>, count: usize) -> Vec<Keyed<'_>> {
    if count == 0 {
        return Vec::new();
    }
    if count < all.len() {
        all.select_nth_unstable_by_key(count - 1, |(key, _)| *key);
        all.truncate(count);
    }
    all.sort_unstable_by_key(|(key, _)| *key);
    all
}
