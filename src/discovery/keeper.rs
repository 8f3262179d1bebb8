//! What is kept of a registry's services while connections to it come and go: each list passes the guard, is reported,
//! and outlives a failure. A registry with one conversation for all services is a [`Follow`]; all the rest is here.

use super::backoff::Backoff;
use super::guard::Guard;
use super::registry::{Failure, Kind};
use super::{Lookup, Observed, Report, Reports, Source};
use crate::base::chance::Chance;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How often a registry that answers confirms what is known.
const CONFIRM: Duration = Duration::from_secs(1);
/// A conversation that was good for so long ended for a new reason: the first wait is short again.
const GOOD: Duration = Duration::from_secs(5);
/// The longest wait where nobody answers, so that one who is back is followed within 2 s.
const AWAY: Duration = Duration::from_secs(1);

/// What was last applied for each lookup. It outlives a watch, so that a changed configuration does not make an empty
/// answer a first one, which would be applied at once.
#[derive(Debug, Clone, Default)]
pub struct Known(Arc<Mutex<BTreeMap<Key, Observed>>>);

type Key = (Arc<str>, String, Vec<String>);

fn key(lookup: &Lookup) -> Key {
    (Arc::clone(&lookup.service), lookup.registered_as.clone(), lookup.tags.clone())
}

impl Known {
    /// Forgets all but these.
    pub fn retain(&self, lookups: &[Lookup]) {
        let keys: Vec<Key> = lookups.iter().map(key).collect();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|key, _| keys.contains(key));
    }

    /// This counts for a lookup.
    pub fn remember(&self, lookup: &Lookup, observed: &Observed) {
        self.put(key(lookup), observed.clone());
    }

    fn get(&self, key: &Key) -> Option<Observed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn put(&self, key: Key, observed: Observed) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, observed);
    }
}

/// Keeps one service.
#[derive(Debug)]
pub struct Keeper {
    lookup: Lookup,
    guard: Guard,
    known: Known,
    reports: Reports,
    reported: Option<Observed>,
    /// The problem that was told last, while it lasts.
    failed: Option<String>,
    /// It is not given out, though the registry lives.
    refused: bool,
    confirm_after: Duration,
    /// How long what the next list takes away is held, at least.
    hold: Duration,
}

impl Keeper {
    /// What `known` has of it counts. A doubtful list is read again `confirm_after` later.
    pub fn new(lookup: Lookup, known: &Known, confirm_after: Duration, reports: Reports) -> Self {
        let guard = Guard::new(confirm_after, lookup.allow_empty, known.get(&key(&lookup)));
        Keeper {
            lookup,
            guard,
            known: known.clone(),
            reports,
            reported: None,
            failed: None,
            refused: false,
            confirm_after,
            hold: Duration::ZERO,
        }
    }

    /// What is kept.
    pub fn lookup(&self) -> &Lookup {
        &self.lookup
    }

    /// When to read again, without waiting for a change, while a list is held.
    pub fn confirm_at(&self) -> Option<Instant> {
        self.guard.confirm_at()
    }

    /// Takes the newest list, whole, and reports what counts now. True: that is another than before.
    pub async fn offer(&mut self, answer: Observed) -> bool {
        if let Some(problem) = answer.problem() {
            return self.cannot_use(answer, problem).await;
        }
        (self.failed, self.refused) = (None, false);
        let was_held = self.guard.confirm_at().is_some();
        let hold = std::mem::take(&mut self.hold).max(self.confirm_after);
        let observed = self.guard.offer_held(answer, Instant::now(), hold);
        let (service, source) = (&self.lookup.service, &self.reports.source);
        match &observed.held {
            Some(held) if !was_held => tracing::warn!(%service, %source, %held, "the registry's answer is held"),
            None if was_held => {
                tracing::info!(%service, %source, endpoints = observed.endpoints.len(), "no longer held");
            }
            _ => {}
        }
        if observed.held.is_none() {
            self.known.put(key(&self.lookup), observed.clone());
        }
        self.report(observed).await
    }

    /// All entries of the list are bad. To apply it would remove what works, but what is wrong with them is told.
    async fn cannot_use(&mut self, answer: Observed, problem: String) -> bool {
        // Else it would be read again and again, since what confirms the doubt does not come.
        self.guard.let_go();
        if self.failed.as_ref() == Some(&problem) {
            return false;
        }
        let Observed { skipped, left_out, .. } = answer;
        let before = self.known.get(&key(&self.lookup)).unwrap_or_default();
        let changed = self.report(Observed { skipped, left_out, held: Some(problem.clone()), ..before }).await;
        self.failed(&problem).await;
        changed
    }

    async fn report(&mut self, observed: Observed) -> bool {
        // Not the revision: a busy registry raises it for nothing.
        let changed = self
            .reported
            .as_ref()
            .is_none_or(|last| (&last.endpoints, &last.held) != (&observed.endpoints, &observed.held));
        self.reported = Some(observed.clone());
        self.reports.send(Report::Service(Arc::clone(&self.lookup.service), observed)).await;
        changed
    }

    /// What was reported is as the registry says, as of now.
    async fn confirm(&self) {
        if let Some(observed) = self.reported.as_ref().filter(|observed| observed.held.is_none()) {
            self.reports.send(Report::Service(Arc::clone(&self.lookup.service), observed.clone())).await;
        }
    }

    /// It could not be read: told once for each new problem; control knows that the rest is silence.
    pub async fn failed(&mut self, problem: &str) {
        if self.failed.as_deref() != Some(problem) {
            self.failed = Some(problem.to_owned());
            self.reports.send(Report::Failed(Some(Arc::clone(&self.lookup.service)), problem.to_owned())).await;
        }
    }
}

/// How long to wait after a failure, at most.
pub fn longest_wait(failure: &Failure) -> Duration {
    match failure.kind {
        Kind::Unreachable | Kind::Silent => AWAY,
        Kind::Denied | Kind::BadAnswer => Backoff::MOST,
    }
}

/// A registry that is followed by one conversation for all services.
pub trait Follow: fmt::Debug + Send + Sync + 'static {
    /// How long until everything is read again though nothing seemed to change, at least: a watch that is no longer
    /// allowed is silent everywhere. Up to a fifth is added, so that a fleet does not ask at once.
    const QUIET: Duration = Duration::from_secs(300);
    /// Connects, reads every list, hands each to [`Keepers::offer`], says [`Keepers::whole`], and goes on with what
    /// changes, until something fails: then it is called again, after a while. A service's list is always handed over
    /// whole. When [`Keepers::again`] has come, every list is read again. Whatever says that the registry lives, and
    /// that this watch does, is told by [`Keepers::alive`]; a registry that is silent for some seconds is a failure.
    fn follow(&self, services: &mut Keepers) -> impl Future<Output = Result<Infallible, Failure>> + Send;
}

/// A source that follows.
#[derive(Debug)]
pub struct Followed<F> {
    follow: Arc<F>,
    known: Known,
    confirm_after: Duration,
}

impl<F: Follow> Followed<F> {
    /// A doubtful list is read again `confirm_after` later.
    pub fn new(follow: F, confirm_after: Duration) -> Self {
        Followed { follow: Arc::new(follow), known: Known::default(), confirm_after }
    }
}

impl<F: Follow> Source for Followed<F> {
    fn watch(&self, lookups: Vec<Lookup>, reports: Reports) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.known.retain(&lookups);
        let keeper = |lookup: Lookup| {
            let name = Arc::clone(&lookup.service);
            (name, Keeper::new(lookup, &self.known, self.confirm_after, reports.clone()))
        };
        let keepers = Keepers {
            keepers: lookups.into_iter().map(keeper).collect(),
            held: BTreeMap::new(),
            reports: reports.clone(),
            whole: None,
            quiet: F::QUIET,
            again: Instant::now(),
            confirmed: None,
            failed: None,
            chance: Chance::seeded(),
        };
        Box::pin(run(Arc::clone(&self.follow), keepers))
    }

    fn remember(&self, lookup: &Lookup, observed: &Observed) {
        self.known.remember(lookup, observed);
    }
}

async fn run<F: Follow>(follow: Arc<F>, mut keepers: Keepers) {
    if keepers.keepers.is_empty() {
        return std::future::pending().await;
    }
    let mut backoff = Backoff::seeded();
    loop {
        let Err(failure) = follow.follow(&mut keepers).await;
        if keepers.whole.take().is_some_and(|since| since.elapsed() >= GOOD) {
            backoff.reset();
        }
        keepers.failed(&failure.problem).await;
        sleep(backoff.wait_within(longest_wait(&failure))).await;
    }
}

/// The services that one conversation follows.
#[derive(Debug)]
pub struct Keepers {
    keepers: BTreeMap<Arc<str>, Keeper>,
    /// When those have to be read again whose list is held.
    held: BTreeMap<Arc<str>, Instant>,
    reports: Reports,
    /// Since when every list is read.
    whole: Option<Instant>,
    quiet: Duration,
    again: Instant,
    confirmed: Option<Instant>,
    failed: Option<String>,
    chance: Chance,
}

impl Keepers {
    /// What is followed; a service is known by the gateway's name for it.
    pub fn lookups(&self) -> impl Iterator<Item = &Lookup> {
        self.keepers.values().map(Keeper::lookup)
    }

    /// The source that this is, by name.
    pub fn source(&self) -> &Arc<str> {
        &self.reports.source
    }

    /// What counts of one service, from this conversation or an earlier one.
    pub fn known(&self, service: &str) -> Option<Observed> {
        let keeper = self.keepers.get(service)?;
        keeper.known.get(&key(&keeper.lookup))
    }

    /// The registry may have begun without what its users have to register again: what the next list of each service
    /// takes away is held this long, at least.
    pub fn doubt_next(&mut self, hold: Duration) {
        self.keepers.values_mut().for_each(|keeper| keeper.hold = hold);
    }

    /// Takes the newest list of one service, whole.
    pub async fn offer(&mut self, service: &str, answer: Observed) {
        let Some(keeper) = self.keepers.get_mut(service) else { return };
        keeper.offer(answer).await;
        match keeper.confirm_at() {
            Some(at) => self.held.insert(Arc::clone(&keeper.lookup.service), at),
            None => self.held.remove(service),
        };
    }

    /// One service is not given out, though the registry lives: what was known of it stays, and is not confirmed until
    /// its list is offered again.
    pub async fn refused(&mut self, service: &str, problem: &str) {
        if let Some(keeper) = self.keepers.get_mut(service) {
            keeper.refused = true;
            keeper.failed(problem).await;
        }
    }

    /// Every list was read and handed over just now, or refused.
    pub async fn whole(&mut self) {
        let now = Instant::now();
        if self.failed.take().is_some() {
            tracing::info!(source = %self.reports.source, "the source is followed again");
        }
        self.whole.get_or_insert(now);
        self.confirmed = Some(now);
        self.rest(now);
    }

    /// Every list was handed over, but a part of the registry could not be read, and what was known of it stands in them.
    /// The problem is told, once, and until all is [`Keepers::whole`] nothing may be told by [`Keepers::alive`].
    pub async fn partly(&mut self, problem: &str) {
        self.rest(Instant::now());
        self.failed(problem).await;
    }

    fn rest(&mut self, now: Instant) {
        let fifth = usize::try_from(self.quiet.as_millis() / 5).unwrap_or(usize::MAX);
        self.again = now + self.quiet + Duration::from_millis(self.chance.below(fifth) as u64);
    }

    /// When every list has to be read again, at the latest.
    pub fn again(&self) -> Instant {
        self.held.values().fold(self.again, |again, at| again.min(*at))
    }

    /// The registry lives and has nothing to say: what is known is as it says, as of now.
    pub async fn alive(&mut self) {
        let now = Instant::now();
        if self.whole.is_some() && self.confirmed.is_none_or(|at| now.duration_since(at) >= CONFIRM) {
            self.confirmed = Some(now);
            if !self.keepers.values().any(|keeper| keeper.refused) {
                return self.reports.send(Report::Confirmed).await;
            }
            for keeper in self.keepers.values().filter(|keeper| !keeper.refused) {
                keeper.confirm().await;
            }
        }
    }

    async fn failed(&mut self, problem: &str) {
        if self.failed.as_deref() != Some(problem) {
            self.failed = Some(problem.to_owned());
            self.reports.send(Report::Failed(None, problem.to_owned())).await;
        }
    }
}

#[cfg(test)]
mod tests;
