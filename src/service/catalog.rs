//! The services that there are, by name: what a policy may choose from.

use super::Service;
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// Services by name, as one snapshot sees them.
#[derive(Debug, Default)]
pub struct Catalog(FxHashMap<Arc<str>, Arc<Service>>);

impl Catalog {
    /// The service of this name.
    pub fn service(&self, name: &str) -> Option<&Arc<Service>> {
        self.0.get(name)
    }

    /// All of them, in no order.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.0.values()
    }
}

impl FromIterator<Arc<Service>> for Catalog {
    fn from_iter<T: IntoIterator<Item = Arc<Service>>>(services: T) -> Self {
        Catalog(services.into_iter().map(|service| (Arc::clone(&service.name), service)).collect())
    }
}
