//! Endpoints that a request may go to. In the list's order they stand on a line, each as long as its weight, so that a point
//! of the line is somebody's in proportion to weight.

use super::bits;
use crate::service::Endpoint;
use std::sync::Arc;

/// Those that may be picked, named by their places in the service's list.
#[derive(Debug, Default)]
pub struct Line {
    /// In the list's order.
    pub places: Vec<u32>,
    /// The same as bits.
    pub(super) bits: Vec<u64>,
    /// Where each of them ends.
    ends: Vec<u64>,
}

impl Line {
    /// Puts one at the end that stands behind all others in the list of `len`.
    pub(super) fn push(&mut self, place: u32, endpoint: &Endpoint) {
        self.ends.push(self.length() + u64::from(endpoint.weight));
        self.places.push(place);
    }

    /// Those who stand on it as bits, in a list of `len`.
    pub(super) fn index_bits(&mut self, len: usize) {
        self.bits = bits::of(&self.places, len);
    }

    /// Nobody stands on it.
    pub(super) fn clear(&mut self) {
        self.places.clear();
        self.ends.clear();
    }

    /// Now it is made of those that have a bit here. What it was before gives its memory.
    pub(super) fn refill(&mut self, endpoints: &[Arc<Endpoint>]) {
        self.clear();
        let mut length = 0;
        for place in bits::ones(&self.bits) {
            length += endpoints.get(place as usize).map_or(0, |endpoint| u64::from(endpoint.weight));
            self.places.push(place);
            self.ends.push(length);
        }
    }

    /// The weight of all of them.
    pub fn length(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Who stands at this point: how many stand before it. None: the line ends before it.
    pub fn at(&self, point: u64) -> Option<usize> {
        let index = self.ends.partition_point(|end| *end <= point);
        (index < self.places.len()).then_some(index)
    }

    /// Does the one with this place in the list stand here?
    pub fn has(&self, place: u32) -> bool {
        self.bits.get(place as usize / 64).is_some_and(|word| word >> (place % 64) & 1 == 1)
    }

    /// How many stand before the one with this place in the list, if that one stands here.
    pub fn index(&self, place: u32) -> Option<usize> {
        self.places.binary_search(&place).ok()
    }
}
