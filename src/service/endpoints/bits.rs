//! Sets of small numbers as bits, 64 to a word: what is in several of them is found a word at a time.

/// No number below `len` yet.
pub(super) fn none(len: usize) -> Vec<u64> {
    vec![0; len.div_ceil(64)]
}

/// Is this number in it?
pub fn has(words: &[u64], number: u32) -> bool {
    words.get(number as usize / 64).is_some_and(|word| word >> (number % 64) & 1 == 1)
}

/// Puts this number in; one that is beyond its length stays out.
pub(super) fn put(words: &mut [u64], number: u32) {
    if let Some(word) = words.get_mut(number as usize / 64) {
        *word |= 1 << (number % 64);
    }
}

/// Takes this number out.
pub fn take(words: &mut [u64], number: u32) {
    if let Some(word) = words.get_mut(number as usize / 64) {
        *word &= !(1 << (number % 64));
    }
}

/// How many are in it.
pub fn count(words: &[u64]) -> usize {
    words.iter().map(|word| word.count_ones() as usize).sum()
}

/// The number that has `index` smaller ones in the set. None: there are not so many.
pub fn nth(words: &[u64], index: usize) -> Option<u32> {
    let mut left = index;
    for (at, word) in (0..).zip(words) {
        let here = word.count_ones() as usize;
        if left < here {
            return ones_of(at, *word).nth(left);
        }
        left -= here;
    }
    None
}

/// All that are in it, in order.
pub fn ones(words: &[u64]) -> impl Iterator<Item = u32> {
    (0..).zip(words).flat_map(|(at, word)| ones_of(at, *word))
}

/// Of the word at this place.
fn ones_of(at: u32, word: u64) -> impl Iterator<Item = u32> {
    let rest = |word: &u64| Some(word & (word - 1)).filter(|rest| *rest != 0);
    std::iter::successors(Some(word).filter(|word| *word != 0), rest).map(move |word| at * 64 + word.trailing_zeros())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn bits_are_a_set(put_in in prop::collection::btree_set(0u32..300, 0..100), taken in prop::collection::vec(0u32..400, 0..50)) {
            let mut words = none(300);
            put_in.iter().for_each(|number| put(&mut words, *number));
            put(&mut words, 1000);
            taken.iter().for_each(|number| take(&mut words, *number));
            let expected: BTreeSet<u32> = put_in.into_iter().filter(|number| !taken.contains(number)).collect();
            prop_assert!(ones(&words).eq(expected.iter().copied()));
            prop_assert_eq!(count(&words), expected.len());
            for (index, number) in expected.iter().enumerate() {
                prop_assert_eq!(nth(&words, index), Some(*number));
            }
            prop_assert_eq!(nth(&words, expected.len()), None);
            prop_assert!((0..400).all(|number| has(&words, number) == expected.contains(&number)));
        }
    }
}
