//! One policy of the directory: who answers for it, what was found of it last, and whether that is to be tried.

use super::under_way::Release;
use super::{DELIVERY, Found};
use crate::base::time::date;
use crate::discovery::backoff::Backoff;
use crate::policy::conduct::Remembered;
use crate::policy::live::PolicyLive;
use crate::policy::release::{Good, History, Lying, Pair, Quarantined};
use crate::policy::scope::{OnFault, Standing};
use crate::policy::version::Version;
use crate::service::route::{Match, RawMatch};
use std::sync::Arc;
use std::time::Instant;

/// One policy.
#[derive(Debug)]
pub(super) struct Entry {
    /// What the policy keeps from version to version.
    pub(super) kept: Arc<PolicyLive>,
    pub(super) matcher: Match,
    /// The same as it is written.
    pub(super) rule: RawMatch,
    pub(super) on_fault: OnFault,
    pub(super) standing: Standing,
    /// What answers, or answered before a restart.
    pub(super) good: Option<(Pair, Good)>,
    /// Only known from before a restart.
    pub(super) before: Option<Lying>,
    /// The canary that is under way.
    pub(super) under_way: Option<Release>,
    /// One that waits until what answered before a restart does so again.
    pub(super) waits: Option<(Found, Arc<Version>)>,
    /// What is known of its versions.
    pub(super) history: History,
    /// What the directory held last.
    pub(super) lying: Option<Lying>,
    pub(super) loading: bool,
    pub(super) error: Option<String>,
    /// The content that was turned away last: not tried again until it changes.
    pub(super) rejected: Option<Arc<str>>,
    /// Half of a delivery, perhaps.
    pub(super) waiting: Option<Waiting>,
    /// Its component was not there, since then.
    pub(super) gone: Option<Instant>,
    pub(super) retry: Option<Retry>,
}

/// What was found last that is not live, and whose other half may still be on its way.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) key: Arc<str>,
    /// When it was found first.
    pub(super) since: Instant,
    /// That is long enough ago.
    pub(super) over: bool,
}

/// The system refused something.
#[derive(Debug)]
pub(super) struct Retry {
    pub(super) key: Arc<str>,
    pub(super) at: Instant,
    pub(super) backoff: Backoff,
}

impl Entry {
    pub(super) fn new(
        standing: Standing,
        (suspended, history): (Vec<Remembered>, History),
        before: Option<Lying>,
    ) -> Self {
        let kept = PolicyLive::default();
        kept.conducts.remember(suspended);
        Entry {
            kept: Arc::new(kept),
            // Fits everything, until its sidecar says more: failing closed is safer.
            matcher: Match::default(),
            rule: RawMatch::default(),
            on_fault: OnFault::default(),
            standing,
            good: None,
            before,
            under_way: None,
            waits: None,
            history,
            lying: None,
            loading: false,
            error: None,
            rejected: None,
            waiting: None,
            gone: None,
            retry: None,
        }
    }

    /// May the other half of what was found still be on its way? Then it is not tried alone.
    pub(super) fn is_half(&self, pair: &Pair, started: bool) -> bool {
        // What it was pinned against came whole.
        let pinned = self.history.pin.as_ref().map(|pin| &pin.over.pair);
        let canary = self.under_way.as_ref().map(|release| &release.found.pair);
        let good = self.good.as_ref().map(|(pair, _)| pair);
        let known = pinned.or(canary).or(good).or(self.before.as_ref().map(|before| &before.pair));
        let Some(known) = known else {
            // Alone it would fit every request.
            return started && pair.sidecar.is_none();
        };
        if known == pair {
            return false;
        }
        let both = known.component != pair.component && known.sidecar != pair.sidecar;
        match (&known.sidecar, &pair.sidecar) {
            // Gone, or about to be written anew.
            (Some(_), None) => true,
            // It never had one.
            (None, None) => false,
            _ => !both,
        }
    }

    /// When to look at it again, if nothing changes.
    pub(super) fn due(&self) -> Option<Instant> {
        let waiting = self.waiting.as_ref().filter(|waiting| !waiting.over).map(|waiting| waiting.since + DELIVERY);
        let gone = self.gone.map(|since| since + DELIVERY);
        let retry = self.retry.as_ref().filter(|_| !self.loading).map(|retry| retry.at);
        [waiting, gone, retry].into_iter().flatten().min()
    }

    /// What was found is live: what was turned away or awaited is not there any more.
    pub(super) fn settle(&mut self) {
        self.loading = false;
        self.error = None;
        self.rejected = None;
        self.waiting = None;
        self.retry = None;
    }

    /// It must not come back.
    pub(super) fn refuse(&mut self, quarantined: &Quarantined) {
        self.settle();
        self.error = Some(format!(
            "version {} is quarantined since {}: {}; deliver another one, or see `wayside policy quarantine --lift`",
            quarantined.version,
            date(quarantined.since_ms),
            quarantined.why
        ));
    }

    /// Is this to be tried now?
    pub(super) fn is_ripe(&mut self, found: &Found, (started, at_once): (bool, bool), now: Instant) -> bool {
        if self.rejected.as_ref() == Some(&found.key) {
            self.loading = false;
            self.waiting = None;
            return false;
        }
        self.retry.take_if(|retry| retry.key != found.key);
        if self.retry.as_ref().is_some_and(|retry| now < retry.at) {
            self.loading = false;
            return false;
        }
        self.loading = true;
        if !at_once && self.is_half(&found.pair, started) {
            // What was there when the gateway started is as old as its files.
            let since = if started { Some(now) } else { now.checked_sub(found.age()) }.unwrap_or(now);
            let same = self.waiting.take().filter(|waiting| waiting.key == found.key);
            let waiting = same.unwrap_or_else(|| Waiting { key: found.key.clone(), since, over: false });
            let over = now.saturating_duration_since(waiting.since) >= DELIVERY;
            self.waiting = Some(Waiting { over, ..waiting });
            return over;
        }
        self.waiting = None;
        true
    }
}
