//! What is unhurried, where the limit holds somebody back all the time: it is halved, and halved again as long as answers
//! become faster by that. Where more are let in than are worked on, answers take as long as those who wait are many
//! (Little 1961); where not, half as many take as long. So it costs no more than it must, as Envoy's
//! `adaptive_concurrency`, which goes down to three for that, would; and nothing that was measured in an overload is taken
//! for unhurried for long, as it would be with Netflix's `Gradient2Limit`.

/// One on its way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Probe {
    /// The limit before it,
    limit: f64,
    /// and the median then, µs.
    hurried_us: f64,
    /// The median of the step before this one, µs.
    last_us: f64,
    /// No more are in flight than may be in this step since then, ms; none: there still are.
    since_ms: Option<u64>,
    /// It is given up then, ms: too few answers came.
    until_ms: u64,
}

/// What follows a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Next {
    /// Another one with this limit.
    Step(f64),
    /// The answers of the last step were unhurried, and this limit fits that.
    Ends(f64),
}

/// Half as many in flight, and answers take less than so much of the time: they still waited for each other.
const FASTER: f64 = 0.75;
/// It takes no longer than so many times the median, and than so many ms.
const MEDIANS: f64 = 50.0;
const LEAST_MS: u64 = 5_000;

impl Probe {
    /// With a `limit`, answers take so long.
    pub(super) fn new(limit: f64, median_us: f64, now_ms: u64) -> Self {
        // A median of more than an hour is none.
        let most_ms = (MEDIANS * median_us.min(3.6e9) / 1000.0) as u64;
        let until_ms = now_ms.saturating_add(most_ms.max(LEAST_MS));
        Probe { limit, hurried_us: median_us, last_us: median_us, since_ms: None, until_ms }
    }

    /// The limit of its first step, which is `min` at least.
    pub(super) fn first(&self, min: f64) -> f64 {
        (self.limit / 2.0).max(min)
    }

    /// Does an answer count that comes now and took so long, with so many in flight and this limit? Those that came with more
    /// have waited for them.
    pub(super) fn counts(&mut self, took_us: u32, in_flight: u32, limit: u32, now_ms: u64) -> bool {
        if in_flight <= limit {
            self.since_ms.get_or_insert(now_ms);
        }
        self.since_ms.is_some_and(|since_ms| now_ms.saturating_sub(since_ms).saturating_mul(1000) >= took_us.into())
    }

    /// The least that a step lasts, ms: whoever takes longer than the others must have its say.
    pub(super) fn window_ms(&self) -> u64 {
        (2.0 * self.last_us / 1000.0) as u64
    }

    /// It is given up: the limit is what it was.
    pub(super) fn is_over(&self, now_ms: u64) -> Option<f64> {
        (now_ms >= self.until_ms).then_some(self.limit)
    }

    /// A step with this limit is over, and answers took so long. `holds`: the limit held somebody back.
    pub(super) fn step(&mut self, limit: f64, median_us: f64, holds: bool, tolerance: f64, min: f64) -> Next {
        if holds && limit > min && median_us < FASTER * self.last_us {
            (self.last_us, self.since_ms) = (median_us, None);
            return Next::Step((limit / 2.0).max(min));
        }
        // While all work, the time that answers take and the number in flight are in proportion.
        let fits = self.limit * (tolerance * median_us / self.hurried_us).min(1.0);
        Next::Ends(fits.max(limit).min(self.limit))
    }
}
