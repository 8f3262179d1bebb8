//! What requests see of a canary: who of them asks it, and where what came of them is counted. Nothing here is locked but
//! by what goes wrong.

use super::cells::{CELLS, Cell, Counted};
use super::course::{Course, Progress};
use super::evidence::{EXAMPLES, Example};
use super::judge::Slow;
use super::keys::{BITS, Keys};
use super::settings::StickyOn;
use super::times::{LEN, bar};
use crate::base::time::unix_ms;
use crate::http::request::Head;
use crate::policy::cut::cut;
use crate::policy::version::Version;
use crate::service::decision::{Fault, FaultKind, Role};
use crate::service::record::Record;
use arc_swap::ArcSwap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Bytes that are kept of what an example says.
const TEXT: usize = 256;

/// Who decides about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The live version.
    Live,
    /// The canary.
    Canary,
}

impl Side {
    /// Its version's role.
    pub fn role(self) -> Role {
        match self {
            Side::Live => Role::Live,
            Side::Canary => Role::Canary,
        }
    }
}

/// A version that a part of the clients ask.
#[derive(Debug)]
pub struct Canary {
    /// The version.
    pub version: Arc<Version>,
    keys: Keys,
    max_faults: u64,
    /// Hashes below this ask it, of 2⁵³.
    below: AtomicU64,
    /// Calls that went wrong where the live version answered...
    faults: AtomicU64,
    /// ...and where that went wrong as well.
    poisoned: AtomicU64,
    /// From how many ns on an answer is slow: for one in ten, and for one in a hundred.
    slow: [AtomicU64; 2],
    /// One for each worker.
    tallies: Box<[Tally]>,
    /// Of the live version and of its own.
    examples: [Examples; 2],
    told: ArcSwap<Told>,
}

/// How a canary stands, as of the last look.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// How far it has come.
    pub progress: Progress,
    /// Steps in all.
    pub steps: usize,
    /// The share of the clients that it has, 0 to 1.
    pub share: f64,
    /// How long this step takes at least.
    pub hold: Duration,
    /// What an operator should know.
    pub notes: Vec<String>,
}

/// Requests that did not go well, a few.
#[derive(Debug, Default)]
struct Examples {
    seen: AtomicU64,
    kept: Mutex<Vec<Example>>,
}

impl Examples {
    fn keep(&self, example: impl FnOnce() -> Example) {
        if self.seen.fetch_add(1, Relaxed) < EXAMPLES as u64 {
            // Nothing that panics runs under this lock.
            self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(example());
        }
    }

    fn all(&self) -> Vec<Example> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What one worker has counted since the last look.
#[derive(Debug)]
#[repr(align(128))]
struct Tally {
    cells: [Box<[Count]>; 2],
    times: [Box<[AtomicU32]>; 2],
}

#[derive(Debug, Default)]
struct Count {
    requests: AtomicU32,
    bad: AtomicU32,
    slow90: AtomicU32,
    slow99: AtomicU32,
    starved: AtomicU32,
}

impl Count {
    fn take(&self) -> Cell {
        // Most are empty: a look is cheaper than an exchange.
        if self.requests.load(Relaxed) == 0 {
            return Cell::default();
        }
        let take = |count: &AtomicU32| count.swap(0, Relaxed);
        Cell {
            requests: take(&self.requests),
            bad: take(&self.bad),
            slow90: take(&self.slow90),
            slow99: take(&self.slow99),
            starved: take(&self.starved),
        }
    }
}

impl Tally {
    fn new() -> Self {
        let cells = || (0..CELLS).map(|_| Count::default()).collect();
        let times = || (0..LEN).map(|_| AtomicU32::new(0)).collect();
        Tally { cells: [cells(), cells()], times: [times(), times()] }
    }
}

/// One request of a policy that has a canary, until it is over.
#[derive(Debug)]
pub struct Watched {
    canary: Arc<Canary>,
    /// Who decides about it.
    pub side: Side,
    cell: u16,
    /// A call went wrong for what the machine had to give.
    starved: bool,
}

impl Canary {
    /// Nobody asks it yet.
    pub fn new(version: Arc<Version>, sticky_on: StickyOn, max_faults: u64, workers: usize) -> Self {
        Canary {
            keys: Keys::new(&version.name, &version.id, sticky_on),
            version,
            max_faults,
            below: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            poisoned: AtomicU64::new(0),
            slow: [AtomicU64::new(u64::MAX), AtomicU64::new(u64::MAX)],
            tallies: (0..workers.max(1)).map(|_| Tally::new()).collect(),
            examples: Default::default(),
            told: ArcSwap::default(),
        }
    }

    /// Who decides about this request: the same for all of a client's, and the canary for more and more of them as its
    /// share grows. `chance` is drawn where each request is for itself.
    pub fn draw(self: &Arc<Self>, head: &Head, chance: impl FnOnce() -> u64) -> Watched {
        let hash = self.keys.hash(head, chance);
        let side = if hash < self.below.load(Relaxed) { Side::Canary } else { Side::Live };
        let cell = (hash >> (BITS - CELLS.ilog2())) as u16;
        Watched { canary: Arc::clone(self), side, cell, starved: false }
    }

    /// How it stands.
    pub fn told(&self) -> Arc<Told> {
        self.told.load_full()
    }

    /// From now on it is asked, and told of, as its course says.
    pub fn follow(&self, course: &Course) {
        self.set_share(course.share());
        self.set_slow(course.slow());
        self.told.store(Arc::new(Told {
            progress: course.progress(),
            steps: course.settings().steps.len(),
            share: course.share(),
            hold: course.hold(),
            notes: course.notes(),
        }));
    }

    /// From now on this share of the clients ask it, 0 to 1; nobody, if it was given up.
    fn set_share(&self, share: f64) {
        if self.faults() <= self.max_faults {
            self.below.store((share.clamp(0.0, 1.0) * (1_u64 << BITS) as f64) as u64, Relaxed);
        }
        // A call may have gone wrong meanwhile.
        if self.faults() > self.max_faults {
            self.below.store(0, Relaxed);
        }
    }

    /// Nobody asks it any more.
    pub fn give_up(&self) {
        self.below.store(0, Relaxed);
    }

    /// What counts as slow from now on.
    fn set_slow(&self, slow: Option<Slow>) {
        let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let [q90, q99] = &self.slow;
        q90.store(slow.map_or(u64::MAX, |slow| ns(slow.q90)), Relaxed);
        q99.store(slow.map_or(u64::MAX, |slow| ns(slow.q99)), Relaxed);
    }

    /// Calls that went wrong where the live version answered.
    pub fn faults(&self) -> u64 {
        self.faults.load(Relaxed)
    }

    /// Requests with which both versions went wrong.
    pub fn poisoned(&self) -> u64 {
        self.poisoned.load(Relaxed)
    }

    /// What all workers have counted since the last time.
    pub fn take(&self) -> Counted {
        let mut counted = Counted::default();
        for tally in &self.tallies {
            for (cells, counts) in counted.cells.iter_mut().zip(&tally.cells) {
                cells.iter_mut().zip(counts).for_each(|(cell, count)| cell.add(&count.take()));
            }
            for (times, counts) in counted.times.iter_mut().zip(&tally.times) {
                for (bar, count) in counts.iter().enumerate() {
                    if count.load(Relaxed) > 0 {
                        times.add_at(bar, count.swap(0, Relaxed));
                    }
                }
            }
        }
        counted
    }

    /// Requests that did not go well, of the live version and of its own.
    pub fn examples(&self) -> [Vec<Example>; 2] {
        self.examples.each_ref().map(Examples::all)
    }
}

/// The machine is to blame, or may be.
fn is_starved(fault: &Fault) -> bool {
    match fault.kind {
        FaultKind::Deadline | FaultKind::Memory => true,
        FaultKind::Trap => fault.message.contains("call stack exhausted"),
        _ => false,
    }
}

/// Nobody but the version is to blame.
fn is_own(fault: &Fault) -> bool {
    use FaultKind::{BadAnswer, Error, Trap, Wait};
    matches!(fault.kind, Trap | Wait | BadAnswer | Error) && !is_starved(fault)
}

impl Watched {
    /// The canary.
    pub fn canary(&self) -> &Arc<Canary> {
        &self.canary
    }

    /// The call of the live version went wrong, which nobody else answers.
    pub fn went_wrong(&mut self, fault: &Fault) {
        self.starved |= is_starved(fault);
    }

    /// The canary's call went wrong; the live version, which was asked then, has `answered` or went wrong as well. One too
    /// many, and nobody asks the canary any more.
    #[cold]
    pub fn faulted(&mut self, fault: &Fault, answered: bool, head: &Head) {
        self.starved |= is_starved(fault);
        if !is_own(fault) {
            return;
        }
        let canary = &self.canary;
        if !answered {
            canary.poisoned.fetch_add(1, Relaxed);
            return;
        }
        let [_, examples] = &canary.examples;
        examples.keep(|| example(head, None, Some(format!("{}: {}", fault.kind.name(), fault.message))));
        if canary.faults.fetch_add(1, Relaxed) >= canary.max_faults {
            canary.give_up();
            canary.version.alarm();
        }
    }

    /// The exchange is over.
    pub fn finished(&self, worker: usize, record: &Record) {
        let canary = &self.canary;
        let Some(tally) = canary.tallies.get(worker % canary.tallies.len().max(1)) else { return };
        let side = self.side as usize;
        let cell = tally.cells.get(side).and_then(|cells| cells.get(usize::from(self.cell)));
        let (Some(cell), Some(times)) = (cell, tally.times.get(side)) else { return };
        // The client was gone before anything could be known.
        if record.status == 0 {
            return;
        }
        let count = |count: &AtomicU32, yes: bool| {
            if yes {
                count.fetch_add(1, Relaxed);
            }
        };
        let bad = record.status >= 500;
        count(&cell.bad, bad);
        count(&cell.starved, self.starved);
        if let Some(took) = record.head_after() {
            let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
            let [q90, q99] = &canary.slow;
            count(&cell.slow90, ns > q90.load(Relaxed));
            count(&cell.slow99, ns > q99.load(Relaxed));
            if let Some(time) = times.get(bar(ns)) {
                time.fetch_add(1, Relaxed);
            }
        }
        // Last, since a cell without requests is passed over.
        cell.requests.fetch_add(1, Relaxed);
        if bad && let (Some(examples), Some(head)) = (canary.examples.get(side), &record.head) {
            examples.keep(|| example(head, Some(record.status), None));
        }
    }
}

fn example(head: &Head, status: Option<u16>, fault: Option<String>) -> Example {
    let short = |text: &str| {
        let mut text = text.to_owned();
        cut(&mut text, TEXT);
        text
    };
    Example {
        at_ms: unix_ms(),
        method: short(head.parts.method.as_str()),
        host: short(head.host()),
        path: short(head.path()),
        status,
        fault: fault.as_deref().map(short),
    }
}
