//! What the last minute brought: how long answers took, and what the live version's cells had.

use super::cells::{CELLS, Cell, Counted};
use super::times::Times;
use std::collections::VecDeque;
use std::time::Duration;

/// What counts as lately.
const WINDOW: Duration = Duration::from_secs(60);
/// What comes within this time is kept as one.
const PART: Duration = Duration::from_secs(5);

/// The last minute, in parts.
#[derive(Debug, Default)]
pub(super) struct Recent {
    parts: VecDeque<Part>,
    /// All of their times.
    times: Times,
    now: Duration,
}

#[derive(Debug)]
struct Part {
    began: Duration,
    /// Of the live version.
    cells: Box<[Cell]>,
    /// Of both.
    times: Times,
}

impl Recent {
    pub(super) fn take(&mut self, counted: &Counted, passed: Duration) {
        let began = self.now;
        self.now += passed;
        while let Some(part) = self.parts.pop_front_if(|part| self.now.saturating_sub(part.began) > WINDOW) {
            self.times.take_away(&part.times);
        }
        if self.parts.back().is_none_or(|part| self.now.saturating_sub(part.began) > PART) {
            let cells = vec![Cell::default(); CELLS].into_boxed_slice();
            self.parts.push_back(Part { began, cells, times: Times::default() });
        }
        if let Some(part) = self.parts.back_mut() {
            let [live, _] = &counted.cells;
            let busy = part.cells.iter_mut().zip(live).filter(|(_, from)| from.requests > 0);
            busy.for_each(|(to, from)| to.add(from));
            for times in &counted.times {
                part.times.add(times);
                self.times.add(times);
            }
        }
    }

    /// How long answers took.
    pub(super) fn times(&self) -> &Times {
        &self.times
    }

    /// What the live version's cells had.
    pub(super) fn cells(&self) -> Box<[Cell]> {
        let mut cells = vec![Cell::default(); CELLS].into_boxed_slice();
        for part in &self.parts {
            cells.iter_mut().zip(&part.cells).for_each(|(to, from)| to.add(from));
        }
        cells
    }
}
