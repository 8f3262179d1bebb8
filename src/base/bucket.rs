//! A token bucket.

/// How a bucket fills.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Tokens gained per second; not negative, may be infinite.
    pub per_second: f64,
    /// Tokens that it holds at most.
    pub burst: u32,
}

/// What taking came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// The tokens were there and are gone now.
    pub granted: bool,
    /// Whole tokens left.
    pub left: u32,
    /// Time until that many will be there, in ms; 0 if granted, the largest u32 if never.
    pub wait_ms: u32,
}

/// Fractions below this are rounding, not tokens: waiting as long as was said must do.
const ROUNDING: f64 = 1e-6;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {
    tokens: f64,
    at_ms: u64,
}

impl Bucket {
    pub(crate) fn full(rate: Rate, now_ms: u64) -> Self {
        Bucket { tokens: rate.burst.into(), at_ms: now_ms }
    }

    /// One with so many tokens, fewer than none where more were given away than there were.
    pub(crate) fn of(tokens: f64, now_ms: u64) -> Self {
        Bucket { tokens, at_ms: now_ms }
    }

    pub(crate) fn take(&mut self, tokens: u32, rate: Rate, now_ms: u64) -> Taken {
        // Exchanges start on several workers, so times may come a little out of order.
        let passed = now_ms.saturating_sub(self.at_ms);
        self.at_ms = self.at_ms.max(now_ms);
        // Not for 0 ms: an infinite rate times nothing is not a number.
        let gained = if passed == 0 { 0.0 } else { rate.per_second * passed as f64 / 1000.0 };
        let mut held = (self.tokens + gained).min(rate.burst.into());
        let wanted = f64::from(tokens);
        let granted = wanted <= held + ROUNDING;
        if granted {
            held = (held - wanted).max(0.0);
        }
        self.tokens = held;
        let wait_ms = match granted {
            true => 0,
            false if tokens > rate.burst || rate.per_second == 0.0 => u32::MAX,
            // A float as an integer saturates. At least 1: nothing comes within this exchange's millisecond.
            false => (((wanted - held) * 1000.0 / rate.per_second).ceil() as u32).max(1),
        };
        Taken { granted, left: (held + ROUNDING) as u32, wait_ms }
    }
}
