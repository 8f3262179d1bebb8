//! Maglev (Eisenbud et al. 2016, §3.4): one after the other, endpoints take the next free slot of a permutation of their own,
//! until all are taken. One with a part of the largest weight takes its turn in that part of the rounds (as Envoy does it).

use super::{NOBODY, in_order, number};
use crate::service::Endpoint;
use std::sync::Arc;

struct Turn {
    place: u32,
    weight: u64,
    /// Where it looks next, and how far it goes from there: with a prime number of slots, it comes by all of them.
    at: u64,
    skip: u64,
    /// Rounds that it has earned, in units of the largest weight.
    earned: u64,
}

pub(super) fn lay(size: u32, endpoints: &[Arc<Endpoint>]) -> Vec<u32> {
    let mut slots = vec![NOBODY; size as usize];
    let size = u64::from(size);
    let turn = |(place, endpoint): (u32, &Endpoint)| Turn {
        place,
        weight: endpoint.weight.into(),
        at: number(endpoint.address, 1) % size,
        skip: number(endpoint.address, 2) % size.saturating_sub(1).max(1) + 1,
        earned: 0,
    };
    let mut turns: Vec<Turn> = in_order(endpoints).into_iter().map(turn).collect();
    let Some(largest) = turns.iter().map(|turn| turn.weight).max() else { return slots };
    let mut left = size;
    loop {
        for turn in &mut turns {
            turn.earned += turn.weight;
            if turn.earned < largest {
                continue;
            }
            turn.earned -= largest;
            // Bounded, should the size be no prime.
            for _ in 0..size {
                let slot = slots.get_mut(turn.at as usize);
                turn.at = (turn.at + turn.skip) % size;
                if let Some(slot) = slot.filter(|slot| **slot == NOBODY) {
                    *slot = turn.place;
                    break;
                }
            }
            left -= 1;
            if left == 0 {
                return slots;
            }
        }
    }
}
