//! Which endpoints have which metadata: for each key that was asked for, the endpoints that have each value, as bits. Built
//! when a key is first asked for, and used by every pick that narrows by it.

use super::bits;
use crate::service::Endpoint;
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// The keys that were asked for so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Labels(FxHashMap<Box<str>, Arc<Values>>);

/// Keys that are remembered; whoever asks for more walks.
const MOST: usize = 64;

/// Who has each value of one key.
#[derive(Debug, Default)]
pub(super) struct Values(FxHashMap<Box<str>, Set>);

/// Places of endpoints.
#[derive(Debug)]
enum Set {
    /// In order: where bits would take more room.
    Few(Box<[u32]>),
    Many(Box<[u64]>),
}

impl Labels {
    /// None: it was not asked for yet.
    pub(super) fn values(&self, key: &str) -> Option<&Values> {
        self.0.get(key).map(|values| &**values)
    }

    /// Those that were asked for.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(|key| &**key)
    }

    /// The same and this key; none where it is not worth remembering: no endpoint has it, or there are too many.
    pub(super) fn with(&self, key: &str, values: &Arc<Values>) -> Option<Labels> {
        if values.0.is_empty() || self.0.len() >= MOST {
            return None;
        }
        let mut labels = self.clone();
        labels.0.insert(key.into(), Arc::clone(values));
        Some(labels)
    }
}

impl Values {
    /// Walks over all endpoints.
    pub(super) fn walk(endpoints: &[Arc<Endpoint>], key: &str) -> Self {
        let mut places: FxHashMap<&str, Vec<u32>> = FxHashMap::default();
        for (place, endpoint) in (0..).zip(endpoints) {
            if let Some(value) = endpoint.metadata.get(key) {
                places.entry(value).or_default().push(place);
            }
        }
        let set = |places: Vec<u32>| Set::new(places, endpoints.len());
        Values(places.into_iter().map(|(value, places)| (value.into(), set(places))).collect())
    }

    /// Takes out of `words` all that do not have this value.
    pub(super) fn keep(&self, value: &str, words: &mut [u64]) {
        match self.0.get(value) {
            Some(set) => set.keep(words),
            None => words.fill(0),
        }
    }
}

impl Set {
    /// Of these `places` in a list of that length.
    fn new(places: Vec<u32>, len: usize) -> Self {
        if places.len() * 32 < len {
            return Set::Few(places.into());
        }
        Set::Many(bits::of(&places, len).into())
    }

    fn keep(&self, words: &mut [u64]) {
        match self {
            Set::Many(here) => words.iter_mut().zip(here).for_each(|(word, here)| *word &= here),
            Set::Few(places) => {
                let mut places = places.iter().peekable();
                for (at, word) in (0..).zip(words) {
                    let mut here = 0;
                    while let Some(place) = places.next_if(|place| **place / 64 == at) {
                        here |= 1 << (place % 64);
                    }
                    *word &= here;
                }
            }
        }
    }
}
