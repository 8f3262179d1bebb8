//! What the two flows share: one immutable picture of services, routes and policies. Control publishes it, and a request
//! loads it once.

pub mod vitals;

use crate::discovery::store::Stores;
use crate::http::settings;
use crate::policy::Scopes;
use crate::service::Service;
use crate::service::catalog::Catalog;
use crate::service::middleware::Chain;
use crate::service::rate_limit::Limits;
use crate::service::route::Routes;
use crate::service::tape;
use arc_swap::ArcSwap;
use std::sync::Arc;

/// One published state of the world.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Counts publications, from 1.
    pub generation: u64,
    /// Hash of all that was declared and observed, 12 hex digits; gateways with equal state have an equal one.
    pub digest: String,
    /// Of the configuration alone.
    pub config_digest: String,
    /// Why the newest configuration file is not the one in force.
    pub config_error: Option<String>,
    /// Bounds of the gateway as a whole.
    pub gateway: Arc<settings::Gateway>,
    /// What is told.
    pub telemetry: Arc<settings::Telemetry>,
    /// Which decisions are recorded.
    pub record: Arc<tape::settings::Settings>,
    /// The services.
    pub catalog: Arc<Catalog>,
    /// What happens to requests before anybody is asked where they go.
    pub middleware: Arc<Chain>,
    /// In the config file's order; the first that fits is taken.
    pub routes: Routes,
    /// In file-name order; asked one after the other.
    pub policies: Scopes,
    /// How many requests come through.
    pub rate_limits: Limits,
    /// Where the policies' state and the limits' is shared.
    pub stores: Stores,
}

/// Reads what was published last. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Current(Arc<ArcSwap<Snapshot>>);

impl Current {
    /// The newest snapshot. Whoever serves a request asks once.
    pub fn load(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }
}

/// Publishes snapshots. There is one, and control has it.
#[derive(Debug)]
pub struct Publisher(Arc<ArcSwap<Snapshot>>);

impl Publisher {
    /// From now on all see this one. Gives the one that they saw until now, at which some may still look.
    pub fn publish(&self, snapshot: Arc<Snapshot>) -> Arc<Snapshot> {
        self.0.swap(snapshot)
    }
}

/// The one who publishes, and what all others read; until then, an empty snapshot.
pub fn channel() -> (Publisher, Current) {
    let current = Current::default();
    (Publisher(Arc::clone(&current.0)), current)
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
