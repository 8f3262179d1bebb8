//! Policies and their versions: what is told of them, and what can be wanted of them.

use crate::base::time::date;
use crate::policy::release::{Canary, Evidence, History, Order, Quarantined};
use crate::policy::{Scope, Standing};
use crate::snapshot::Snapshot;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// `/policies`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Policies {
    /// In the order in which they are asked.
    pub policies: Vec<PolicyState>,
}

/// One policy: an item of `/policies`, and `/policies/NAME`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PolicyState {
    /// The file name without `.wasm`.
    pub name: String,
    /// Who answers; none: nobody.
    pub version: Option<String>,
    /// `live`, `loading`, `suspended` or `failed`.
    pub state: String,
    /// Why the newest file was rejected.
    pub error: Option<String>,
    /// Why the version is suspended, while it is.
    pub reason: Option<String>,
    /// Until when, as RFC 3339 has it.
    pub until: Option<String>,
    /// The version that a part of the clients ask, to see how that goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanaryState>,
    /// The version is held against what the directory holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<PinState>,
    /// Versions that are known, the newest first.
    #[serde(default)]
    pub versions: Vec<VersionState>,
}

/// A canary on its way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CanaryState {
    /// Its version.
    pub version: String,
    /// The step, from 1; 0: the live version alone is watched first.
    pub step: usize,
    /// Steps in all.
    pub steps: usize,
    /// The share of the clients that it has, 0 to 1.
    pub share: f64,
    /// Time in this step that counts, ms.
    pub held_ms: u64,
    /// How long it takes at least, ms.
    pub hold_ms: u64,
    /// Requests of the live version and of the canary in this step.
    pub requests: [u64; 2],
    /// Restarts of the gateway in this step.
    pub restarts: u32,
    /// Its calls that went wrong where the live version answered.
    pub faults: u64,
    /// Requests with which both went wrong.
    pub poisoned: u64,
    /// What an operator should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A version is held against what the directory holds, until something else comes there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PinState {
    /// What the directory holds: the id of a version, or what is wrong with it.
    pub over: String,
    /// Since when, as RFC 3339 has it.
    pub since: String,
    /// Who wanted it so.
    pub why: String,
}

/// One version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VersionState {
    /// Its id.
    pub version: String,
    /// `live` or `canary`; none: no request asks it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The first digits of its component's digest, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<String>,
    /// When it began to answer, as RFC 3339 has it; none: it never did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// It is kept, so that it can answer again.
    pub kept: bool,
    /// It must not come back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantined: Option<QuarantineState>,
}

/// Why a version must not come back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuarantineState {
    /// Since when, as RFC 3339 has it.
    pub since: String,
    /// Why, in a sentence.
    pub why: String,
    /// What speaks against it, where it was found out by the gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
}

/// The body of what is sent to `/policies/NAME/promote`, `/rollback` and `/quarantine`; may be empty.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Wanted {
    /// Which version, by the first digits of its id; none: see the documentation of each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Of `/quarantine`: it may come back.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub lift: bool,
}

/// What has come of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// In a sentence.
    pub told: String,
}

impl Policies {
    /// Of this snapshot.
    pub fn of(snapshot: &Snapshot) -> Self {
        Policies { policies: snapshot.policies.iter().map(PolicyState::of).collect() }
    }
}

impl PolicyState {
    /// Of this policy.
    pub fn of(scope: &Arc<Scope>) -> Self {
        let version = scope.standing.live();
        let suspended = version.and_then(|version| version.suspended());
        let state = match version {
            _ if scope.loading => "loading",
            Some(_) if suspended.is_some() => "suspended",
            Some(_) => "live",
            None => "failed",
        };
        let pinned = scope.history.pin.as_ref().map(|pin| PinState {
            over: pin.over.key.to_string(),
            since: date(pin.since_ms),
            why: pin.why.clone(),
        });
        PolicyState {
            name: scope.name.to_string(),
            version: version.map(|version| version.id.to_string()),
            state: state.to_owned(),
            error: scope.error.clone(),
            reason: suspended.as_ref().map(|suspended| suspended.reason.to_string()),
            until: suspended.as_ref().map(|suspended| humantime::format_rfc3339_seconds(suspended.until()).to_string()),
            canary: scope.canary.as_deref().map(canary),
            pinned,
            versions: versions(scope),
        }
    }
}

/// Those that are kept, the newest first, then those that never answered or are kept no more and must not come back.
fn versions(scope: &Scope) -> Vec<VersionState> {
    let history: &History = &scope.history;
    let live = scope.standing.live().map(|version| &*version.id);
    let quarantined = |one: &Quarantined| QuarantineState {
        since: date(one.since_ms),
        why: one.why.clone(),
        evidence: one.evidence.clone(),
    };
    let digits = |component: &str| component.chars().take(12).collect::<String>();
    let kept = history.versions.iter().rev().map(|kept| VersionState {
        version: kept.version.to_string(),
        role: (live == Some(&*kept.version)).then(|| "live".to_owned()),
        component: Some(digits(&kept.good.component)),
        since: Some(date(kept.since_ms)),
        kept: true,
        quarantined: history.quarantine_of(&kept.version, &kept.good.component).map(quarantined),
    });
    let others = history.quarantined.iter().rev().filter(|one| history.kept(&one.version).is_none());
    let others = others.map(|one| VersionState {
        version: one.version.to_string(),
        role: None,
        component: one.component.as_deref().map(digits),
        since: None,
        kept: false,
        quarantined: Some(quarantined(one)),
    });
    let new = scope.canary.as_ref().filter(|canary| history.kept(&canary.version.id).is_none());
    let new = new.map(|canary| VersionState {
        version: canary.version.id.to_string(),
        role: Some("canary".to_owned()),
        component: None,
        since: None,
        kept: false,
        quarantined: None,
    });
    let role = |mut state: VersionState| {
        if scope.canary.as_ref().is_some_and(|canary| *canary.version.id == *state.version) {
            state.role = Some("canary".to_owned());
        }
        state
    };
    new.into_iter().chain(kept).chain(others).map(role).collect()
}

fn canary(canary: &Canary) -> CanaryState {
    let told = canary.told();
    CanaryState {
        version: canary.version.id.to_string(),
        step: told.progress.step,
        steps: told.steps,
        share: told.share,
        held_ms: told.progress.held_ms,
        hold_ms: u64::try_from(told.hold.as_millis()).unwrap_or(u64::MAX),
        requests: told.progress.requests,
        restarts: told.progress.restarts,
        faults: canary.faults(),
        poisoned: canary.poisoned(),
        notes: told.notes.clone(),
    }
}

impl Wanted {
    /// What is wanted by this name.
    ///
    /// # Errors
    /// What is missing or does not belong there; there is no such thing.
    pub fn order(self, action: &str) -> Result<Order, String> {
        let Wanted { version, lift } = self;
        match (action, version, lift) {
            ("promote", version, false) => Ok(Order::Promote(version)),
            ("rollback", None, false) => Ok(Order::Rollback),
            ("rollback", Some(_), false) => Err("a rollback takes no version: use promote".to_owned()),
            ("quarantine", Some(version), false) => Ok(Order::Quarantine(version)),
            ("quarantine", Some(version), true) => Ok(Order::Lift(version)),
            ("quarantine", None, _) => Err("`version` is missing".to_owned()),
            (_, _, true) => Err("`lift` belongs to quarantine".to_owned()),
            _ => Err(format!("`{action}` is none of promote, rollback, quarantine")),
        }
    }
}

/// Policies that nobody answers for.
pub fn broken(snapshot: &Snapshot) -> Vec<String> {
    let broken = snapshot.policies.iter().filter(|scope| matches!(scope.standing, Standing::Broken));
    broken.map(|scope| scope.name.to_string()).collect()
}
