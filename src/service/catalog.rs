//! The services that there are, by name, and their endpoints by number: what a policy may choose from.

mod by_id;

use super::{Endpoint, Endpoints, Service};
use by_id::ById;
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// Services by name, as one snapshot sees them. The next snapshot's is made of a clone, which shares what stays.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    services: FxHashMap<Arc<str>, Arc<Service>>,
    endpoints: ById,
}

impl Catalog {
    /// The service of this name.
    pub fn service(&self, name: &str) -> Option<&Arc<Service>> {
        self.services.get(name)
    }

    /// All of them, in no order.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// The endpoint with this number, whosever it is.
    pub fn endpoint(&self, id: u32) -> Option<&Arc<Endpoint>> {
        self.endpoints.get(id)
    }

    /// Adds this service, or puts it in the place of the one of that name.
    pub fn put(&mut self, service: Arc<Service>) {
        let before = self.services.insert(Arc::clone(&service.name), Arc::clone(&service));
        let before = before.as_ref().map_or(&[][..], |before| &before.endpoints);
        self.endpoints.replace(before, &service.endpoints);
    }

    /// Takes the service of this name out, if there is one.
    pub fn remove(&mut self, name: &str) {
        if let Some(before) = self.services.remove(name) {
            self.endpoints.replace(&before.endpoints, &Endpoints::default());
        }
    }
}

impl FromIterator<Arc<Service>> for Catalog {
    fn from_iter<T: IntoIterator<Item = Arc<Service>>>(services: T) -> Self {
        let mut catalog = Catalog::default();
        services.into_iter().for_each(|service| catalog.put(service));
        catalog
    }
}
