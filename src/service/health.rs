//! Active health checks: one task per endpoint of a service that declares `health`, run by control, once per gateway.

pub mod ejecting;
mod grpc;
mod http;
pub mod outlier;
pub mod settings;
mod statuses;
mod streak;
mod target;
mod tcp;

use super::endpoints::changed;
use super::{Endpoint, Service};
use crate::base::chance::Chance;
use settings::{HealthCheck, Kind};
use std::collections::HashMap;
use std::sync::Arc;
use streak::Streak;
use target::{Target, Terms, Unwell};

/// The checks that run.
#[derive(Debug, Default)]
pub struct Checks {
    running: HashMap<u32, Check>,
    /// The services as they were last seen.
    followed: HashMap<Arc<str>, Arc<Service>>,
}

/// One endpoint's check; dropping it ends it.
#[derive(Debug)]
struct Check(tokio::task::AbortHandle);

impl Drop for Check {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Checks {
    /// A service is another one from now on, or none: begins checks of endpoints that are new, ends those of endpoints that
    /// are gone, and leaves the others alone. Must be called on a tokio runtime.
    pub fn follow(&mut self, name: &Arc<str>, service: Option<&Arc<Service>>) {
        let known = self.followed.remove(name);
        match service.filter(|service| service.settings.health.is_some()) {
            Some(service) => {
                self.change(known.as_deref(), service);
                self.followed.insert(Arc::clone(name), Arc::clone(service));
            }
            None => known.iter().for_each(|known| self.end(&known.endpoints)),
        }
    }

    fn change(&mut self, known: Option<&Service>, service: &Arc<Service>) {
        let Some(health) = &service.settings.health else { return };
        let terms = Terms::of(service);
        let (gone, come) = match known {
            Some(known) if Terms::of(known) == terms => changed(&known.endpoints, &service.endpoints),
            // All of them are asked in another way now.
            Some(known) => {
                self.end(&known.endpoints);
                (&[][..], &*service.endpoints)
            }
            None => (&[][..], &*service.endpoints),
        };
        self.end(gone.iter().filter(|endpoint| service.endpoints.place(endpoint.id).is_none()));
        for endpoint in come {
            let begin = || {
                let watch = watch(Arc::clone(endpoint), terms.clone(), health.clone());
                Check(tokio::spawn(watch).abort_handle())
            };
            self.running.entry(endpoint.id).or_insert_with(begin);
        }
    }

    fn end<'a>(&mut self, endpoints: impl IntoIterator<Item = &'a Arc<Endpoint>>) {
        for endpoint in endpoints {
            self.running.remove(&endpoint.id);
        }
    }

    /// Is this endpoint's health found out by a check?
    pub fn covers(&self, endpoint: u32) -> bool {
        self.running.contains_key(&endpoint)
    }
}

/// Checks one endpoint until the task is ended.
async fn watch(endpoint: Arc<Endpoint>, terms: Terms, settings: HealthCheck) {
    let mut chance = Chance::seeded();
    let mut streak = Streak::default();
    loop {
        let target = Target::new(endpoint.address, &terms, &settings);
        let found = tokio::time::timeout(settings.timeout, ask(&target)).await;
        let (service, address) = (&endpoint.service, endpoint.address);
        let problem = match found {
            Ok(Ok(())) => Some(None),
            Ok(Err(Unwell::Theirs(problem))) => Some(Some(problem)),
            // Nothing was found out.
            Ok(Err(Unwell::Ours(problem))) => {
                tracing::debug!(endpoint = %address, problem, "not checked");
                None
            }
            Err(_) => Some(Some("no answer in time".to_owned())),
        };
        if let Some(problem) = problem
            && let Some(healthy) = streak.count(problem.is_none(), endpoint.live.is_reachable(), &settings)
        {
            endpoint.live.checked(healthy);
            match problem {
                None => tracing::info!(%service, endpoint = %address, "healthy"),
                Some(problem) => tracing::warn!(%service, endpoint = %address, problem, "unhealthy"),
            }
        }
        tokio::time::sleep(streak.pause(endpoint.live.is_reachable(), &settings, &mut chance)).await;
    }
}

/// One check.
async fn ask(target: &Target<'_>) -> Result<(), Unwell> {
    match target.check.kind {
        Kind::Http => http::check(target).await,
        Kind::Tcp => tcp::check(target).await,
        Kind::Grpc => grpc::check(target).await,
    }
}

#[cfg(test)]
mod tests;
