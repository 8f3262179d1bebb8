//! What the data path sees: one immutable picture of services, routes and policies, loaded once per request.

use crate::policy::Scope;
use crate::route::Route;
use crate::service::Service;
use rustc_hash::FxHashMap;
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
    pub gateway: Arc<crate::config::Gateway>,
    /// What is told.
    pub telemetry: Arc<crate::config::Telemetry>,
    /// By name.
    pub services: FxHashMap<Arc<str>, Arc<Service>>,
    /// In the config file's order; the first that fits is taken.
    pub routes: Vec<Route>,
    /// In file-name order; asked one after the other.
    pub policies: Vec<Arc<Scope>>,
}

impl Snapshot {
    /// The service of this name.
    pub fn service(&self, name: &str) -> Option<&Arc<Service>> {
        self.services.get(name)
    }
}
