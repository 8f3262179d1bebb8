//! How a component behaves, whichever version it is in: its calls, its faults, and whether it is asked at all. A good call
//! only adds to its worker's own count.

use super::cut::cut;
use super::suspension::{QUIET_MS, Suspension, Why};
use crate::base::time::{process_ms, unix_ms};
use crate::service::decision::{Fault, FaultKind};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// Bytes that are kept of what the last fault before a suspension said.
const MESSAGE: usize = 256;
/// Components of one policy that are remembered.
const REMEMBERED: usize = 16;

/// One component's conduct. Shared by its versions and by all workers.
#[derive(Debug)]
pub(super) struct Conduct {
    /// One for each worker.
    calls: Box<[Calls]>,
    /// When the suspension ends, ms since the process started; 0: it is asked.
    until_ms: AtomicU64,
    /// Suspensions since the process started.
    total: AtomicU64,
    /// Touched by faults and by suspensions only.
    rest: Mutex<Rest>,
}

/// On cache lines of its own, since every call writes here.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Calls(AtomicU64);

#[derive(Debug)]
struct Rest {
    rule: Suspension,
    in_a_row: u32,
    /// When the last suspension ended or ends, ms since 1970.
    until_unix_ms: u64,
    reason: String,
}

/// A suspension that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspended {
    /// What went wrong, in a sentence for people.
    pub reason: String,
    /// What is left of it.
    pub left: Duration,
}

impl Suspended {
    /// When it ends, by the calendar.
    pub fn until(&self) -> SystemTime {
        SystemTime::now() + self.left
    }
}

/// What outlives the process of a component that was suspended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Remembered {
    /// The component's digest.
    pub(super) component: String,
    /// Suspensions in a row.
    pub(super) in_a_row: u32,
    /// When the last one ends or ended, ms since 1970.
    pub(super) until_unix_ms: u64,
}

impl Remembered {
    /// It was quiet for so long that the next suspension is a first one.
    pub(super) fn is_over(&self) -> bool {
        unix_ms().saturating_sub(self.until_unix_ms) > QUIET_MS
    }
}

impl Conduct {
    fn new(workers: usize) -> Self {
        let rest = Rest { rule: Suspension::new(workers), in_a_row: 0, until_unix_ms: 0, reason: String::new() };
        Conduct {
            calls: (0..workers.max(1)).map(|_| Calls::default()).collect(),
            until_ms: AtomicU64::new(0),
            total: AtomicU64::new(0),
            rest: Mutex::new(rest),
        }
    }

    /// It begins with the trial that follows a suspension.
    fn resumed(workers: usize, kept: &Remembered) -> Self {
        let conduct = Conduct::new(workers);
        let mut rest = conduct.rest();
        rest.rule.resume(process_ms(), kept.in_a_row);
        (rest.in_a_row, rest.until_unix_ms) = (kept.in_a_row, kept.until_unix_ms);
        drop(rest);
        conduct
    }

    /// A call begins.
    pub(super) fn called(&self, worker: usize) {
        self.calls[worker % self.calls.len()].0.fetch_add(1, Relaxed);
    }

    /// All calls ever.
    pub(super) fn calls(&self) -> u64 {
        self.calls.iter().map(|calls| calls.0.load(Relaxed)).sum()
    }

    /// Suspensions since the process started.
    pub(super) fn suspensions(&self) -> u64 {
        self.total.load(Relaxed)
    }

    /// A call went wrong after so much CPU time. Gives the suspension that this leads to.
    pub(super) fn faulted(&self, fault: &Fault, cpu: Duration) -> Option<Suspended> {
        let now_ms = process_ms();
        let mut rest = self.rest();
        let suspended = rest.rule.fault(now_ms, self.calls(), cpu)?;
        let left = Duration::from_millis(suspended.until_ms.saturating_sub(now_ms));
        rest.in_a_row = suspended.in_a_row;
        rest.until_unix_ms = unix_ms() + suspended.until_ms.saturating_sub(now_ms);
        rest.reason = reason(suspended.why, fault);
        self.total.fetch_add(1, Relaxed);
        self.until_ms.store(suspended.until_ms.max(1), Relaxed);
        Some(Suspended { reason: rest.reason.clone(), left })
    }

    /// For a call that is about to begin: what is left of a suspension. One that is over becomes the trial.
    pub(super) fn suspended(&self) -> Option<Duration> {
        // Cheaper than asking the clock.
        match self.until_ms.load(Relaxed) {
            0 => None,
            until_ms => self.left_or_trial(until_ms, process_ms()),
        }
    }

    #[cold]
    fn left_or_trial(&self, until_ms: u64, now_ms: u64) -> Option<Duration> {
        if now_ms < until_ms {
            return Some(Duration::from_millis(until_ms - now_ms));
        }
        let mut rest = self.rest();
        // Unless another worker was quicker.
        if self.until_ms.compare_exchange(until_ms, 0, Relaxed, Relaxed).is_ok() {
            rest.rule.begin_trial(now_ms, self.calls());
        }
        None
    }

    /// For whoever looks on: the suspension that is in force.
    pub(super) fn in_force(&self) -> Option<Suspended> {
        let left = self.until_ms.load(Relaxed).saturating_sub(process_ms());
        (left > 0).then(|| Suspended { reason: self.rest().reason.clone(), left: Duration::from_millis(left) })
    }

    fn kept(&self, component: &str) -> Option<Remembered> {
        let rest = self.rest();
        let (component, in_a_row, until_unix_ms) = (component.to_owned(), rest.in_a_row, rest.until_unix_ms);
        let kept = Remembered { component, in_a_row, until_unix_ms };
        (kept.in_a_row > 0 && !kept.is_over()).then_some(kept)
    }

    fn rest(&self) -> MutexGuard<'_, Rest> {
        // Nothing that panics runs under this lock.
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn reason(why: Why, Fault { kind, message }: &Fault) -> String {
    let mut message = message.clone();
    cut(&mut message, MESSAGE);
    let what = match why {
        Why::Faults { faults, calls } => {
            format!("about {:.0} of its last {:.0} calls went wrong", faults.round(), calls.max(faults).round())
        }
        Why::Cpu(spent) => format!("{spent:.1?} of the workers' time went into calls that went wrong"),
        Why::Trial => "it went on going wrong after its last suspension".into(),
    };
    format!("{what}, the last one by {}: {message}", kind_in_words(*kind))
}

fn kind_in_words(kind: FaultKind) -> &'static str {
    match kind {
        FaultKind::BadAnswer => "a bad answer",
        FaultKind::Error => "an error",
        FaultKind::Deadline => "its deadline",
        FaultKind::Memory => "its memory limit",
        FaultKind::Wait => "waiting",
        FaultKind::Trap | FaultKind::Suspended | FaultKind::Broken | FaultKind::Starved => "a trap",
    }
}

/// The conduct of each component that a policy's name has had lately: what comes back, comes back as what it was.
#[derive(Debug, Default)]
pub(super) struct Conducts(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    known: Vec<(String, Arc<Conduct>)>,
    /// From before a restart, of those that were not seen since.
    kept: Vec<Remembered>,
}

impl Conducts {
    /// What was known before a restart.
    pub(super) fn remember(&self, kept: Vec<Remembered>) {
        self.lock().kept = kept;
    }

    /// Of the component with this digest, on so many workers.
    pub(super) fn of(&self, component: &str, workers: usize) -> Arc<Conduct> {
        let mut known = self.lock();
        let position = known.known.iter().position(|(digest, _)| digest == component);
        let entry = match position {
            Some(position) => known.known.remove(position),
            None => {
                let kept = known.kept.iter().position(|kept| kept.component == component);
                let kept = kept.map(|position| known.kept.swap_remove(position)).filter(|kept| !kept.is_over());
                let conduct = kept.map_or_else(|| Conduct::new(workers), |kept| Conduct::resumed(workers, &kept));
                (component.to_owned(), Arc::new(conduct))
            }
        };
        let conduct = Arc::clone(&entry.1);
        known.known.push(entry);
        if known.known.len() > REMEMBERED {
            known.known.remove(0);
        }
        conduct
    }

    /// What must outlive the process.
    pub(super) fn kept(&self) -> Vec<Remembered> {
        let known = self.lock();
        let waiting = known.kept.iter().filter(|kept| !kept.is_over()).cloned();
        known.known.iter().filter_map(|(component, conduct)| conduct.kept(component)).chain(waiting).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Nothing that panics runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault() -> Fault {
        Fault { kind: FaultKind::Trap, message: "unreachable".into() }
    }

    /// Goes wrong until it is suspended.
    fn suspend(conduct: &Conduct) -> (usize, Suspended) {
        let goes_wrong = || {
            conduct.called(0);
            conduct.faulted(&fault(), Duration::ZERO)
        };
        (1..100).find_map(|count| goes_wrong().map(|suspended| (count, suspended))).unwrap()
    }

    #[test]
    fn a_suspension_belongs_to_the_component_and_says_why() {
        let conducts = Conducts::default();
        let (count, suspended) = suspend(&conducts.of("a", 1));
        assert_eq!(count, 10);
        assert!(suspended.reason.contains("10 of its last 10 calls"), "{suspended:?}");
        assert!(suspended.reason.contains("unreachable"), "{suspended:?}");
        assert!(conducts.of("b", 1).suspended().is_none());
        // Back again, it is what it was.
        let again = conducts.of("a", 1);
        assert!(again.suspended().is_some_and(|left| left > Duration::from_secs(5)));
        assert_eq!(again.in_force().unwrap().reason, suspended.reason);
        assert_eq!(again.suspensions(), 1);
    }

    #[test]
    fn after_a_restart_five_faults_suspend_at_the_doubled_time() {
        let conducts = Conducts::default();
        suspend(&conducts.of("a", 1));
        let kept = conducts.kept();
        assert_eq!((kept.len(), kept[0].component.as_str(), kept[0].in_a_row), (1, "a", 1));

        let later = Conducts::default();
        later.remember(kept.clone());
        assert_eq!(later.kept(), kept, "also if it has not come yet");
        let conduct = later.of("a", 1);
        assert!(conduct.suspended().is_none(), "the trial");
        let (count, suspended) = suspend(&conduct);
        assert_eq!(count, 5);
        assert!(suspended.left > Duration::from_secs(15), "{suspended:?}");
        assert_eq!(suspend(&later.of("b", 1)).0, 10);
    }

    #[test]
    fn what_is_long_over_is_not_kept() {
        let kept = Remembered { component: "a".into(), in_a_row: 3, until_unix_ms: unix_ms() - QUIET_MS - 1 };
        let conducts = Conducts::default();
        conducts.remember(vec![kept]);
        assert!(conducts.kept().is_empty());
        assert_eq!(suspend(&conducts.of("a", 1)).0, 10);
    }

    #[test]
    fn only_so_many_components_are_remembered() {
        let conducts = Conducts::default();
        suspend(&conducts.of("a", 1));
        for number in 0..REMEMBERED {
            conducts.of(&number.to_string(), 1);
        }
        assert!(conducts.of("a", 1).suspended().is_none());
        assert_eq!(conducts.lock().known.len(), REMEMBERED);
    }
}
