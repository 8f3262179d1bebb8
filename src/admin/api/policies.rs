//! Policies and their versions: what is told of them, and what can be wanted of them.

use crate::policy::release::{History, Order, Quarantined};
use crate::policy::{Scope, Standing};
use crate::snapshot::Snapshot;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

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
    /// The version is held against what the directory holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<PinState>,
    /// Versions that are known, the newest first.
    #[serde(default)]
    pub versions: Vec<VersionState>,
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
    /// `live`; none: no request asks it.
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
        Policies { policies: snapshot.policies.iter().map(|scope| PolicyState::of(scope)).collect() }
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
            pinned,
            versions: versions(&scope.history, version.map(|version| &*version.id)),
        }
    }
}

/// Those that are kept, the newest first, then those that never answered or are kept no more and must not come back.
fn versions(history: &History, live: Option<&str>) -> Vec<VersionState> {
    let quarantined = |one: &Quarantined| QuarantineState { since: date(one.since_ms), why: one.why.clone() };
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
    kept.chain(others).collect()
}

fn date(unix_ms: u64) -> String {
    humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + Duration::from_millis(unix_ms)).to_string()
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
