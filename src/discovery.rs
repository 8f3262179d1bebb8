//! Discovery: what a source of endpoints is, and what it reports. One file a source; `registry/` has the clients that ask.

pub mod backoff;
pub mod consul;
pub mod dns;
pub mod etcd;
pub mod file;
pub mod guard;
pub mod keeper;
pub mod kinds;
pub mod left_out;
pub mod listing;
pub mod nacos;
pub mod redis;
pub mod registration;
pub mod registry;
pub mod shelf;
pub mod store;
pub mod zookeeper;

pub use kinds::SourceSettings;
use left_out::LeftOut;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

/// What a source says about an endpoint beside its address: key and value pairs, sorted by key.
pub type Metadata = std::collections::BTreeMap<String, String>;

/// A configured source, ready to watch.
pub trait Source: std::fmt::Debug + Send + Sync {
    /// Watches these services and reports until the future is dropped. It never ends by itself: whatever goes wrong
    /// is reported, waited for and tried again. When the declared services change, control drops the future and calls
    /// again with the new list; what was known until then stays until the new run reports.
    fn watch(&self, lookups: Vec<Lookup>, reports: Reports) -> Pin<Box<dyn Future<Output = ()> + Send>>;

    /// What was known of a lookup when the gateway ran last: nothing that comes is a first answer then.
    fn remember(&self, lookup: &Lookup, observed: &Observed) {
        let _ = (lookup, observed);
    }
}

/// Builds a source from settings that were read. An error: what in them cannot be used.
type Build = Arc<dyn Fn() -> Result<Arc<dyn Source>, String> + Send + Sync>;

/// What a table says, as a kind's own settings.
///
/// # Errors
/// The key that is wrong, and what was expected.
fn settings<T: serde::de::DeserializeOwned>(table: toml::Table) -> Result<T, String> {
    table.try_into().map_err(|error| crate::base::place::value_problem(&error))
}

/// A declared service that a source shall look up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup {
    /// What the gateway calls it.
    pub service: Arc<str>,
    /// What the registry calls it.
    pub registered_as: String,
    /// Only endpoints with all these tags.
    pub tags: Vec<String>,
    /// An empty answer is applied at once.
    pub allow_empty: bool,
}

/// What a source says at one moment.
#[derive(Debug)]
pub enum Report {
    /// The whole list of one service. The same list again confirms it.
    Service(Arc<str>, Observed),
    /// The whole lists of all its services: one that is missing here is gone.
    All(BTreeMap<Arc<str>, Observed>),
    /// What it said last still holds, for all services that are not held.
    Confirmed,
    /// It could not be read (for this service; none: for all). What was known stays, and is stale.
    Failed(Option<Arc<str>>, String),
}

/// A service's endpoints as its source last reported them, whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// In the source's order, each address once.
    pub endpoints: Vec<Entry>,
    /// What the source calls this state: an index, a revision, a digest.
    pub revision: String,
    /// Entries that were bad, and were left out.
    pub skipped: u32,
    /// The first of them, each with what is wrong with it.
    pub left_out: Vec<LeftOut>,
    /// Why the newest answer is held back, while it is; then `endpoints` is what counted before.
    pub held: Option<String>,
}

impl Observed {
    /// What is wrong with it, where all of its entries are bad: to apply it would remove what works.
    pub fn problem(&self) -> Option<String> {
        let LeftOut { entry, reason } = self.left_out.first().filter(|_| self.endpoints.is_empty())?;
        Some(format!("none of the {} entries can be used; the first, {entry}: {reason}", self.skipped))
    }
}

/// One endpoint as a source reports it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Entry {
    /// Where it listens.
    pub address: SocketAddr,
    /// Default 1.
    pub weight: u32,
    /// The source calls it healthy.
    pub healthy: bool,
    /// Sorted by key; a `zone` in it is the endpoint's zone.
    pub metadata: Metadata,
}

/// Where a source's reports go.
#[derive(Debug, Clone)]
pub struct Reports {
    /// The source's name in the configuration.
    pub source: Arc<str>,
    /// To control.
    pub to: tokio::sync::mpsc::Sender<(Arc<str>, Report)>,
}

impl Reports {
    /// Hands one report to control; waits while control is busy. A gateway that is shutting down no longer listens.
    pub async fn send(&self, report: Report) {
        let _ = self.to.send((Arc::clone(&self.source), report)).await;
    }
}
