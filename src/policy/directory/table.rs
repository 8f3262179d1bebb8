//! Who is live, who is being tried, who was turned away: what the directory's content means, without any I/O and without
//! a clock.

mod entry;
mod orders;
mod release;
mod under_way;

pub(super) use orders::{Held, Obeyed};
pub(super) use release::Ticked;

use super::found::{Found, Scan};
use super::last_good::{LastGood, Wanted};
use crate::base::time::unix_ms;
use crate::discovery::backoff::Backoff;
use crate::policy::compile::Error;
use crate::policy::conduct::Remembered;
use crate::policy::live::PolicyLive;
use crate::policy::release::{Desk, History, Lying};
use crate::policy::scope::{Scope, Standing};
use crate::policy::version::Version;
use entry::{Entry, Retry};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A component and its sidecar may arrive this far apart, and either may be gone for so long while it is written anew.
pub(super) const DELIVERY: Duration = Duration::from_secs(2);
/// After the system refused something, at most this long until it is tried again.
const RETRY: Duration = Duration::from_secs(60);
/// Requests that had begun when control was told that a version is replaced have asked it by then.
const ASKED: Duration = Duration::from_secs(2);

/// Every policy of the directory, by name.
#[derive(Debug, Default)]
pub(super) struct Table {
    policies: BTreeMap<Arc<str>, Entry>,
    /// Replaced versions, kept until no worker holds them: the last one to let go tears them down, and that must not be
    /// a worker.
    /// With the time at which control was told; none: it is still to be told.
    replaced: Vec<(Arc<Version>, Option<Instant>)>,
    /// Why the directory cannot be read. Every policy stays as it is.
    trouble: Option<String>,
    /// Which directory it was that the policies came from.
    directory: Option<(u64, u64)>,
    /// The first scan was tried in full, so what comes now comes to a running gateway.
    started: bool,
    /// Of policies that are not here: what was suspended, and what is known of their versions.
    absent: BTreeMap<Arc<str>, (Vec<Remembered>, History)>,
    /// Of policies that were here before a restart: what answered.
    before: BTreeMap<Arc<str>, Lying>,
    /// Where operators give their orders.
    desk: Desk,
}

/// Is there room for one more version?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// There is.
    Here,
    /// Once those that were replaced are gone.
    Later,
    /// As many policies answer as may.
    None,
}

impl Table {
    /// Where its policies' orders are given.
    pub(super) fn at(desk: Desk) -> Self {
        Table { desk, ..Table::default() }
    }

    /// What was known of the directory before a restart.
    pub(super) fn remember(&mut self, store: &LastGood) {
        for (name, record) in store.records() {
            self.absent.insert(Arc::clone(name), (record.suspended.clone(), record.history.clone()));
            if let Some(found) = store.found(name) {
                self.before.insert(Arc::clone(name), found.lying());
            }
        }
    }

    /// Takes note of what the directory holds, forgets what is gone, and gives those that have to be tried.
    ///
    /// # Errors
    /// It is not the directory that the policies came from, and has none: everything stays as it is.
    pub(super) fn found(&mut self, scan: &Scan, now: Instant) -> Result<Vec<Found>, String> {
        let another = self.directory.is_some_and(|directory| directory != scan.directory);
        if another && scan.found.is_empty() && !self.policies.is_empty() {
            return Err("it is another directory than before, and there is no policy in it".into());
        }
        self.directory = Some(scan.directory);
        self.trouble = None;
        let gone: Vec<_> =
            self.policies.keys().filter(|name| !scan.found.iter().any(|f| f.name == **name)).cloned().collect();
        for name in gone {
            self.missed(&name, another, now);
        }
        let (mut to_try, mut wanted_at_once) = (Vec::new(), Vec::new());
        for found in &scan.found {
            let standing = if self.started { Standing::Pending } else { Standing::Broken };
            let entry = self.policies.entry(found.name.clone()).or_insert_with(|| {
                let absent = self.absent.remove(&found.name).unwrap_or_default();
                Entry::new(standing, absent, self.before.remove(&found.name))
            });
            entry.gone = None;
            entry.lying = Some(found.lying());
            let is_canary = entry.under_way.as_ref().is_some_and(|release| release.found.key == found.key);
            if is_canary {
                if entry.found_again(found, now) {
                    wanted_at_once.push(Arc::clone(&found.name));
                }
                entry.settle();
            } else if let Some(quarantined) = entry.history.quarantine_of(&found.key, &found.pair.component).cloned() {
                entry.refuse(&quarantined);
            } else if entry.standing.live().is_some_and(|version| version.id == found.key) {
                // In other words perhaps.
                if let (Some(good), Ok(candidate)) = (&mut entry.good, &found.candidate) {
                    *good = (found.pair.clone(), candidate.good());
                }
                // It is what is wanted again.
                entry.history.pin = None;
                entry.settle();
                if let Some(release) = entry.withdraw() {
                    self.replaced.push((Arc::clone(&release.canary.version), None));
                }
            } else if entry.history.pin.as_ref().is_some_and(|pin| pin.over.key == found.key) {
                // An operator wants another one, until something new comes.
                entry.settle();
            } else if entry.is_ripe(found, (self.started, another), now) {
                to_try.push(found.clone());
            }
        }
        for name in wanted_at_once {
            self.promote_canary(&name);
        }
        Ok(to_try)
    }

    /// The component of this policy is not there. With another directory that is meant, else after a while.
    fn missed(&mut self, name: &Arc<str>, another: bool, now: Instant) {
        let Some(entry) = self.policies.get_mut(name) else { return };
        let since = *entry.gone.get_or_insert(now);
        (entry.waiting, entry.retry) = (None, None);
        if !another && now.saturating_duration_since(since) < DELIVERY {
            return;
        }
        tracing::info!(policy = %name, "removed");
        let suspended = entry.kept.conducts.kept();
        let canary = entry.withdraw();
        let history = std::mem::take(&mut entry.history).removed();
        if let Some(Standing::Live(version)) = self.policies.remove(name).map(|entry| entry.standing) {
            self.replaced.push((version, None));
        }
        self.ended(canary);
        // A copy of the same component is not a better one.
        if !suspended.is_empty() || !history.is_empty() {
            self.absent.insert(Arc::clone(name), (suspended, history));
        }
    }

    /// The directory cannot be read. True: that is news.
    pub(super) fn lost(&mut self, error: String) -> bool {
        let news = self.trouble.as_ref() != Some(&error);
        self.trouble = Some(error);
        news
    }

    /// A version was loaded: it answers from now on, or as a canary for a part of the clients.
    pub(super) fn accepted(&mut self, found: &Found, version: Arc<Version>, now: Instant) {
        let Some(entry) = self.policies.get_mut(&found.name) else { return };
        let mut ended = None;
        let version = match entry.release(found, Arc::clone(&version), self.started, now, &mut ended) {
            Ok(version) => version,
            Err(problem) => {
                self.replaced.push((version, None));
                return self.rejected(found, &Error::Component(problem), now);
            }
        };
        let Some(version) = version else {
            entry.settle();
            return self.ended(ended);
        };
        if let Some(entry) = self.answers(found, version, false) {
            // Newer than what it was pinned against.
            entry.history.pin = None;
            entry.settle();
        }
    }

    /// The last good version was loaded, in place of what was turned away.
    pub(super) fn restored(&mut self, found: &Found, version: Arc<Version>) {
        tracing::warn!(policy = %found.name, version = %version.id, "the last good version answers");
        self.answers(found, version, true);
    }

    /// `held`: it answered before, and not because the directory has it now.
    fn answers(&mut self, found: &Found, version: Arc<Version>, held: bool) -> Option<&mut Entry> {
        let (entry, Ok(candidate)) = (self.policies.get_mut(&found.name)?, &found.candidate) else { return None };
        tracing::info!(policy = %found.name, version = %version.id, "loaded");
        entry.matcher = candidate.sidecar.matcher.clone();
        entry.rule = candidate.sidecar.rule.clone();
        entry.on_fault = candidate.sidecar.on_fault;
        entry.good = Some((found.pair.clone(), candidate.good()));
        entry.history.answers(&version.id, &candidate.good(), held, unix_ms());
        entry.before = None;
        // It was compared with what answered until now.
        if entry.under_way.is_some()
            && let Some(release) = entry.withdraw()
        {
            self.replaced.push((Arc::clone(&release.canary.version), None));
        }
        if let Standing::Live(old) = std::mem::replace(&mut entry.standing, Standing::Live(version)) {
            self.replaced.push((old, None));
        }
        Some(entry)
    }

    /// A version did not load: whoever answers goes on answering.
    pub(super) fn rejected(&mut self, found: &Found, error: &Error, now: Instant) {
        let Some(entry) = self.policies.get_mut(&found.name) else { return };
        let said = error.to_string();
        if entry.error.as_ref() != Some(&said) {
            let live = entry.standing.live().map_or("none", |version| &version.id);
            tracing::warn!(policy = %found.name, version = %found.key, live, %error, "rejected");
        }
        // Nobody answers, so the newest sidecar that can be read says which requests that concerns.
        if entry.standing.live().is_none()
            && let Ok(candidate) = &found.candidate
        {
            entry.matcher = candidate.sidecar.matcher.clone();
            entry.on_fault = candidate.sidecar.on_fault;
        }
        entry.loading = false;
        entry.error = Some(said);
        match error {
            Error::Component(_) => (entry.rejected, entry.retry) = (Some(found.key.clone()), None),
            Error::System(_) => {
                let retry = entry.retry.take().filter(|retry| retry.key == found.key);
                let mut backoff = retry.map_or_else(|| Backoff::seeded().up_to(RETRY), |retry| retry.backoff);
                entry.rejected = None;
                entry.retry = Some(Retry { key: found.key.clone(), at: now + backoff.wait(), backoff });
            }
        }
    }

    /// What was there when the gateway started has been tried.
    pub(super) fn started(&mut self, now: Instant) {
        self.started = true;
        self.begin_waiting(now);
        self.before.clear();
    }

    /// Policies that nobody answers for, with what was tried in vain.
    pub(super) fn unanswered(&self) -> Vec<(Arc<str>, Option<Arc<str>>)> {
        let unanswered = self.policies.iter().filter(|(_, entry)| entry.standing.live().is_none());
        let tried = |entry: &Entry| entry.rejected.clone().or_else(|| Some(entry.retry.as_ref()?.key.clone()));
        unanswered.map(|(name, entry)| (Arc::clone(name), tried(entry))).collect()
    }

    /// What must outlive the process.
    pub(super) fn wanted(&self) -> BTreeMap<Arc<str>, Wanted> {
        let here = self.policies.iter().map(|(name, entry)| {
            let good = entry.good.as_ref().map(|(_, good)| good.clone());
            let (suspended, history) = (entry.kept.conducts.kept(), entry.history.clone());
            (Arc::clone(name), Wanted { good, suspended, history })
        });
        let absent = self.absent.iter().map(|(name, (suspended, history))| {
            let suspended = suspended.iter().filter(|kept| !kept.is_over()).cloned().collect();
            (Arc::clone(name), Wanted { good: None, suspended, history: history.clone().removed() })
        });
        absent.chain(here).filter(|(_, wanted)| !wanted.is_empty()).collect()
    }

    /// What the policy of this name keeps from version to version.
    pub(super) fn live(&self, name: &str) -> Arc<PolicyLive> {
        self.policies.get(name).map(|entry| entry.kept.clone()).unwrap_or_default()
    }

    /// When to look at the directory again, if nothing changes.
    pub(super) fn due(&self) -> Option<Instant> {
        self.policies.values().filter_map(Entry::due).min()
    }

    /// Is there room for a version of this policy, where there may be so many?
    pub(super) fn room(&self, name: &str, most: usize, now: Instant) -> Room {
        let live = self.policies.values().filter(|entry| entry.standing.live().is_some()).count();
        let answers = self.policies.get(name).is_some_and(|entry| entry.standing.live().is_some());
        let live = live + self.policies.values().filter(|entry| entry.under_way.is_some()).count();
        let going = self.replaced.iter().filter(|(_, told)| !nobody_asks(*told, now)).count();
        match () {
            () if !answers && live >= most => Room::None,
            () if going > 0 && live + going > most => Room::Later,
            () => Room::Here,
        }
    }

    /// Control was told of all that is so now. Until it publishes that, requests ask what was replaced, however long it took
    /// to make the disk remember.
    pub(super) fn told(&mut self, now: Instant) {
        self.replaced.iter_mut().for_each(|(_, told)| *told = told.or(Some(now)));
    }

    /// Tears down replaced versions, once nobody asks them any more. Blocks. True: some are still held.
    pub(super) fn tear_down(&mut self, now: Instant) -> bool {
        for (version, told) in &self.replaced {
            if nobody_asks(*told, now) {
                // A response that is still on its way may hold the version for hours, but needs no instance of it.
                version.release();
            }
        }
        self.replaced.retain(|(version, _)| Arc::strong_count(version) > 1);
        !self.replaced.is_empty()
    }

    /// The complete list, in name order.
    pub(super) fn scopes(&self) -> Vec<Arc<Scope>> {
        let scope = |(name, entry): (&Arc<str>, &Entry)| {
            Arc::new(Scope {
                name: name.clone(),
                matcher: entry.matcher.clone(),
                on_fault: entry.on_fault,
                standing: entry.standing.clone(),
                canary: entry.under_way.as_ref().map(|release| Arc::clone(&release.canary)),
                live: entry.kept.clone(),
                loading: entry.loading,
                error: entry.error.clone().or_else(|| self.trouble.clone()),
                history: Arc::new(entry.history.clone()),
                desk: self.desk.clone(),
            })
        };
        self.policies.iter().map(scope).collect()
    }
}

/// Nobody begins to ask a version of whose end control was told then.
fn nobody_asks(told: Option<Instant>, now: Instant) -> bool {
    told.is_some_and(|told| now.saturating_duration_since(told) >= ASKED)
}

#[cfg(test)]
mod tests;
