//! Canaries: how a version that was loaded takes the place of the live one, a part of the clients at a time.

use super::entry::Entry;
use super::under_way::Release;
use super::{Found, Standing, Table};
use crate::base::time::unix_ms;
use crate::policy::release::{Evidence, Mode, Move, Quarantined};
use crate::policy::version::Version;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the disk is told how far a canary has come, between its steps.
const SAVE: Duration = Duration::from_secs(60);

/// What a look at the canaries has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::policy::directory) enum Ticked {
    Nothing,
    /// The disk is to be told.
    Progress,
    /// Others answer.
    Answers,
}

impl Entry {
    /// A version that shall be a canary was loaded. Gives it back where there is nothing to compare it with, or it is not
    /// meant to be one. `ended`: the canary whose place it takes.
    ///
    /// # Errors
    /// Why it cannot be one.
    pub(super) fn release(
        &mut self,
        found: &Found,
        version: Arc<Version>,
        started: bool,
        now: Instant,
        ended: &mut Option<Release>,
    ) -> Result<Option<Arc<Version>>, String> {
        let Ok(candidate) = &found.candidate else { return Ok(Some(version)) };
        let settings = &candidate.sidecar.release;
        if settings.mode != Mode::Canary {
            return Ok(Some(version));
        }
        if self.standing.live().is_none() {
            let another = self.before.as_ref().is_some_and(|before| before.key != found.key);
            if started || !another {
                return Ok(Some(version));
            }
            // What answered before the restart comes first.
            self.waits = Some((found.clone(), version));
            return Ok(None);
        }
        if self.rule != candidate.sidecar.rule {
            return Err(
                "release: `match` is not that of the live version, so a canary could not be compared with it: \
                        change `match` by a release of its own, with mode = \"at-once\""
                    .to_owned(),
            );
        }
        *ended = self.withdraw_for(found);
        let known = self.history.canary.take().filter(|known| known.version == found.key);
        let release = Release::new(found, version, settings.clone(), known.as_ref().map(|known| &known.progress), now);
        let (policy, version, step) = (&found.name, &found.key, release.course.progress().step);
        tracing::info!(%policy, %version, step, "canary begins");
        self.history.canary = Some(release.released());
        self.history.pin = None;
        self.under_way = Some(release);
        Ok(None)
    }

    /// The canary's files were found, perhaps with another `[release]`. True: it is to be live at once.
    pub(super) fn found_again(&mut self, found: &Found, now: Instant) -> bool {
        let (Some(release), Ok(candidate)) = (&mut self.under_way, &found.candidate) else { return false };
        let settings = &candidate.sidecar.release;
        release.found = found.clone();
        if settings.mode == Mode::AtOnce {
            return true;
        }
        if settings != release.course.settings() {
            tracing::info!(policy = %found.name, version = %found.key, "canary begins anew, by another [release]");
            release.canary.give_up();
            let version = Arc::clone(&release.canary.version);
            *release = Release::new(found, version, settings.clone(), None, now);
            self.history.canary = Some(release.released());
        }
        false
    }

    /// The canary ends, since what was found takes its place.
    fn withdraw_for(&mut self, found: &Found) -> Option<Release> {
        let known = self.history.canary.clone().filter(|known| known.version == found.key);
        let ended = self.withdraw();
        // From before a restart.
        self.history.canary = known;
        ended
    }

    /// Ends the canary, whose version nobody asks any more.
    pub(super) fn withdraw(&mut self) -> Option<Release> {
        self.history.canary = None;
        let release = self.under_way.take()?;
        release.canary.give_up();
        Some(release)
    }

    /// Ends it for good: its version must not come back.
    fn roll_back_canary(&mut self, evidence: Evidence) -> Option<Release> {
        let release = self.withdraw()?;
        let (share, told) = (evidence.share * 100.0, &evidence.told);
        let why = format!("as a canary for {share} % of the clients: {told}");
        tracing::error!(policy = %release.found.name, version = %release.found.key, why, "canary rolled back");
        let quarantined = Quarantined {
            version: Arc::clone(&release.found.key),
            component: Some(release.found.pair.component.clone()),
            since_ms: unix_ms(),
            why,
            evidence: Some(evidence),
        };
        let live = self.good.as_ref().map(|(_, good)| good.component.as_str());
        self.history.quarantine(quarantined.clone(), live);
        self.refuse(&quarantined);
        self.kept.rolled_back();
        Some(release)
    }

    fn tick(&mut self, now: Instant) -> Option<Tick> {
        let release = self.under_way.as_mut()?;
        if now < release.due() && !release.is_faulty() {
            return None;
        }
        // A machine that slept tells nothing of the time in which it did.
        let passed = now.saturating_duration_since(release.ticked).min(release.course.tick_in() * 2);
        release.ticked = now;
        let counted = release.canary.take();
        let (progress, share) = (release.course.progress(), release.course.share());
        let moved = release.course.tick(&counted, release.canary.faults(), passed);
        let examples = || release.canary.examples();
        match moved {
            Move::Stay => {
                release.canary.follow(&release.course);
                if now.saturating_duration_since(release.saved_at) < SAVE {
                    return None;
                }
                release.save(now);
                self.history.canary = Some(release.released());
                Some(Tick::Saved)
            }
            // Followed once it is on disk.
            Move::Step => {
                release.save(now);
                let (policy, version) = (&release.found.name, &release.found.key);
                tracing::info!(%policy, %version, share = release.course.share(), "canary goes on");
                self.history.canary = Some(release.released());
                Some(Tick::Saved)
            }
            Move::Promote => Some(Tick::Promote),
            Move::Faulty(faults) => {
                let [_, examples] = examples();
                Some(Tick::RollBack(Box::new(Evidence::of_faults(faults, progress, share, examples))))
            }
            Move::Harmful(guilt) => {
                Some(Tick::RollBack(Box::new(Evidence::of_guilt(&guilt, progress, share, examples()))))
            }
        }
    }
}

/// What is to be done about one of them.
enum Tick {
    Saved,
    Promote,
    RollBack(Box<Evidence>),
}

impl Table {
    /// Looks at the canaries.
    pub(in crate::policy::directory) fn tick(&mut self, now: Instant) -> Ticked {
        let mut ticked = Ticked::Nothing;
        let names: Vec<Arc<str>> = self
            .policies
            .iter()
            .filter(|(_, entry)| entry.under_way.is_some())
            .map(|(name, _)| Arc::clone(name))
            .collect();
        for name in names {
            let Some(entry) = self.policies.get_mut(&name) else { continue };
            match entry.tick(now) {
                None => {}
                Some(Tick::Saved) => ticked = ticked.max(Ticked::Progress),
                Some(Tick::Promote) => {
                    self.promote_canary(&name);
                    ticked = Ticked::Answers;
                }
                Some(Tick::RollBack(evidence)) => {
                    let ended = entry.roll_back_canary(*evidence);
                    self.ended(ended);
                    ticked = Ticked::Answers;
                }
            }
        }
        ticked
    }

    /// The disk knows how far they have come: now they are asked so.
    pub(in crate::policy::directory) fn follow(&self) {
        let releases = self.policies.values().filter_map(|entry| entry.under_way.as_ref());
        releases.for_each(|release| release.canary.follow(&release.course));
    }

    /// When to look at them next.
    pub(in crate::policy::directory) fn tick_due(&self) -> Option<Instant> {
        self.policies.values().filter_map(|entry| entry.under_way.as_ref().map(Release::due)).min()
    }

    /// The canary is live from now on: its version.
    pub(super) fn promote_canary(&mut self, name: &str) -> Option<Arc<str>> {
        let entry = self.policies.get_mut(name)?;
        entry.history.canary = None;
        let Release { found, canary, .. } = entry.under_way.take()?;
        let version = Arc::clone(&canary.version);
        let entry = self.answers(&found, version, false)?;
        entry.history.pin = None;
        entry.settle();
        Some(found.key)
    }

    /// A canary that has ended is torn down.
    pub(super) fn ended(&mut self, release: Option<Release>) {
        if let Some(release) = release {
            self.replaced.push((Arc::clone(&release.canary.version), None));
        }
    }

    /// Those that waited for what answered before a restart begin, or answer themselves where that did not come back.
    pub(super) fn begin_waiting(&mut self, now: Instant) {
        let waiting: Vec<(Found, Arc<Version>)> =
            self.policies.values_mut().filter_map(|entry| entry.waits.take()).collect();
        for (found, version) in waiting {
            self.started_canary(&found, version, now);
        }
    }

    fn started_canary(&mut self, found: &Found, version: Arc<Version>, now: Instant) {
        let Some(entry) = self.policies.get_mut(&found.name) else { return };
        match entry.release(found, Arc::clone(&version), true, now, &mut None) {
            Ok(None) => {}
            Ok(Some(version)) => {
                if let Standing::Broken | Standing::Pending = entry.standing {
                    tracing::warn!(policy = %found.name, version = %found.key, "no version to compare a canary with: it is live");
                }
                self.answers(found, version, false);
            }
            Err(problem) => {
                entry.error = Some(problem);
                entry.rejected = Some(Arc::clone(&found.key));
                self.replaced.push((version, None));
            }
        }
    }
}
