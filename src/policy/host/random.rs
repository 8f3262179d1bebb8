//! `random`: SplitMix64 from the exchange's seed.

use crate::base::chance::Chance;
use crate::policy::bindings::wayside::policy::random::Host;
use crate::policy::context::Context;

impl Host for Context {
    fn below(&mut self, n: u32) -> u32 {
        let Some(r) = self.draw("random.below") else { return 0 };
        if n == 0 {
            self.bad("`random.below` of 0");
        }
        below(r, n)
    }

    fn unit(&mut self) -> f64 {
        // 53 bits, which a double holds exactly.
        self.draw("random.unit").map_or(0.0, |r| (r >> 11) as f64 / (1_u64 << 53) as f64)
    }
}

impl Context {
    fn draw(&mut self, function: &str) -> Option<u64> {
        let seed = self.question(function)?.seed;
        Some(self.call.chance.get_or_insert(Chance(seed)).next_u64())
    }
}

/// (r × n) >> 64, which is below n; 0 for n = 0.
pub(super) fn below(r: u64, n: u32) -> u32 {
    ((u128::from(r) * u128::from(n)) >> 64) as u32
}
