//! What a policy is asked about.

use super::wall::Wall;
use crate::base::chance::Chance;
use crate::http::request::Head;
use crate::service::catalog::Catalog;
use std::sync::Arc;
use std::time::Instant;
use xxhash_rust::xxh64::xxh64;

/// What a policy is asked about.
#[derive(Debug, Clone)]
pub struct Question {
    /// The request.
    pub head: Arc<Head>,
    /// The services at the exchange's start.
    pub catalog: Arc<Catalog>,
    /// The exchange's start, ms since 1970-01-01 UTC.
    pub now_ms: u64,
    /// The same by the clock that ages are measured by.
    pub started: Instant,
    /// Seed of the call's random numbers; see [`Question::seed`].
    pub seed: u64,
    /// What is read is not, or not only, the world as it is, or somebody notes it. None: neither.
    pub wall: Option<Box<Wall>>,
}

impl Question {
    /// The request was asked for this; where that is noted, so is what it said.
    pub(super) fn saw(&mut self, kind: &str, name: &str, said: Option<&str>) {
        if let Some(wall) = &mut self.wall {
            let between = if name.is_empty() { "" } else { " " };
            wall.tape.saw(&[kind, between, name].concat(), said);
        }
    }

    /// What a policy draws from for the exchange with this seed: policies that draw more or less move nobody else's numbers,
    /// and no two draw the same ones.
    pub fn seed(policy: &str, exchange: u64) -> u64 {
        Chance(exchange ^ xxh64(policy.as_bytes(), 0)).next_u64()
    }
}
