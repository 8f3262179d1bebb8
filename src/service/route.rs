//! Declared routes: a match rule and the service that it leads to.

mod matcher;

pub use matcher::{Match, RawMatch};

use crate::service::Service;
use std::sync::Arc;

/// One declared route of a snapshot.
#[derive(Debug)]
pub struct Route {
    /// How logs, metrics and traces name it: its `name`, else its path or host.
    pub name: Arc<str>,
    /// Which requests it takes.
    pub matcher: Match,
    /// Where they go.
    pub service: Arc<Service>,
}
