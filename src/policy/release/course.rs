//! The way of a canary: a while in which only the live version is watched, then a step after the other, then it is live, or
//! rolled back. A pure core: it is told what was counted, and how much time that was.

use super::cells::{CELLS, Counted};
use super::judge::{Guilt, Judge, Slow};
use super::settings::Settings;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The live version is watched for so long before the first step, but for no more than a fifth of a step.
const BEFORE: Duration = Duration::from_secs(60);
/// From one look to the next, at most.
const TICK: Duration = Duration::from_secs(5);
/// At least.
const SHORT_TICK: Duration = Duration::from_millis(250);
/// Each restart within a step begins its odds anew, and so takes its chance of a false alarm; this one begins the step anew.
const RESTARTS: u32 = 3;
/// Where fewer cells have requests, a small rise cannot be seen.
const FEW_CELLS: usize = 8;

/// How far a canary has come: what outlives the process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The step, from 1; 0: only the live version is watched.
    pub step: usize,
    /// Time in this step.
    pub held_ms: u64,
    /// Requests of the live version and of the canary, in this step.
    pub requests: [u64; 2],
    /// Restarts of the gateway in this step.
    pub restarts: u32,
}

/// What follows from a tick.
#[derive(Debug, Clone, PartialEq)]
pub enum Move {
    /// Nothing.
    Stay,
    /// The next step begins.
    Step,
    /// It is live from now on.
    Promote,
    /// More calls went wrong than may.
    Faulty(u64),
    /// It does harm.
    Harmful(Guilt),
}

/// One canary on its way.
#[derive(Debug)]
pub struct Course {
    settings: Settings,
    judge: Judge,
    step: usize,
    held: Duration,
    requests: [u64; 2],
    restarts: u32,
    /// Time in this step, also that which does not count since nothing came.
    passed: Duration,
    /// Cells of the canary that had requests in this step.
    busy: Box<[bool]>,
    /// There are requests enough to say what is slow.
    knows_slow: bool,
}

impl Course {
    /// At its beginning.
    pub fn new(settings: Settings) -> Self {
        let judge = Judge::new(settings.bounds());
        Course {
            settings,
            judge,
            step: 0,
            held: Duration::ZERO,
            requests: [0; 2],
            restarts: 0,
            passed: Duration::ZERO,
            busy: vec![false; CELLS].into_boxed_slice(),
            knows_slow: false,
        }
    }

    /// After a restart, where it stood.
    pub fn resume(settings: Settings, progress: &Progress) -> Self {
        let mut course = Course::new(settings);
        course.step = progress.step.min(course.settings.steps.len());
        course.restarts = progress.restarts.saturating_add(1);
        if course.restarts >= RESTARTS {
            tracing::warn!(step = course.step, "the gateway was restarted often in this step, which begins anew");
            course.restarts = 0;
        } else {
            course.held = Duration::from_millis(progress.held_ms);
            course.requests = progress.requests;
        }
        course
    }

    /// What is to be kept.
    pub fn progress(&self) -> Progress {
        Progress {
            step: self.step,
            held_ms: u64::try_from(self.held.as_millis()).unwrap_or(u64::MAX),
            requests: self.requests,
            restarts: self.restarts,
        }
    }

    /// How it is released.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The share of the clients that it has now, 0 to 1.
    pub fn share(&self) -> f64 {
        self.share_of(self.step)
    }

    fn share_of(&self, step: usize) -> f64 {
        step.checked_sub(1).and_then(|step| self.settings.steps.get(step)).copied().unwrap_or(0.0)
    }

    /// How long this step takes at least.
    pub fn hold(&self) -> Duration {
        match self.step {
            0 => (self.settings.hold / 5).min(BEFORE),
            _ => self.settings.hold,
        }
    }

    /// How long until the next look.
    pub fn tick_in(&self) -> Duration {
        (self.settings.hold / 8).clamp(SHORT_TICK, TICK)
    }

    /// What counts as slow until then.
    pub fn slow(&self) -> Option<Slow> {
        self.judge.slow()
    }

    /// Takes in what was counted in so much time, and the calls of the canary so far that went wrong where the live version
    /// answered.
    pub fn tick(&mut self, counted: &Counted, faults: u64, passed: Duration) -> Move {
        let requests = counted.requests();
        let [live, own] = requests;
        self.requests.iter_mut().zip(requests).for_each(|(to, from)| *to += from);
        let [_, cells] = &counted.cells;
        self.busy.iter_mut().zip(cells).for_each(|(busy, cell)| *busy |= cell.requests > 0);
        self.passed += passed;
        // Nothing to compare with: that time tells nothing.
        if live > 0 {
            self.held += passed;
        }
        if faults > self.settings.max_faults {
            return Move::Faulty(faults);
        }
        let guilt = self.judge.tick(counted, passed);
        self.knows_slow = self.judge.slow().is_some();
        match guilt {
            Some(guilt) if self.step > 0 || own > 0 => Move::Harmful(guilt),
            _ if !self.is_over() => Move::Stay,
            _ if self.step == self.settings.steps.len() => Move::Promote,
            _ => {
                let moved = (self.share() * CELLS as f64).ceil() as usize;
                self.judge.begin(moved);
                self.step += 1;
                (self.held, self.passed, self.requests, self.restarts) = (Duration::ZERO, Duration::ZERO, [0; 2], 0);
                self.busy.fill(false);
                Move::Step
            }
        }
    }

    fn is_over(&self) -> bool {
        let [_, own] = self.requests;
        self.held >= self.hold() && (self.step == 0 || own >= self.settings.min_requests)
    }

    /// What an operator should know of how this step goes.
    pub fn notes(&self) -> Vec<String> {
        let [live, own] = self.requests;
        let mut notes = Vec::new();
        if live == 0 && self.passed > self.tick_in() * 2 {
            notes.push("no request comes to the live version: time stands still".to_owned());
        }
        if self.step == 0 || own == 0 {
            return notes;
        }
        if self.held >= self.hold() && own < self.settings.min_requests {
            let missing = self.settings.min_requests - own;
            let left = self.passed.as_secs_f64() * missing as f64 / own as f64;
            let left = humantime::format_duration(Duration::from_secs(left.min(1e9) as u64));
            notes.push(format!("waits for {missing} more requests to the canary: about {left}, as they come now"));
        }
        let busy = self.busy.iter().filter(|busy| **busy).count();
        if busy < FEW_CELLS {
            notes.push(format!(
                "{busy} groups of clients on the canary: a rise of less than 10 points can't be seen; \
                 `sticky_on = \"request\"` can"
            ));
        }
        if !self.knows_slow {
            notes.push("fewer than 200 answers a minute: how long they take isn't judged".to_owned());
        }
        notes
    }
}
