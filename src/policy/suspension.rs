//! Suspension: when a component that goes wrong is not asked for a while. A rule without a clock: it is told the time and
//! how many calls there were.
//!
//! A fault costs the request that it came to, and no other: below the bounds here, a component that goes wrong now and
//! then goes on being asked. It is suspended when faults are most of what it gives, or when they eat the workers' time.

use std::time::Duration;

/// After this time, what was counted counts half.
const HALF_LIFE_MS: f64 = 10_000.0;
/// What counts that never end add up to, of something that comes once each ms.
const WINDOW_MS: f64 = HALF_LIFE_MS / std::f64::consts::LN_2;
/// So many faults suspend...
const FAULTS: f64 = 10.0;
/// ...if they are this share of the calls.
const SHARE: f64 = 0.5;
/// So does this share of all workers' time that went into calls that faulted.
const CPU_SHARE: f64 = 0.1;
/// The first calls after a suspension are a trial...
const TRIAL_CALLS: u64 = 10;
/// ...which so many faults among them end.
const TRIAL_FAULTS: u32 = 5;
/// How long at first, doubled each time...
const FIRST_MS: u64 = 10_000;
/// ...up to this, ...
const LONGEST_MS: u64 = 600_000;
/// ...until it was not suspended for this long: then the next one is a first one again.
pub(super) const QUIET_MS: u64 = 600_000;

/// What a component did lately. Times are ms since the process started.
#[derive(Debug)]
pub(super) struct Suspension {
    /// Calls, faults, and CPU time of calls that faulted in ms: what is old counts less.
    calls: f64,
    faults: f64,
    cpu_ms: f64,
    /// When these were true.
    at_ms: u64,
    /// All calls ever, at that time.
    seen: u64,
    /// The most that `cpu_ms` may be.
    most_cpu_ms: f64,
    trial: Option<Trial>,
    /// When the last suspension ends or ended. 0: there was none.
    until_ms: u64,
    /// Suspensions since the last quiet time.
    in_a_row: u32,
}

/// The first calls after a suspension.
#[derive(Debug)]
struct Trial {
    /// All calls ever, when it began.
    from: u64,
    faults: u32,
}

/// Why a component is suspended, and how long.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Suspended {
    /// When it ends.
    pub(super) until_ms: u64,
    /// Suspensions in a row, this one counted.
    pub(super) in_a_row: u32,
    pub(super) why: Why,
}

/// Which bound was crossed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Why {
    /// So many of so many calls lately.
    Faults { faults: f64, calls: f64 },
    /// So much CPU time lately.
    Cpu(Duration),
    /// The calls after a suspension were no better.
    Trial,
}

impl Suspension {
    /// For a gateway with so many workers.
    pub(super) fn new(workers: usize) -> Self {
        Suspension {
            calls: 0.0,
            faults: 0.0,
            cpu_ms: 0.0,
            at_ms: 0,
            seen: 0,
            most_cpu_ms: workers.max(1) as f64 * WINDOW_MS * CPU_SHARE,
            trial: None,
            until_ms: 0,
            in_a_row: 0,
        }
    }

    /// Takes up what was known before a restart: it begins with the trial.
    pub(super) fn resume(&mut self, now_ms: u64, in_a_row: u32) {
        self.until_ms = now_ms;
        self.in_a_row = in_a_row;
        self.begin_trial(now_ms, 0);
    }

    /// The suspension is over. `calls` are all calls ever.
    pub(super) fn begin_trial(&mut self, now_ms: u64, calls: u64) {
        self.trial = Some(Trial { from: calls, faults: 0 });
        (self.calls, self.faults, self.cpu_ms) = (0.0, 0.0, 0.0);
        (self.at_ms, self.seen) = (now_ms, calls);
    }

    /// Counts a fault, which took this CPU time. `calls` are all calls ever, this one counted. Gives the suspension that
    /// begins with it.
    pub(super) fn fault(&mut self, now_ms: u64, calls: u64, cpu: Duration) -> Option<Suspended> {
        if now_ms < self.until_ms {
            // It had begun before the suspension.
            return None;
        }
        self.age(now_ms, calls);
        self.faults += 1.0;
        self.cpu_ms += cpu.as_secs_f64() * 1000.0;
        let why = self.why(calls)?;
        if now_ms.saturating_sub(self.until_ms) > QUIET_MS {
            self.in_a_row = 0;
        }
        let length = (FIRST_MS << self.in_a_row.min(16)).min(LONGEST_MS);
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.until_ms = now_ms + length;
        self.trial = None;
        Some(Suspended { until_ms: self.until_ms, in_a_row: self.in_a_row, why })
    }

    fn why(&mut self, calls: u64) -> Option<Why> {
        if let Some(trial) = &mut self.trial {
            if calls.saturating_sub(trial.from) <= TRIAL_CALLS {
                trial.faults += 1;
                if trial.faults >= TRIAL_FAULTS {
                    return Some(Why::Trial);
                }
            } else {
                self.trial = None;
            }
        }
        if self.cpu_ms >= self.most_cpu_ms {
            return Some(Why::Cpu(Duration::from_secs_f64(self.cpu_ms / 1000.0)));
        }
        // Counts shrink a little from one fault to the next: ten at once are ten.
        let many = self.faults >= FAULTS - 0.5 && self.faults >= self.calls * SHARE;
        many.then_some(Why::Faults { faults: self.faults, calls: self.calls })
    }

    /// What was counted counts less, and the calls since then are counted as if they had come evenly.
    fn age(&mut self, now_ms: u64, calls: u64) {
        let passed = now_ms.saturating_sub(self.at_ms) as f64;
        let new = calls.saturating_sub(self.seen) as f64;
        let left = (-passed / HALF_LIFE_MS).exp2();
        let evenly = if passed > 0.0 { (1.0 - left) * WINDOW_MS / passed } else { 1.0 };
        self.calls = self.calls * left + new * evenly;
        self.faults *= left;
        self.cpu_ms *= left;
        (self.at_ms, self.seen) = (now_ms.max(self.at_ms), calls.max(self.seen));
    }
}

#[cfg(test)]
mod tests;
