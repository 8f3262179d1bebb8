//! `catalog`: services and endpoints as the request's snapshot has them, loads as they are now.

use crate::base::chance::Chance;
use crate::policy::bindings::wayside::policy::catalog::{Description, Endpoint, Host, Knowledge, ServiceInfo};
use crate::policy::context::Context;
use crate::service::{self, has_all};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

impl Host for Context {
    fn service(&mut self, name: String) -> Option<ServiceInfo> {
        let question = self.question("catalog.service")?;
        let service = question.catalog.service(&name)?;
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Some(ServiceInfo {
            endpoints: count(service.endpoints.len()),
            usable: count(service.usable()),
            in_flight: service.endpoints.iter().fold(0, |sum, endpoint| sum.saturating_add(endpoint.in_flight())),
            age_ms: ms(service.live.age_at(question.started)),
            stale: service.live.stale.load(Relaxed),
        })
    }

    fn endpoints(&mut self, service: String, subset: Vec<(String, String)>) -> Vec<Endpoint> {
        let Some(question) = self.question("catalog.endpoints") else { return Vec::new() };
        let Some(service) = question.catalog.service(&service) else { return Vec::new() };
        service.endpoints.iter().filter(|e| has_all(&e.metadata, &subset)).map(|e| show(e)).collect()
    }

    fn least_loaded(
        &mut self,
        service: String,
        subset: Vec<(String, String)>,
        local_first: bool,
        count: u32,
    ) -> Vec<Endpoint> {
        let Some(question) = self.question("catalog.least-loaded") else { return Vec::new() };
        let Some(service) = question.catalog.service(&service) else { return Vec::new() };
        // Not the sequence that the guest draws from, but as repeatable.
        let mut chance = Chance(!question.seed);
        let fits = service.candidates().filter(|e| has_all(&e.metadata, &subset));
        // Loads change meanwhile, so each is read once.
        let keyed =
            fits.map(|e| ((local_first && !e.local, e.in_flight(), e.live.load.latency_us(), chance.next_u64()), e));
        least(keyed.collect(), count as usize).into_iter().map(|(_, e)| show(e)).collect()
    }

    fn find(&mut self, service: String, address: String) -> Option<Endpoint> {
        let address: SocketAddr = address.parse().ok()?;
        let service = self.question("catalog.find")?.catalog.service(&service)?;
        service.endpoints.by_address(address).map(|e| show(e))
    }

    fn describe(&mut self, id: u32) -> Option<Description> {
        let question = self.question("catalog.describe")?;
        let endpoint = question.catalog.endpoint(id)?;
        Some(Description {
            service: endpoint.service.as_ref().to_owned(),
            address: endpoint.address.to_string(),
            zone: endpoint.zone.as_deref().map(str::to_owned),
            metadata: endpoint.metadata.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
            healthy: endpoint.usable(),
            ejected: endpoint.live.is_ejected(),
            age_ms: ms(question.started.saturating_duration_since(endpoint.live.born)),
        })
    }

    fn knowledge_of(&mut self, service: String) -> Option<Knowledge> {
        let service = self.question("catalog.knowledge-of")?.catalog.service(&service)?;
        Some(Knowledge {
            revision: service.reported.revision.clone(),
            partial: service.live.partial.load(Relaxed),
            held: service.reported.held.is_some(),
        })
    }
}

fn show(endpoint: &service::Endpoint) -> Endpoint {
    Endpoint {
        id: endpoint.id,
        usable: endpoint.usable(),
        local: endpoint.local,
        weight: endpoint.weight,
        in_flight: endpoint.in_flight(),
        latency_us: endpoint.live.load.latency_us(),
    }
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
