//! What tables promise: the same for the same set, shares by weight, and few who move.

use super::*;
use proptest::prelude::*;

const PRIME: u32 = 65_537;

fn endpoints(weights: &[u32]) -> Vec<Arc<Endpoint>> {
    let endpoint = |(id, weight): (u32, &u32)| {
        let address = ([10, 1, (id / 250) as u8, (id % 250) as u8], 80).into();
        Arc::new(Endpoint { weight: *weight, ..Endpoint::of("users", id, address) })
    };
    (0..).zip(weights).map(endpoint).collect()
}

/// Who stands in each slot, by number.
fn laid(layout: Layout, size: u32, endpoints: &[Arc<Endpoint>]) -> Vec<Option<u32>> {
    let table = Table::new(layout, size, endpoints);
    table.slots.iter().map(|place| endpoints.get(*place as usize).map(|endpoint| endpoint.id)).collect()
}

/// Of the slots that somebody has before and after, how many are another's.
fn moved(before: &[Option<u32>], after: &[Option<u32>]) -> f64 {
    before.iter().zip(after).filter(|(before, after)| before != after).count() as f64 / before.len() as f64
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_order_of_the_list_is_nobodys_business(
        weights in prop::collection::vec(0u32..5, 0..40), turn in any::<prop::sample::Index>(), maglev in any::<bool>(),
    ) {
        let layout = if maglev { Layout::Maglev } else { Layout::Race };
        let list = endpoints(&weights);
        let mut other = list.clone();
        other.reverse();
        other.rotate_left(turn.index(weights.len().max(1)).min(weights.len()));
        prop_assert_eq!(laid(layout, 1_009, &list), laid(layout, 1_009, &other));
    }

    #[test]
    fn nobody_without_weight_stands_anywhere(weights in prop::collection::vec(0u32..3, 0..20), hash in any::<u64>()) {
        for layout in [Layout::Maglev, Layout::Race] {
            let list = endpoints(&weights);
            if let Some(place) = Table::new(layout, 251, &list).at(hash) {
                prop_assert!(weights[place as usize] > 0);
            }
        }
    }
}

#[test]
fn shares_follow_weights() {
    let weights: Vec<u32> = (0..100).map(|place| 1 + 2 * (place % 2)).collect();
    for (layout, within) in [(Layout::Maglev, 0.02), (Layout::Race, 0.15)] {
        let slots = laid(layout, PRIME, &endpoints(&weights));
        for (id, weight) in (0..).zip(&weights) {
            let has = slots.iter().filter(|slot| **slot == Some(id)).count() as f64;
            let fair = f64::from(PRIME) * f64::from(*weight) / 200.0;
            assert!((has / fair - 1.0).abs() < within, "{layout:?}: {has} slots of {fair}");
        }
    }
}

#[test]
fn few_move_with_those_who_come_and_go() {
    // Of so many so many go: which part of the slots may move, in parts of what must. Of a table of slots, three standard
    // deviations of what chance does are allowed beside.
    for (layout, size, all, gone, most) in [
        (Layout::Race, 131_072, 100, 1, 1.2),
        (Layout::Race, 131_072, 1_000, 20, 1.2),
        (Layout::Maglev, PRIME, 100, 1, 2.0),
        (Layout::Maglev, PRIME, 2_000, 20, 5.0),
    ] {
        let before = endpoints(&vec![1; all]);
        let after: Vec<_> = before[gone..].to_vec();
        let must = gone as f64 / all as f64;
        let allowed =
            must * most + 3.0 * (must / f64::from(size)).sqrt() + 3.0 * must * (all as f64 / f64::from(size)).sqrt();
        let moved = moved(&laid(layout, size, &before), &laid(layout, size, &after));
        assert!(moved <= allowed, "{layout:?} {all}: {moved} moved, {must} must");
    }
}

#[test]
fn whoever_comes_to_a_race_takes_from_all_others_and_moves_nothing_else() {
    let list = endpoints(&[1; 101]);
    let (before, after) = (laid(Layout::Race, 131_072, &list[..100]), laid(Layout::Race, 131_072, &list));
    let between_others = before.iter().zip(&after).filter(|(b, a)| b != a && a.is_some() && **a != Some(100)).count();
    assert_eq!(between_others, 0);
    let empty = after.iter().filter(|slot| slot.is_none()).count();
    assert!(empty < 131_072 / 100, "{empty} slots are nobody's");
}
