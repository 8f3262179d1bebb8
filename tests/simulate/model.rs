//! What endpoints are modelled as: so many requests at a time, the others wait in line; times to answer that are now and
//! then much longer; and what may be wrong with one of them for a while.

use std::collections::VecDeque;
use std::ops::Range;
use wayside::base::chance::Chance;

/// Something is wrong with an endpoint.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Fault {
    /// It takes so many times as long.
    Slow(f64),
    /// It takes no connection.
    Refuses,
    /// It answers 500 at once.
    Fails,
    /// It answers nothing.
    Hangs,
    /// It takes so many times as long until it has answered so many.
    Cold(f64, u64),
    /// It takes no connection each other second.
    Flaps,
}

/// What becomes of a request that has come to an endpoint.
pub(super) enum Met {
    /// It is worked on, and answered after so many µs.
    Begins(u64),
    /// It waits for others.
    Waits,
    /// It fails after so many µs.
    Fails(u64),
    /// Nothing ever comes of it.
    Never,
}

/// One endpoint.
#[derive(Debug, Clone)]
pub(super) struct Model {
    /// Requests that it works on at a time.
    pub slots: usize,
    /// Mean time for one, in µs.
    pub mean_us: f64,
    /// What is wrong, and from when to when, in µs.
    pub fault: Option<(Fault, Range<u64>)>,
    busy: usize,
    served: u64,
    waiting: VecDeque<usize>,
}

/// Of the logarithm of a time.
const SIGMA: f64 = 0.8;

impl Model {
    pub(super) fn new(slots: usize, mean_us: f64) -> Self {
        Model { slots, mean_us, fault: None, busy: 0, served: 0, waiting: VecDeque::new() }
    }

    fn fault(&self, now: u64) -> Option<Fault> {
        self.fault.as_ref().filter(|(_, when)| when.contains(&now)).map(|(fault, _)| *fault)
    }

    /// A request comes.
    pub(super) fn meets(&mut self, request: usize, now: u64, chance: &mut Chance) -> Met {
        match self.fault(now) {
            Some(Fault::Refuses) => Met::Fails(200),
            Some(Fault::Flaps) if (now / 1_000_000).is_multiple_of(2) => Met::Fails(200),
            Some(Fault::Fails) => Met::Fails(500),
            Some(Fault::Hangs) => Met::Never,
            _ if self.busy < self.slots => Met::Begins(self.begins(now, chance)),
            _ => {
                self.waiting.push_back(request);
                Met::Waits
            }
        }
    }

    fn begins(&mut self, now: u64, chance: &mut Chance) -> u64 {
        self.busy += 1;
        let times = match self.fault(now) {
            Some(Fault::Slow(times)) => times,
            Some(Fault::Cold(times, until)) if self.served < until => times,
            _ => 1.0,
        };
        let unit = |chance: &mut Chance| ((chance.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        // Box and Muller; the mean of what comes out is 1.
        let normal = (-2.0 * unit(chance).ln()).sqrt() * (std::f64::consts::TAU * unit(chance)).cos();
        let one = (SIGMA * normal - SIGMA * SIGMA / 2.0).exp();
        ((self.mean_us * times * one) as u64).max(1)
    }

    /// It is through with one. The next one that `still_wanted` says is waited for begins: which, and how long it takes.
    pub(super) fn done(
        &mut self,
        now: u64,
        chance: &mut Chance,
        still_wanted: impl Fn(usize) -> bool,
    ) -> Option<(usize, u64)> {
        self.busy -= 1;
        // What is cold becomes warm from when it is.
        self.served += u64::from(self.fault(now).is_some());
        while let Some(next) = self.waiting.pop_front() {
            if still_wanted(next) {
                return Some((next, self.begins(now, chance)));
            }
        }
        None
    }
}
