//! How long answers take: a histogram whose bars are a thirty-second of an octave wide, so that a quantile is known within
//! 3 % (the layout of HdrHistogram).

use std::time::Duration;

/// Bars in each octave.
const BARS: u32 = 32;
/// The shortest time that is told from none: 2¹⁰ ns.
const SHORTEST: u32 = 10;
/// The longest octave, of 2³⁷ ns: two minutes.
const LONGEST: u32 = 37;
/// Bars of a histogram.
pub(super) const LEN: usize = ((LONGEST - SHORTEST) * BARS) as usize;

/// How many answers took how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Times {
    bars: Box<[u32]>,
    /// Bars that have been counted in: first and last.
    used: (usize, usize),
}

impl Default for Times {
    fn default() -> Self {
        Times { bars: vec![0; LEN].into_boxed_slice(), used: (LEN, 0) }
    }
}

/// The bar of a time, below [`LEN`].
pub(super) fn bar(ns: u64) -> usize {
    let ns = ns.clamp(1 << SHORTEST, (1 << LONGEST) - 1);
    let octave = ns.ilog2();
    let within = (ns >> (octave - BARS.ilog2())) & u64::from(BARS - 1);
    ((octave - SHORTEST) * BARS) as usize + within as usize
}

/// Where a bar begins, ns.
fn begins(bar: usize) -> f64 {
    let (octave, within) = (bar as u32 / BARS + SHORTEST, bar as u32 % BARS);
    f64::from(BARS + within) * f64::from(octave - BARS.ilog2()).exp2()
}

impl Times {
    /// One more, of so many ns.
    pub fn count(&mut self, ns: u64) {
        self.add_at(bar(ns), 1);
    }

    /// So many more in this bar.
    pub(super) fn add_at(&mut self, bar: usize, count: u32) {
        self.used = (self.used.0.min(bar), self.used.1.max(bar + 1).min(LEN));
        if let Some(bar) = self.bars.get_mut(bar) {
            *bar = bar.saturating_add(count);
        }
    }

    fn used(&self) -> &[u32] {
        self.bars.get(self.used.0..self.used.1).unwrap_or_default()
    }

    /// All of these as well.
    pub fn add(&mut self, other: &Times) {
        self.used = (self.used.0.min(other.used.0), self.used.1.max(other.used.1));
        let to = self.bars.iter_mut().skip(other.used.0);
        to.zip(other.used()).for_each(|(to, from)| *to = to.saturating_add(*from));
    }

    /// All of these no more.
    pub(super) fn take_away(&mut self, other: &Times) {
        let to = self.bars.iter_mut().skip(other.used.0);
        to.zip(other.used()).for_each(|(to, from)| *to = to.saturating_sub(*from));
    }

    /// How many there are.
    pub fn total(&self) -> u64 {
        self.used().iter().map(|count| u64::from(*count)).sum()
    }

    /// The time that this share of them does not exceed. None: there are none.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let total = self.total();
        let mut wanted = total as f64 * share.clamp(0.0, 1.0);
        let first = self.used.0;
        let last = first + self.used().iter().rposition(|count| *count > 0)?;
        for (bar, count) in self.used().iter().enumerate().map(|(bar, count)| (first + bar, count)) {
            let count = f64::from(*count);
            if wanted <= count && count > 0.0 || bar == last {
                let part = if count > 0.0 { (wanted / count).min(1.0) } else { 1.0 };
                let ns = begins(bar) + (begins(bar + 1) - begins(bar)) * part;
                return Some(Duration::from_nanos(ns as u64));
            }
            wanted -= count;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_time_lies_in_its_bar(ns: u64) {
            let bar = bar(ns);
            prop_assert!(bar < LEN);
            let ns = ns.clamp(1 << SHORTEST, (1 << LONGEST) - 1) as f64;
            prop_assert!(begins(bar) <= ns * 1.000_001 && ns <= begins(bar + 1) * 1.000_001, "{} {} {}", begins(bar), ns, bar);
        }

        #[test]
        fn a_quantile_is_known_within_a_thirtieth(mut all in prop::collection::vec(2_000_u64..100_000_000_000, 1..200)) {
            let mut times = Times::default();
            all.iter().for_each(|ns| times.count(*ns));
            all.sort_unstable();
            for share in [0.5, 0.9, 0.99] {
                let exact = all[((all.len() as f64 * share).ceil() as usize).clamp(1, all.len()) - 1] as f64;
                let told = times.quantile(share).unwrap().as_nanos() as f64;
                prop_assert!((told / exact - 1.0).abs() < 0.035, "{share}: {told} for {exact}");
            }
        }
    }

    #[test]
    fn of_none_there_is_no_quantile() {
        assert_eq!(Times::default().quantile(0.5), None);
    }
}
