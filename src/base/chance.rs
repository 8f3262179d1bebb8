//! Chance that can be seeded, so that a test or a replay draws the same again.

use std::hash::{BuildHasher, Hasher};

/// From one state to the next: the golden ratio, which comes round only after 2^64 steps.
const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// Seeded chance: SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
pub struct Chance(pub u64);

impl Chance {
    /// With a seed that nobody can foresee.
    pub fn seeded() -> Self {
        // The standard library's only source of chance: each `RandomState` has new keys.
        Chance(std::hash::RandomState::new().build_hasher().finish())
    }

    /// The number that comes at this place, from 1, of what this seed gives, without those before it.
    pub fn at(seed: u64, place: u64) -> u64 {
        Chance(seed.wrapping_add(place.wrapping_sub(1).wrapping_mul(GAMMA))).next_u64()
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GAMMA);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// 0 ≤ x < n, evenly; 0 for n = 0.
    pub fn below(&mut self, n: usize) -> usize {
        // The product's upper half is below n, which is a usize.
        ((u128::from(self.next_u64()) * n as u128) >> 64) as usize
    }

    /// Two different numbers below n, which is at least 2.
    pub fn two(&mut self, n: usize) -> (usize, usize) {
        let first = self.below(n);
        let second = (first + 1 + self.below(n - 1)) % n;
        (first, second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_can_be_had_without_those_before_it() {
        for seed in [0, 1, u64::MAX] {
            let mut chance = Chance(seed);
            for place in 1..100 {
                assert_eq!(Chance::at(seed, place), chance.next_u64(), "{seed} {place}");
            }
        }
    }
}
