//! The endpoints of a service that can be picked, as one walk over all of them found them. Good until the health of one
//! of them changes: then whoever wants to pick walks once more.

use super::bits;
use super::line::Line;
use crate::service::Endpoint;
use std::sync::Arc;

/// What a walk has found.
#[derive(Debug, Default)]
pub struct Ready {
    /// Changes of health that were counted before the walk.
    pub(super) seen: u64,
    /// How many are usable, with weight or without.
    pub usable: usize,
    /// Those of them that have weight, of the lowest tier that has any.
    pub line: Line,
    /// Places of those that our own checks or connects call unhealthy.
    pub unhealthy: Vec<u32>,
}

impl Ready {
    /// Walks over all of them. `seen`: the changes of health counted so far.
    pub(super) fn walk(endpoints: &[Arc<Endpoint>], seen: u64) -> Self {
        let mut ready = Ready { seen, ..Ready::default() };
        let mut tier = u32::MAX;
        for (place, endpoint) in (0..).zip(endpoints) {
            if !endpoint.healthy() {
                ready.unhealthy.push(place);
            } else if endpoint.source_healthy {
                ready.usable += 1;
                if endpoint.weight == 0 || endpoint.tier > tier {
                    continue;
                }
                if endpoint.tier < tier {
                    tier = endpoint.tier;
                    ready.line.clear();
                }
                ready.line.push(place, endpoint);
            }
        }
        ready.line.bits = bits::of(&ready.line.places, endpoints.len());
        ready
    }
}
