//! The generic cell rate algorithm (ITU-T I.371, Annex A, "virtual scheduling"): a token bucket in one time, the one at
//! which it will be full again. Pure: it is told what time it is.

/// What a limit allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Terms {
    /// Between two requests at the steady rate, ns; at least 1.
    pub(super) interval_ns: u64,
    /// As many at once when nothing was asked for long; at least 1.
    pub(super) burst: u32,
}

impl Terms {
    /// In which an empty bucket fills, ns.
    pub(super) fn whole_ns(self) -> u64 {
        self.interval_ns.saturating_mul(self.burst.into())
    }
}

/// What taking came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    /// It was there and is gone now.
    pub(super) granted: bool,
    /// More that could be taken at once.
    pub(super) left: u32,
    /// Refused: until the next one is there, ns. Granted: until all are there again.
    pub(super) wait_ns: u64,
}

/// One key's bucket. Of requests at times in any order, at most `span / interval + burst` are granted within any span: each
/// moves `full_ns` on by an interval, and it is never before their first time, nor a whole bucket after their last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meter {
    /// When all will be there again ("theoretical arrival time").
    full_ns: u64,
    /// Those that it was counted by.
    terms: Terms,
}

impl Meter {
    /// A bucket that is full.
    pub(super) fn full(terms: Terms) -> Self {
        Meter { full_ns: 0, terms }
    }

    /// One with so many left; less than none where more were given away than there were.
    pub(super) fn holding(left: f64, terms: Terms, now_ns: u64) -> Self {
        let lacks = (f64::from(terms.burst) - left).max(0.0);
        // A float as an integer saturates.
        let lacks_ns = (lacks * terms.interval_ns as f64) as u64;
        Meter { full_ns: now_ns.saturating_add(lacks_ns), terms }
    }

    /// Takes one, if it is there.
    pub(super) fn take(&mut self, terms: Terms, now_ns: u64) -> Taken {
        if self.terms != terms {
            *self = self.under(terms, now_ns);
        }
        let whole_ns = terms.whole_ns();
        let lacks_ns = self.full_ns.saturating_sub(now_ns).saturating_add(terms.interval_ns);
        if lacks_ns > whole_ns {
            return Taken { granted: false, left: 0, wait_ns: lacks_ns - whole_ns };
        }
        self.full_ns = now_ns.saturating_add(lacks_ns);
        let left = (whole_ns - lacks_ns) / terms.interval_ns.max(1);
        Taken { granted: true, left: u32::try_from(left).unwrap_or(u32::MAX), wait_ns: lacks_ns }
    }

    /// The one that was taken last is given back.
    pub(super) fn give_back(&mut self) {
        self.full_ns = self.full_ns.saturating_sub(self.terms.interval_ns);
    }

    /// The same bucket by other terms: as many are taken as were, at most all of them.
    fn under(self, terms: Terms, now_ns: u64) -> Self {
        let lacks_ns = u128::from(self.full_ns.saturating_sub(now_ns));
        let lacks_ns = lacks_ns * u128::from(terms.interval_ns) / u128::from(self.terms.interval_ns.max(1));
        let lacks_ns = u64::try_from(lacks_ns).unwrap_or(u64::MAX).min(terms.whole_ns());
        Meter { full_ns: now_ns.saturating_add(lacks_ns), terms }
    }
}

#[cfg(test)]
mod tests;
