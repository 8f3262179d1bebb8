//! What the data path sees: one immutable picture of services, routes and policies, loaded once per request.

use crate::http::settings;
use crate::policy::Scope;
use crate::service::Service;
use crate::service::catalog::Catalog;
use crate::service::route::Route;
use std::sync::Arc;

/// One published state of the world.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Counts publications, from 1.
    pub generation: u64,
    /// Hash of all that was declared and observed, 12 hex digits; equal state has an equal digest.
    pub digest: String,
    /// Why the newest configuration file is not the one in force.
    pub config_error: Option<String>,
    /// Bounds of the gateway as a whole.
    pub gateway: Arc<settings::Gateway>,
    /// What is told.
    pub telemetry: Arc<settings::Telemetry>,
    /// The services.
    pub catalog: Arc<Catalog>,
    /// In the config file's order; the first that fits is taken.
    pub routes: Vec<Route>,
    /// In file-name order; asked one after the other.
    pub policies: Vec<Arc<Scope>>,
}

impl Snapshot {
    /// The service of this name.
    pub fn service(&self, name: &str) -> Option<&Arc<Service>> {
        self.catalog.service(name)
    }

    /// All of them, in no order.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.catalog.services()
    }
}
