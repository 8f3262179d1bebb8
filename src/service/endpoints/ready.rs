//! The endpoints of a service that can be picked, as one walk over all of them found them. Good until the health of one
//! of them changes: then whoever wants to pick walks once more.

use super::bits;
use crate::service::Endpoint;
use std::sync::Arc;

/// Those that are usable and have weight. They are named by their places in the service's list.
#[derive(Debug, Default)]
pub struct Ready {
    /// Changes of health that were counted before the walk.
    pub(super) seen: u64,
    /// Endpoints that are usable, with weight or without.
    pub usable: usize,
    /// In the list's order.
    pub places: Vec<u32>,
    /// The same as bits.
    pub bits: Vec<u64>,
    /// For each of them its weight and that of all before it.
    pub weights: Vec<u64>,
    /// Places of those that our own checks or connects call unhealthy.
    pub unhealthy: Vec<u32>,
}

impl Ready {
    /// Walks over all of them. `seen`: the changes of health counted so far.
    pub(super) fn walk(endpoints: &[Arc<Endpoint>], seen: u64) -> Self {
        let mut ready = Ready { seen, bits: bits::none(endpoints.len()), ..Ready::default() };
        let mut weight = 0;
        for (place, endpoint) in (0..).zip(endpoints) {
            if !endpoint.healthy() {
                ready.unhealthy.push(place);
            } else if endpoint.source_healthy {
                ready.usable += 1;
                if endpoint.weight > 0 {
                    weight += u64::from(endpoint.weight);
                    ready.places.push(place);
                    ready.weights.push(weight);
                    bits::put(&mut ready.bits, place);
                }
            }
        }
        ready
    }

    /// The weight of all of them.
    pub fn weight(&self) -> u64 {
        self.weights.last().copied().unwrap_or(0)
    }

    /// Where each stands on a line as long as its weight, one after the other: the one at this point. None: there is
    /// nobody.
    pub fn at_weight(&self, point: u64) -> Option<u32> {
        let index = self.weights.partition_point(|weight| *weight <= point);
        self.places.get(index).or(self.places.last()).copied()
    }
}
