//! All endpoints by their numbers, in blocks that the snapshots before and after a change share: one that changes costs a copy
//! of its block, and of one pointer for each other block.

use crate::service::Endpoint;
use crate::service::endpoints::{Endpoints, changed};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// Endpoints in a block. Numbers are given one after the other, so blocks are full at first, and empty ones go.
const BLOCK: usize = 64;

/// Endpoints by number.
#[derive(Debug, Clone, Default)]
pub(super) struct ById(FxHashMap<u32, Arc<Block>>);

#[derive(Debug, Clone)]
struct Block([Option<Arc<Endpoint>>; BLOCK]);

/// The block of a number, and its place in there.
fn place(id: u32) -> (u32, usize) {
    (id / BLOCK as u32, id as usize % BLOCK)
}

impl ById {
    pub(super) fn get(&self, id: u32) -> Option<&Arc<Endpoint>> {
        let (block, place) = place(id);
        self.0.get(&block)?.0[place].as_ref()
    }

    /// A service had those endpoints `before`, and has these `after`.
    pub(super) fn replace(&mut self, before: &[Arc<Endpoint>], after: &Endpoints) {
        let (gone, come) = changed(before, after);
        gone.iter().filter(|endpoint| after.place(endpoint.id).is_none()).for_each(|endpoint| self.take(endpoint.id));
        for endpoint in come {
            if self.get(endpoint.id).is_none_or(|known| !Arc::ptr_eq(known, endpoint)) {
                self.put(endpoint);
            }
        }
    }

    fn put(&mut self, endpoint: &Arc<Endpoint>) {
        let (block, place) = place(endpoint.id);
        let block = self.0.entry(block).or_insert_with(|| Arc::new(Block(std::array::from_fn(|_| None))));
        Arc::make_mut(block).0[place] = Some(Arc::clone(endpoint));
    }

    fn take(&mut self, id: u32) {
        let (number, place) = place(id);
        let Some(block) = self.0.get_mut(&number) else { return };
        let here = &mut Arc::make_mut(block).0;
        here[place] = None;
        if here.iter().all(Option::is_none) {
            self.0.remove(&number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn endpoint(id: u32) -> Arc<Endpoint> {
        Arc::new(Endpoint::of("users", id, ([10, 0, 0, 1], 80).into()))
    }

    proptest! {
        #[test]
        fn it_holds_what_the_lists_hold(lists in prop::collection::vec(prop::collection::btree_set(0u32..300, 0..50), 1..8)) {
            let (mut by_id, mut before) = (ById::default(), Vec::new());
            for ids in lists {
                let kept = |id: u32, before: &[Arc<Endpoint>]| before.iter().find(|e| e.id == id).cloned();
                let after: Endpoints = ids.iter().map(|id| kept(*id, &before).unwrap_or_else(|| endpoint(*id))).collect();
                let earlier = by_id.clone();
                by_id.replace(&before, &after);
                for id in 0..300 {
                    let is = |list: &[Arc<Endpoint>], by_id: &ById| list.iter().any(|e| e.id == id) == by_id.get(id).is_some();
                    prop_assert!(is(&after, &by_id) && is(&before, &earlier), "{id}");
                }
                before = after.to_vec();
            }
            by_id.replace(&before, &Endpoints::default());
            prop_assert!(by_id.0.is_empty());
        }
    }

    #[test]
    fn what_changes_costs_its_blocks() {
        let before: Vec<_> = (1..=10_000).map(endpoint).collect();
        let mut by_id = ById::default();
        by_id.replace(&[], &before.iter().cloned().collect());
        let earlier = by_id.clone();
        let mut after = before.clone();
        after[4_000] = endpoint(4_001);
        after.remove(7_000);
        by_id.replace(&before, &after.into_iter().collect());
        let copied = by_id.0.iter().filter(|(number, block)| !Arc::ptr_eq(block, &earlier.0[*number])).count();
        assert_eq!(copied, 2);
    }
}
