//! What a policy is asked about.

use crate::http::request::Head;
use crate::service::catalog::Catalog;
use std::sync::Arc;

/// What a policy is asked about.
#[derive(Debug, Clone)]
pub struct Question {
    /// The request.
    pub head: Arc<Head>,
    /// The services at the exchange's start.
    pub catalog: Arc<Catalog>,
    /// The exchange's start, ms since 1970-01-01 UTC.
    pub now_ms: u64,
    /// Seed of the exchange's random numbers.
    pub seed: u64,
}
