//! Sets of small numbers as bits, 64 to a word: what is in several of them is found a word at a time.

/// Of these numbers below `len`.
pub(super) fn of(numbers: &[u32], len: usize) -> Vec<u64> {
    let mut words = vec![0; len.div_ceil(64)];
    for number in numbers {
        if let Some(word) = words.get_mut(*number as usize / 64) {
            *word |= 1 << (number % 64);
        }
    }
    words
}

/// All that are in it, in order.
pub(super) fn ones(words: &[u64]) -> impl Iterator<Item = u32> {
    (0..).zip(words).flat_map(|(at, word)| {
        let rest = |word: &u64| Some(word & (word - 1)).filter(|rest| *rest != 0);
        let first = Some(*word).filter(|word| *word != 0);
        std::iter::successors(first, rest).map(move |word| at * 64 + word.trailing_zeros())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bits_are_a_set(numbers in prop::collection::btree_set(0u32..300, 0..100), beyond in 300u32..400) {
            let numbers: Vec<u32> = numbers.into_iter().collect();
            prop_assert!(ones(&of(&numbers, 300)).eq(numbers.iter().copied()));
            prop_assert_eq!(ones(&of(&[beyond], 200)).next(), None);
        }
    }
}
