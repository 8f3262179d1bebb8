use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap, HashSet};

const KEYED: Terms = Terms { depth: 10, wait_ms: 200, keyed: true };

fn by(key: u64) -> Who {
    Who { key, weight: 1 }
}

/// All that come next, at once.
fn all<T>(queue: &mut Queue<T>, now_ms: u64) -> (Vec<T>, usize) {
    let mut expired = SmallVec::new();
    let next = std::iter::from_fn(|| queue.pop(now_ms, &mut expired)).collect();
    (next, expired.len())
}

#[test]
fn keys_take_turns_by_their_weight() {
    let mut queue = Queue::default();
    for (number, key) in [(1, 7), (2, 7), (3, 7), (4, 7), (5, 8), (6, 9), (7, 8)] {
        assert!(queue.push(number, by(key), KEYED, 0).1.is_none());
    }
    assert_eq!(all(&mut queue, 1), (vec![1, 5, 6, 2, 7, 3, 4], 0));
    for number in 0..10 {
        queue.push(number, Who { key: u64::from(number >= 5), weight: 1 + u32::from(number >= 5) }, KEYED, 0);
    }
    assert_eq!(all(&mut queue, 1).0, [0, 5, 6, 1, 7, 8, 2, 9, 3, 4]);
}

#[test]
fn a_full_queue_drops_the_newest_of_the_longest() {
    let mut queue = Queue::default();
    (0..10).for_each(|number| assert!(queue.push(number, by(1), KEYED, 0).1.is_none()));
    assert_eq!(queue.push(10, by(2), KEYED, 0).1, Some(9));
    assert_eq!(queue.push(11, by(1), KEYED, 0).1, Some(11));
    // With a weight of ten, ten are no more than one.
    assert_eq!(queue.push(12, Who { key: 3, weight: 10 }, KEYED, 0).1, Some(8));
    assert_eq!(queue.len(), 10);
}

#[test]
fn without_keys_the_last_is_first_once_the_first_is_late() {
    let (mut queue, terms) = (Queue::default(), Terms { keyed: false, ..KEYED });
    for number in 0..5 {
        queue.push(number, by(number), terms, number * 10);
    }
    let mut expired = SmallVec::new();
    let mut next = |now_ms| queue.pop(now_ms, &mut expired);
    assert_eq!([next(50), next(110), next(121), next(205), next(206)], [Some(0), Some(1), Some(4), Some(3), Some(2)]);
}

#[test]
fn whoever_has_waited_for_too_long_has_no_turn() {
    let mut queue = Queue::default();
    queue.push(1, by(1), KEYED, 0);
    queue.push(2, by(2), KEYED, 50);
    let gone = queue.push(3, by(1), KEYED, 60).0;
    assert_eq!(queue.remove(gone), Some(3));
    assert_eq!(queue.remove(gone), None);
    assert_eq!(all(&mut queue, 200), (vec![2], 1));
    assert_eq!((queue.len(), queue.lines.len(), queue.turns.len()), (0, 0, 0));
}

#[test]
fn more_keys_than_lines_share_as_many_again() {
    let (mut queue, terms) = (Queue::default(), Terms { depth: 10_000, ..KEYED });
    for number in 0..5000_u64 {
        queue.push(number, by(number << 20), terms, 0);
    }
    assert!(queue.lines.len() as u64 <= 2 * KEYS && queue.turns.len() == queue.lines.len());
    assert_eq!(all(&mut queue, 1).0.len(), 5000);
}

proptest! {
    /// Whatever comes and goes: never more than may wait, nobody twice, nobody lost, and nothing is left behind.
    #[test]
    fn everybody_leaves_once(
        depth in 1usize..20,
        keyed in any::<bool>(),
        steps in prop::collection::vec((0u8..4, 0u64..6, 1u32..4, 0u64..90), 1..300),
    ) {
        let terms = Terms { depth, wait_ms: 200, keyed };
        let (mut queue, mut inside, mut now_ms) = (Queue::default(), HashMap::new(), 0);
        for (number, (what, key, weight, later)) in steps.into_iter().enumerate() {
            now_ms += later;
            match what {
                0 | 1 => {
                    let (ticket, gone) = queue.push(number, Who { key, weight }, terms, now_ms);
                    inside.insert(number, ticket);
                    if let Some(gone) = gone {
                        prop_assert!(inside.remove(&gone).is_some());
                    }
                }
                2 => {
                    let mut expired = SmallVec::new();
                    let next = queue.pop(now_ms, &mut expired);
                    for gone in next.into_iter().chain(expired) {
                        prop_assert!(inside.remove(&gone).is_some());
                    }
                }
                _ => if let Some((number, ticket)) = inside.iter().next().map(|(number, ticket)| (*number, *ticket)) {
                    prop_assert_eq!(queue.remove(ticket), Some(number));
                    inside.remove(&number);
                }
            }
            prop_assert!(queue.len() == inside.len() && queue.len() <= depth);
            let turns: HashSet<_> = queue.turns.iter().collect();
            prop_assert!(turns.len() == queue.turns.len() && turns.len() == queue.lines.len());
        }
    }

    /// Nobody starves: of keys that all wait for more, each has had as many places as the others by weight, up to a turn.
    #[test]
    fn places_go_by_weight(weights in prop::collection::vec(1u32..5, 2..8), places in 1usize..400) {
        let terms = Terms { depth: 100_000, wait_ms: 1, keyed: true };
        let (mut queue, mut had) = (Queue::default(), BTreeMap::new());
        for _ in 0..400 {
            for (key, weight) in (1..).zip(&weights) {
                queue.push(key, Who { key, weight: *weight }, terms, 0);
            }
        }
        for _ in 0..places {
            let key = queue.pop(0, &mut SmallVec::new()).unwrap();
            *had.entry(key).or_insert(0u32) += 1;
        }
        let turns = (1..).zip(&weights).map(|(key, weight)| f64::from(had.get(&key).copied().unwrap_or(0)) / f64::from(*weight));
        let (least, most) = turns.fold((f64::MAX, 0.0_f64), |(least, most), turns| (least.min(turns), most.max(turns)));
        prop_assert!(most - least <= 1.0, "{had:?}");
    }

    /// Who asks for less than its share of the queue keeps all that it has in there.
    #[test]
    fn the_greedy_take_nothing_from_others(greedy in 1usize..500, modest in prop::collection::vec(1usize..3, 1..5)) {
        let terms = Terms { depth: 20, wait_ms: 200, keyed: true };
        let mut queue = Queue::default();
        for _ in 0..greedy {
            queue.push(0, by(0), terms, 0);
        }
        for (key, count) in (1..).zip(&modest) {
            for _ in 0..*count {
                prop_assert_eq!(queue.push(key, by(key), terms, 0).1.unwrap_or(0), 0);
            }
        }
    }
}
