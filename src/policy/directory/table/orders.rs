//! What operators want of a policy's versions, and what follows from it.

use super::entry::Entry;
use super::{Found, Standing, Table};
use crate::base::time::unix_ms;
use crate::policy::release::{Good, Kept, Lying, Order, Pin, Quarantined, Refused, is_id};
use crate::policy::version::Version;
use std::sync::Arc;

/// What is to be done about an order.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::policy::directory) enum Obeyed {
    /// The directory is to be looked at again: what was done.
    Look(String),
    /// This version is to be loaded, to answer instead of what the directory holds.
    Load(Held),
}

/// A version that shall answer, whatever the directory holds.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::policy::directory) struct Held {
    pub(in crate::policy::directory) version: Arc<str>,
    pub(in crate::policy::directory) good: Good,
    /// The one that answers now must not come back.
    quarantine: bool,
    /// Which order that was.
    by: &'static str,
}

impl Held {
    fn of(kept: Kept, quarantine: bool, by: &'static str) -> Obeyed {
        Obeyed::Load(Held { version: kept.version, good: kept.good, quarantine, by })
    }
}

fn conflict<T>(told: impl Into<String>) -> Result<T, Refused> {
    Err(Refused::Conflict(told.into()))
}

impl Table {
    /// Does what an operator wants, or says what is to be done.
    ///
    /// # Errors
    /// Why that does not go together with how things are.
    pub(in crate::policy::directory) fn obey(&mut self, name: &str, order: &Order) -> Result<Obeyed, Refused> {
        match order {
            Order::Promote(None) => self.promote(name),
            Order::Promote(Some(version)) => self.hold(name, version),
            Order::Rollback => self.roll_back(name),
            Order::Quarantine(version) => self.quarantine(name, version),
            Order::Lift(version) => self.lift(name, version),
        }
    }

    fn entry(&mut self, name: &str) -> Result<&mut Entry, Refused> {
        self.policies.get_mut(name).ok_or_else(|| Refused::Conflict(format!("there is no policy `{name}` any more")))
    }

    /// What the directory holds is wanted again.
    fn promote(&mut self, name: &str) -> Result<Obeyed, Refused> {
        if let Some(version) = self.promote_canary(name) {
            return Ok(Obeyed::Look(format!("{name}: {version}, which was a canary, answers all")));
        }
        let entry = self.entry(name)?;
        match entry.history.pin.take() {
            Some(pin) => {
                Ok(Obeyed::Look(format!("{name}: what the directory holds ({}) is tried again", pin.over.key)))
            }
            None => conflict(format!(
                "{name}: no canary is under way, and no version is held against the directory's; name a version"
            )),
        }
    }

    /// This version shall answer.
    fn hold(&mut self, name: &str, text: &str) -> Result<Obeyed, Refused> {
        let entry = self.entry(name)?;
        let (live, lying) = entry.ids();
        let meant = entry.history.meant(text, live.iter().chain(&lying)).map_err(Refused::Conflict)?;
        if live.as_ref() == Some(&meant) {
            return conflict(format!("{name}: {meant} answers already"));
        }
        if entry.under_way.as_ref().is_some_and(|release| release.found.key == meant) {
            return self.promote(name);
        }
        let kept = entry.history.kept(&meant).cloned();
        let component = kept.as_ref().map_or("", |kept| &kept.good.component);
        if let Some(quarantined) = entry.history.quarantine_of(&meant, component) {
            return conflict(format!("{name}: {meant} is quarantined: {}", quarantined.why));
        }
        if lying.as_ref() == Some(&meant) {
            entry.history.pin = None;
            entry.rejected = None;
            return Ok(Obeyed::Look(format!("{name}: {meant}, which the directory holds, is tried again")));
        }
        match kept {
            Some(kept) => Ok(Held::of(kept, false, "promote")),
            None => conflict(format!("{name}: {meant} is not kept any more; deliver it again")),
        }
    }

    fn roll_back(&mut self, name: &str) -> Result<Obeyed, Refused> {
        let entry = self.entry(name)?;
        if let Some(release) = entry.withdraw() {
            entry.pin("an operator's rollback".to_owned());
            let version = Arc::clone(&release.found.key);
            self.ended(Some(release));
            return Ok(Obeyed::Look(format!("{name}: {version} is a canary no more, until something else comes")));
        }
        let Some(live) = entry.standing.live() else {
            return conflict(format!(
                "{name}: no version answers; name one with `wayside policy promote {name} VERSION`"
            ));
        };
        match entry.history.before(&live.id).cloned() {
            Some(kept) => Ok(Held::of(kept, false, "rollback")),
            None => conflict(format!("{name}: no version before {} is kept", live.id)),
        }
    }

    fn quarantine(&mut self, name: &str, text: &str) -> Result<Obeyed, Refused> {
        let entry = self.entry(name)?;
        let (live, lying) = entry.ids();
        let meant = match entry.history.meant(text, live.iter().chain(&lying)) {
            Ok(meant) => meant,
            // It may be on its way.
            Err(_) if is_id(text) => text.into(),
            Err(problem) => return conflict(problem),
        };
        if live.as_ref() == Some(&meant) {
            return match entry.history.before(&meant).cloned() {
                Some(kept) => Ok(Held::of(kept, true, "quarantine")),
                None => conflict(format!(
                    "{name}: {meant} answers, and no version before it is kept; delete {name}.wasm if nobody shall answer"
                )),
            };
        }
        entry.quarantine(&meant, "an operator wants it so");
        let is_canary = entry.under_way.as_ref().is_some_and(|release| release.found.key == meant);
        let ended = if is_canary { entry.withdraw() } else { None };
        self.ended(ended);
        Ok(Obeyed::Look(format!("{name}: {meant} is quarantined")))
    }

    fn lift(&mut self, name: &str, text: &str) -> Result<Obeyed, Refused> {
        let entry = self.entry(name)?;
        let meant = entry.history.meant(text, None).map_err(Refused::Conflict)?;
        if !entry.history.lift(&meant) {
            return conflict(format!("{name}: {meant} is not quarantined"));
        }
        Ok(Obeyed::Look(format!("{name}: {meant} may come back")))
    }

    /// A version that shall answer whatever the directory holds was loaded. What was done, in a sentence.
    pub(in crate::policy::directory) fn held(&mut self, held: &Held, found: &Found, version: Arc<Version>) -> String {
        let name = &found.name;
        let before = self.policies.get(name).and_then(|entry| entry.standing.live().map(|live| Arc::clone(&live.id)));
        let Some(entry) = self.answers(found, version, true) else { return format!("{name}: it is gone") };
        entry.settle();
        entry.pin(format!("an operator's {}", held.by));
        let mut told = format!("{name}: {} answers", held.version);
        if let (Some(before), true) = (before, held.quarantine) {
            entry.quarantine(&before, "an operator wants it so");
            told = format!("{told}, {before} is quarantined");
        }
        match &entry.history.pin {
            Some(Pin { over: Lying { key, .. }, .. }) => {
                format!("{told}; what the directory holds ({key}) is passed over until something else comes")
            }
            None => told,
        }
    }
}

impl Entry {
    /// Ids of the version that answers, and of the one that the directory holds.
    fn ids(&self) -> (Option<Arc<str>>, Option<Arc<str>>) {
        let lying = self.lying.as_ref().map(|lying| Arc::clone(&lying.key)).filter(|key| is_id(key));
        (self.standing.live().map(|version| Arc::clone(&version.id)), lying)
    }

    /// What answers now is held against what the directory holds.
    pub(super) fn pin(&mut self, why: String) {
        let live = self.standing.live().map(|version| &version.id);
        let over = self.lying.clone().filter(|lying| Some(&lying.key) != live);
        self.history.pin = over.map(|over| Pin { over, since_ms: unix_ms(), why });
    }

    /// This version must not come back.
    pub(super) fn quarantine(&mut self, version: &Arc<str>, why: &str) {
        let lying = self.lying.as_ref().filter(|lying| lying.key == *version).map(|lying| &lying.pair.component);
        let component = self.history.kept(version).map(|kept| &kept.good.component).or(lying).cloned();
        let quarantined = Quarantined {
            version: Arc::clone(version),
            component,
            since_ms: unix_ms(),
            why: why.to_owned(),
            evidence: None,
        };
        let live = match &self.standing {
            Standing::Live(_) => self.good.as_ref().map(|(_, good)| good.component.as_str()),
            Standing::Broken | Standing::Pending => None,
        };
        self.history.quarantine(quarantined, live);
    }
}
