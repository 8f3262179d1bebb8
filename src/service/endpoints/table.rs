//! Tables from a hash to an endpoint. They are laid of who is in the list and what each weighs, never of health, so that an
//! endpoint that falls ill moves only its own keys, and they come back to it; and of the set alone, whatever its order, so
//! that all gateways have the same.

use crate::service::Endpoint;
use std::hash::Hasher;
use std::net::SocketAddr;
use std::sync::Arc;
use xxhash_rust::xxh64::Xxh64;

mod maglev;
mod race;

/// How a table is laid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Shares are even to a part in a hundred; some more keys than need be move with each who comes or goes.
    Maglev,
    /// Just the keys move that must; shares are as even as chance makes them.
    Race,
}

/// Which endpoint stands in each slot, by its place in the list.
#[derive(Debug)]
pub struct Table {
    slots: Box<[u32]>,
}

/// Nobody stands there.
const NOBODY: u32 = u32::MAX;

impl Table {
    /// Of all endpoints with weight. `size` is at least 1, and a prime for maglev.
    pub(super) fn new(layout: Layout, size: u32, endpoints: &[Arc<Endpoint>]) -> Self {
        let slots = match layout {
            Layout::Maglev => maglev::lay(size, endpoints),
            Layout::Race => race::lay(size, endpoints),
        };
        Table { slots: slots.into() }
    }

    /// How many slots it has.
    pub fn size(&self) -> usize {
        self.slots.len()
    }

    /// Whose slot this is, by place; a number for any hash.
    pub fn at(&self, hash: u64) -> Option<u32> {
        // The product's upper half is below the length.
        let slot = ((u128::from(hash) * self.slots.len() as u128) >> 64) as usize;
        self.slots.get(slot).copied().filter(|place| *place != NOBODY)
    }
}

/// A number for an address, the same wherever it is computed.
pub fn number(address: SocketAddr, seed: u64) -> u64 {
    let mut hasher = Xxh64::new(seed);
    match address {
        SocketAddr::V4(address) => hasher.write(&address.ip().octets()),
        SocketAddr::V6(address) => hasher.write(&address.ip().octets()),
    }
    hasher.write(&address.port().to_be_bytes());
    hasher.finish()
}

/// Those with weight, in an order that does not depend on the list's, each with its place.
fn in_order(endpoints: &[Arc<Endpoint>]) -> Vec<(u32, &Endpoint)> {
    let mut members: Vec<_> = (0..).zip(endpoints.iter().map(|e| &**e)).filter(|(_, e)| e.weight > 0).collect();
    members.sort_by_key(|(_, endpoint)| endpoint.address);
    members
}

#[cfg(test)]
mod tests;
