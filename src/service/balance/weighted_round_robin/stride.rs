//! Strides over a line that is closed to a ring, on which each endpoint stands as long as its weight. Their length has no
//! divisor in common with the line's, so each point is met once in a round: in as many turns as all weights together, each
//! endpoint has exactly its own, wherever one begins to count. It is near the golden part of the line, as are those of the
//! rests, so that the points met so far are spread evenly at any time, and the turns of one endpoint over the round.

use crate::base::chance::Chance;

/// Where on the line the next one is.
#[derive(Debug, Default)]
pub(super) struct Strides {
    line: u64,
    length: u64,
    at: u64,
}

/// Lengths that are looked at, from the golden one on.
const LENGTHS: u64 = 64;

impl Strides {
    /// From now on the line is this long.
    pub(super) fn over(&mut self, line: u64, chance: &mut Chance) {
        if self.line == line {
            return;
        }
        // The first point by chance, so that workers don't march in step.
        self.at = match self.line {
            0 => chance.below(usize::try_from(line).unwrap_or(usize::MAX)) as u64,
            _ => self.at.checked_rem(line).unwrap_or(0),
        };
        (self.line, self.length) = (line, length(line));
    }

    /// The next point.
    pub(super) fn stride(&mut self) -> u64 {
        self.at = (self.at + self.length).checked_rem(self.line).unwrap_or(0);
        self.at
    }
}

/// How long strides over a line of this length are.
fn length(line: u64) -> u64 {
    // The product's upper half is below the line's length.
    let golden = ((u128::from(line) * 0x9E37_79B9_7F4A_7C15) >> 64) as u64;
    let lengths = (golden..line).take(LENGTHS as usize);
    let rated = lengths.filter_map(|length| Some((unevenness(line, length)?, length)));
    rated.min().map_or(1, |(_, length)| length)
}

/// The largest part of `length / line` as a continued fraction: what is best known of how unevenly multiples of it are
/// spread (Niederreiter 1992, chapter 3). None: they have a common divisor.
fn unevenness(line: u64, length: u64) -> Option<u64> {
    let (mut larger, mut smaller, mut most) = (line, length, 0);
    while smaller != 0 {
        most = most.max(larger / smaller);
        (larger, smaller) = (smaller, larger % smaller);
    }
    (larger == 1).then_some(most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn each_point_is_met_once_in_a_round(line in 2u64..5_000, seed in any::<u64>()) {
            let mut strides = Strides::default();
            strides.over(line, &mut Chance(seed));
            let mut met: Vec<u64> = (0..line).map(|_| strides.stride()).collect();
            met.sort_unstable();
            prop_assert!(met.into_iter().eq(0..line));
        }

        #[test]
        fn whoever_stands_on_a_part_of_the_line_is_met_evenly(
            line in 33u64..20_000, from in any::<prop::sample::Index>(), weight in 2u64..20, seed in any::<u64>(),
        ) {
            let from = from.index(line as usize) as u64;
            let mut strides = Strides::default();
            strides.over(line, &mut Chance(seed));
            let stands = |point: u64| (point + line - from) % line < weight;
            let turns: Vec<u64> = (0..2 * line).filter(|_| stands(strides.stride())).collect();
            let longest = turns.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
            prop_assert!(longest * weight <= 4 * line, "{longest} turns between two of {weight} in {line}");
        }
    }

    #[test]
    fn a_line_of_any_length_can_be_walked() {
        let mut strides = Strides::default();
        for line in [0, 1, 2, 3, u64::from(u32::MAX) * 10_000] {
            strides.over(line, &mut Chance(1));
            assert!(strides.stride() < line.max(1));
        }
    }
}
