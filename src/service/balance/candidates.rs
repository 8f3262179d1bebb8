//! What a strategy picks from: all endpoints of a service that are ready, or those of them that a plan and the attempts made
//! so far leave. Neither is a walk over all of them.

use super::Wanted;
use crate::base::chance::Chance;
use crate::service::Endpoint;
use crate::service::endpoints::{Endpoints, Ready, bits};

/// Buffers of a worker for what is left of those that are ready; kept for their memory.
#[derive(Debug, Default)]
pub(super) struct Narrowed {
    places: Vec<u64>,
    wish: Vec<u64>,
}

/// What a strategy picks from. A candidate is named by its place in the service's list, not by a share in it: all workers
/// would write to the same counts for each request.
#[derive(Clone, Copy)]
pub(super) struct Candidates<'a> {
    endpoints: &'a Endpoints,
    ready: &'a Ready,
    /// Bits of those that are left; none: all that are ready.
    narrowed: Option<&'a [u64]>,
    len: usize,
}

impl<'a> Candidates<'a> {
    /// Those that are ready, were not tried and fit the plan.
    pub(super) fn new(wanted: &Wanted<'a>, ready: &'a Ready, narrowed: &'a mut Narrowed) -> Self {
        let endpoints = &wanted.service.endpoints;
        let plan = wanted.plan;
        if wanted.tried.is_empty() && plan.subset.is_empty() && plan.prefer.is_empty() {
            return Candidates { endpoints, ready, narrowed: None, len: ready.places.len() };
        }
        let Narrowed { places, wish } = narrowed;
        places.clone_from(&ready.bits);
        wanted.tried.iter().filter_map(|id| endpoints.place(*id)).for_each(|place| bits::take(places, place));
        plan.subset.iter().for_each(|(key, value)| endpoints.keep(key, value, places));
        for (key, value) in &plan.prefer {
            wish.clone_from(places);
            endpoints.keep(key, value, wish);
            if wish.iter().any(|word| *word != 0) {
                std::mem::swap(places, wish);
            }
        }
        Candidates { endpoints, ready, len: bits::count(places), narrowed: Some(places) }
    }

    pub(super) fn len(self) -> usize {
        self.len
    }

    /// Where the candidate stands that `index` others come before.
    pub(super) fn place(self, index: usize) -> u32 {
        let place = match self.narrowed {
            None => self.ready.places.get(index).copied(),
            Some(places) => bits::nth(places, index),
        };
        // Below the length there is one.
        place.unwrap_or(0)
    }

    /// Two different ones by chance, of at least two.
    pub(super) fn two(self, chance: &mut Chance) -> (u32, u32) {
        let (one, two) = chance.two(self.len);
        (self.place(one), self.place(two))
    }

    /// The endpoint that stands there.
    pub(super) fn at(self, place: u32) -> &'a Endpoint {
        &self.endpoints[place as usize]
    }

    /// Where the endpoint with this number stands, if it is a candidate.
    pub(super) fn find(self, id: u32) -> Option<u32> {
        self.endpoints.place(id).filter(|place| self.has(*place))
    }

    /// Is the endpoint that stands there a candidate?
    fn has(self, place: u32) -> bool {
        bits::has(self.places(), place)
    }

    fn places(self) -> &'a [u64] {
        self.narrowed.unwrap_or(&self.ready.bits)
    }

    /// All of them, each with its place.
    pub(super) fn iter(self) -> impl Iterator<Item = (u32, &'a Endpoint)> {
        bits::ones(self.places()).map(move |place| (place, self.at(place)))
    }

    /// The length of the line on which all that are ready stand by weight.
    pub(super) fn line(self) -> u64 {
        self.ready.weight()
    }

    /// Who stands at this point of the line, if it is a candidate.
    pub(super) fn on_line(self, point: u64) -> Option<u32> {
        self.ready.at_weight(point).filter(|place| self.narrowed.is_none() || self.has(*place))
    }

    /// As long as only candidates stood on the line: who stands at this point, after a walk over all of them. It is taken as
    /// one of a line that goes on for ever.
    pub(super) fn on_own_line(self, point: u64) -> u32 {
        let total: u64 = self.iter().map(|(_, endpoint)| u64::from(endpoint.weight)).sum();
        let mut left = point.checked_rem(total).unwrap_or(0);
        for (place, endpoint) in self.iter() {
            match left.checked_sub(endpoint.weight.into()) {
                Some(rest) => left = rest,
                None => return place,
            }
        }
        self.place(0)
    }
}
