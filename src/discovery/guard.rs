//! The guard: an answer that would take away too much at once is held until a second look agrees. Registries answer
//! "nothing" for many reasons that are not "all are gone": a token without rights, an agent that has just started, a
//! partition; a file is half written. Pure: whoever asks tells the time, and reads again when `confirm_at` has come.

use super::{Entry, Observed};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// From this many endpoints on, the loss of more than half is doubted.
const MANY: usize = 4;

/// How long after a doubtful answer it is read again, where a source's table does not say.
pub(super) fn confirm_after() -> Duration {
    Duration::from_secs(5)
}

/// What counts for one service, and what is held back.
#[derive(Debug)]
pub struct Guard {
    confirm_after: Duration,
    allow_empty: bool,
    accepted: Option<Observed>,
    held: Option<Held>,
}

#[derive(Debug)]
struct Held {
    /// What was lacking in every answer since.
    gone: BTreeSet<SocketAddr>,
    confirm_at: Instant,
}

impl Guard {
    /// `accepted`: what is known from an earlier watch. `allow_empty`: an empty answer is applied at once.
    pub fn new(confirm_after: Duration, allow_empty: bool, accepted: Option<Observed>) -> Self {
        Guard { confirm_after, allow_empty, accepted, held: None }
    }

    /// Takes the newest answer and says what to report. An answer that is doubted is applied if it comes at
    /// `confirm_at` or later and all that it lacks was lacking in every answer since the hold began; until then, what
    /// counted before is reported, with the reason. The first answer of all is always applied.
    pub fn offer(&mut self, answer: Observed, now: Instant) -> Observed {
        self.offer_held(answer, now, self.confirm_after)
    }

    /// The same, but a doubt that begins with this answer lasts this long.
    pub fn offer_held(&mut self, answer: Observed, now: Instant, hold: Duration) -> Observed {
        let Some(accepted) = &self.accepted else { return self.accept(answer) };
        let gone = gone(&accepted.endpoints, &answer.endpoints);
        let Some(doubt) = doubt(accepted.endpoints.len(), answer.endpoints.len(), gone.len(), self.allow_empty) else {
            return self.accept(answer);
        };
        let confirm_at = match &self.held {
            Some(held) if gone.is_subset(&held.gone) && held.confirm_at <= now => return self.accept(answer),
            Some(held) if gone.is_subset(&held.gone) => held.confirm_at,
            // One about more endpoints starts the time anew, and does not shorten it.
            Some(held) => held.confirm_at.max(now + hold),
            None => now + hold,
        };
        let reason = format!("{doubt}; it is held until a read {} later agrees", humantime::format_duration(hold));
        let report = Observed { held: Some(reason), ..accepted.clone() };
        self.held = Some(Held { gone, confirm_at });
        report
    }

    /// When to read again, without waiting for a change, while an answer is held.
    pub fn confirm_at(&self) -> Option<Instant> {
        self.held.as_ref().map(|held| held.confirm_at)
    }

    /// An answer came that cannot be used: nothing is held any more, and a doubt begins anew.
    pub fn let_go(&mut self) {
        self.held = None;
    }

    fn accept(&mut self, answer: Observed) -> Observed {
        self.held = None;
        self.accepted = Some(answer.clone());
        answer
    }
}

/// The guards of a source that reports all its services at once. A service that is no longer named has no endpoints, which
/// is doubted like an empty answer.
#[derive(Debug)]
pub struct Guards {
    confirm_after: Duration,
    /// Services for which an empty answer is applied at once.
    allow_empty: BTreeSet<Arc<str>>,
    services: BTreeMap<Arc<str>, Guard>,
}

impl Guards {
    /// `accepted`: what is known from an earlier watch.
    pub fn new(
        confirm_after: Duration,
        allow_empty: BTreeSet<Arc<str>>,
        accepted: BTreeMap<Arc<str>, Observed>,
    ) -> Self {
        let mut guards = Guards { confirm_after, allow_empty, services: BTreeMap::new() };
        guards.services =
            accepted.into_iter().map(|(name, known)| (name.clone(), guards.guard(&name, Some(known)))).collect();
        guards
    }

    fn guard(&self, service: &Arc<str>, accepted: Option<Observed>) -> Guard {
        Guard::new(self.confirm_after, self.allow_empty.contains(service), accepted)
    }

    /// Takes the newest answer as a whole, and says what to report.
    pub fn offer(&mut self, mut answer: BTreeMap<Arc<str>, Observed>, now: Instant) -> BTreeMap<Arc<str>, Observed> {
        let absent: Vec<Arc<str>> =
            self.services.keys().filter(|name| !answer.contains_key(*name)).map(Arc::clone).collect();
        answer.extend(absent.iter().map(|name| (Arc::clone(name), Observed::default())));
        let mut report = BTreeMap::new();
        for (name, observed) in answer {
            let mut guard = self.services.remove(&name).unwrap_or_else(|| self.guard(&name, None));
            let shown = guard.offer(observed, now);
            if shown.held.is_some() || !absent.contains(&name) {
                report.insert(Arc::clone(&name), shown);
                self.services.insert(name, guard);
            }
        }
        report
    }

    /// When to read again, without waiting for a change, while an answer is held.
    pub fn confirm_at(&self) -> Option<Instant> {
        self.services.values().filter_map(Guard::confirm_at).min()
    }

    /// What counts now, for a later watch.
    pub fn accepted(&self) -> BTreeMap<Arc<str>, Observed> {
        let accepted = |(name, guard): (&Arc<str>, &Guard)| Some((Arc::clone(name), guard.accepted.clone()?));
        self.services.iter().filter_map(accepted).collect()
    }
}

fn gone(before: &[Entry], now: &[Entry]) -> BTreeSet<SocketAddr> {
    let now: BTreeSet<SocketAddr> = now.iter().map(|entry| entry.address).collect();
    before.iter().map(|entry| entry.address).filter(|address| !now.contains(address)).collect()
}

/// Why an answer is doubted, if it is.
fn doubt(before: usize, now: usize, gone: usize, allow_empty: bool) -> Option<String> {
    match (before, now) {
        (0, _) => None,
        (_, 0) if allow_empty => None,
        (1, 0) => Some("an empty answer would take away the only endpoint".to_owned()),
        (_, 0) => Some(format!("an empty answer would take away all {before} endpoints")),
        _ if before >= MANY && gone * 2 > before => {
            Some(format!("the answer would take away {gone} of {before} endpoints"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
