//! What a strategy picks from: those on a line but for the ones that were tried. Finding any of them is no walk over all.

use crate::base::chance::Chance;
use crate::service::Endpoint;
use crate::service::endpoints::{Endpoints, Line};

/// What a strategy picks from. A candidate is named by its place in the service's list, not by a share in it: all workers
/// would write to the same counts for each request.
#[derive(Clone, Copy)]
pub(super) struct Candidates<'a> {
    endpoints: &'a Endpoints,
    line: &'a Line,
    /// Of those that were tried, how many stand before each on the line; in order.
    tried: &'a [usize],
    /// Names the line among those of its service.
    pub(super) key: u64,
}

impl<'a> Candidates<'a> {
    /// Those on the `line` of this `key` whose numbers are not among `ids`. `tried` is a buffer.
    pub(super) fn new(
        endpoints: &'a Endpoints,
        (key, line): (u64, &'a Line),
        ids: &[u32],
        tried: &'a mut Vec<usize>,
    ) -> Self {
        tried.clear();
        tried.extend(ids.iter().filter_map(|id| line.index(endpoints.place(*id)?)));
        tried.sort_unstable();
        tried.dedup();
        Candidates { endpoints, line, tried, key }
    }

    pub(super) fn len(self) -> usize {
        self.line.places.len() - self.tried.len()
    }

    /// Was the one tried that so many stand before on the line?
    fn is_tried(self, index: usize) -> bool {
        self.tried.binary_search(&index).is_ok()
    }

    /// Where the candidate stands that `index` others come before.
    pub(super) fn place(self, index: usize) -> u32 {
        let index = self.tried.iter().fold(index, |index, tried| index + usize::from(index >= *tried));
        // Below the length there is one.
        self.line.places.get(index).copied().unwrap_or(0)
    }

    /// Two different ones by chance, of at least two.
    pub(super) fn two(self, chance: &mut Chance) -> (u32, u32) {
        let (one, two) = chance.two(self.len());
        (self.place(one), self.place(two))
    }

    /// The endpoint that stands there.
    pub(super) fn at(self, place: u32) -> &'a Endpoint {
        &self.endpoints[place as usize]
    }

    /// Where the endpoint with this number stands, if it is a candidate.
    pub(super) fn find(self, id: u32) -> Option<u32> {
        let place = self.endpoints.place(id)?;
        let index = self.line.index(place)?;
        (!self.is_tried(index)).then_some(place)
    }

    /// Is the one that stands there a candidate?
    pub(super) fn has(self, place: u32) -> bool {
        let tried = || self.line.index(place).is_some_and(|index| self.is_tried(index));
        self.line.has(place) && (self.tried.is_empty() || !tried())
    }

    /// All of them, each with its place.
    pub(super) fn iter(self) -> impl Iterator<Item = (u32, &'a Endpoint)> {
        let mut tried = self.tried.iter().peekable();
        let untried = move |(index, _): &(usize, &u32)| tried.next_if_eq(&index).is_none();
        self.line.places.iter().enumerate().filter(untried).map(move |(_, place)| (*place, self.at(*place)))
    }

    /// How long the line is.
    pub(super) fn line(self) -> u64 {
        self.line.length()
    }

    /// Who stands at this point of the line, if it was not tried.
    pub(super) fn on_line(self, point: u64) -> Option<u32> {
        let index = self.line.at(point).filter(|index| !self.is_tried(*index))?;
        self.line.places.get(index).copied()
    }

    /// As long as only candidates stood on it: who stands at this point, after a walk over all of them. It is taken as one of
    /// a line that goes on for ever.
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
