//! What is known of a policy's versions, also after a restart: the last good ones, the one that is held whatever the
//! directory says, and those that must not come back. What the directory holds is what is wanted; a pin is held against
//! that content alone, so that the next one that arrives is taken as usual.

use super::course::Progress;
use super::evidence::Evidence;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Good versions of a policy that are kept.
const KEPT: usize = 10;
/// Versions of a policy that must not come back; of more, the oldest is forgotten.
const QUARANTINED: usize = 100;
/// Hex digits of a version's id.
const DIGITS: usize = 12;

/// A version that answers or did, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Good {
    /// Digest of the component.
    pub component: String,
    /// The text of its sidecar; none: it had none.
    pub sidecar: Option<String>,
}

/// A component and its sidecar, by content, or by what is wrong with them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// Digest of the component.
    pub component: String,
    /// Digest of the sidecar's text; none: there is no sidecar.
    pub sidecar: Option<String>,
}

/// Content of the directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lying {
    /// Equal for equal content. A version's id, where there is one.
    pub key: Arc<str>,
    /// What it consists of.
    pub pair: Pair,
}

/// What is known of a policy's versions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// Good ones, the oldest first, ten at most.
    pub versions: Vec<Kept>,
    /// The one that is held against the directory's.
    pub pin: Option<Pin>,
    /// Those that must not come back.
    pub quarantined: Vec<Quarantined>,
    /// The canary that is under way.
    pub canary: Option<Released>,
}

/// A good version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its id.
    pub version: Arc<str>,
    /// What it is made of.
    pub good: Good,
    /// When it began to answer, ms since 1970.
    pub since_ms: u64,
}

/// What is held against what the directory holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// Held until other content than this arrives.
    pub over: Lying,
    /// Since then, ms since 1970.
    pub since_ms: u64,
    /// Who wanted it so.
    pub why: String,
}

/// A version that must not come back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Quarantined {
    /// Its id.
    pub version: Arc<str>,
    /// Its component's digest: no sidecar makes that good again. None: another version of this component answers, so it is
    /// the sidecar that is not good; or the component is not known.
    pub component: Option<String>,
    /// Since then, ms since 1970.
    pub since_ms: u64,
    /// Why, in a sentence.
    pub why: String,
    /// What speaks against it, where it was found out by numbers.
    pub evidence: Option<Evidence>,
}

/// A canary, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// Its version.
    pub version: Arc<str>,
    /// How far it had come.
    pub progress: Progress,
}

impl History {
    /// Nothing that would have to be kept.
    pub fn is_empty(&self) -> bool {
        *self == History::default()
    }

    /// What is left of it when the policy is removed.
    pub fn removed(self) -> History {
        History { quarantined: self.quarantined, ..History::default() }
    }

    /// This version answers from now on. One that is `held` keeps its place among the others, so that one can go on back.
    pub fn answers(&mut self, version: &Arc<str>, good: &Good, held: bool, now_ms: u64) {
        let known = self.versions.iter().position(|kept| kept.version == *version);
        if let (Some(known), true) = (known, held) {
            if let Some(kept) = self.versions.get_mut(known) {
                kept.good = good.clone();
            }
            return;
        }
        let known = known.map(|known| self.versions.remove(known));
        let since_ms = known.map_or(now_ms, |kept| kept.since_ms);
        self.versions.push(Kept { version: Arc::clone(version), good: good.clone(), since_ms });
        let too_many = self.versions.len().saturating_sub(KEPT);
        self.versions.drain(..too_many);
    }

    /// The good one before this one that may come back.
    pub fn before(&self, version: &str) -> Option<&Kept> {
        let at = self.versions.iter().position(|kept| *kept.version == *version).unwrap_or(self.versions.len());
        let older = self.versions.get(..at).unwrap_or_default();
        older.iter().rev().find(|kept| self.quarantine_of(&kept.version, &kept.good.component).is_none())
    }

    /// The kept version of this id.
    pub fn kept(&self, version: &str) -> Option<&Kept> {
        self.versions.iter().find(|kept| *kept.version == *version)
    }

    /// What an operator means by `text`: the id of a version, or so much of its beginning that it is no other's. `more` are
    /// ids that are not kept.
    ///
    /// # Errors
    /// Why it means none, in a sentence.
    pub fn meant<'a>(&'a self, text: &str, more: impl IntoIterator<Item = &'a Arc<str>>) -> Result<Arc<str>, String> {
        let quarantined = self.quarantined.iter().map(|quarantined| &quarantined.version);
        let known = self.versions.iter().map(|kept| &kept.version).chain(quarantined).chain(more);
        let mut fits: Vec<&Arc<str>> = known.filter(|version| version.starts_with(text) && !text.is_empty()).collect();
        fits.sort();
        fits.dedup();
        match fits.as_slice() {
            [one] => Ok(Arc::clone(one)),
            [] => Err(format!("no version `{text}` is known; `wayside policy show NAME` lists them")),
            _ => Err(format!("`{text}` begins {} versions; write more of its digits", fits.len())),
        }
    }

    /// Why what has this key or component must not come back.
    pub fn quarantine_of(&self, key: &str, component: &str) -> Option<&Quarantined> {
        let hits = |one: &&Quarantined| *one.version == *key || one.component.as_deref() == Some(component);
        self.quarantined.iter().find(hits)
    }

    /// This version must not come back. `live`: the component that answers, which is not to blame.
    pub fn quarantine(&mut self, mut quarantined: Quarantined, live: Option<&str>) {
        quarantined.component = quarantined.component.filter(|component| Some(component.as_str()) != live);
        self.quarantined.retain(|known| known.version != quarantined.version);
        self.quarantined.push(quarantined);
        let too_many = self.quarantined.len().saturating_sub(QUARANTINED);
        self.quarantined.drain(..too_many);
    }

    /// It may come back. False: it was not quarantined.
    pub fn lift(&mut self, version: &str) -> bool {
        let before = self.quarantined.len();
        self.quarantined.retain(|known| *known.version != *version);
        self.quarantined.len() < before
    }
}

/// May this be the id of a version?
pub fn is_id(text: &str) -> bool {
    text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn good(component: &str) -> Good {
        Good { component: component.into(), sidecar: None }
    }

    fn quarantined(version: &str, component: &str) -> Quarantined {
        let (version, component) = (version.into(), Some(component.to_owned()));
        Quarantined { version, component, since_ms: 1, why: "for the test".into(), evidence: None }
    }

    fn with(versions: &[&str]) -> History {
        let mut history = History::default();
        versions.iter().for_each(|version| history.answers(&(*version).into(), &good(version), false, 1));
        history
    }

    #[test]
    fn one_goes_back_from_version_to_version() {
        let mut history = with(&["a", "b", "c"]);
        assert_eq!(&*history.before("c").unwrap().version, "b");
        history.answers(&"b".into(), &good("b"), true, 2);
        assert_eq!(&*history.before("b").unwrap().version, "a", "not `c` again");
        assert!(history.before("a").is_none());
        history.answers(&"b".into(), &good("b"), false, 2);
        assert_eq!(&*history.before("b").unwrap().version, "c", "it was delivered again");
    }

    #[test]
    fn what_is_quarantined_is_passed_over_with_its_component_unless_that_answers() {
        let mut history = with(&["a", "b", "c"]);
        history.quarantine(quarantined("b", "b"), Some("c"));
        assert_eq!(&*history.before("c").unwrap().version, "a");
        assert!(history.quarantine_of("b2", "b").is_some(), "another sidecar");
        history.quarantine(quarantined("c2", "c"), Some("c"));
        assert!(history.quarantine_of("c", "c").is_none() && history.quarantine_of("c2", "c").is_some());
        assert!(history.lift("b") && !history.lift("b"));
        assert!(history.quarantine_of("b", "b").is_none());
    }

    #[test]
    fn a_version_is_meant_by_the_beginning_of_its_id() {
        let history = with(&["abc", "abd", "ef"]);
        let other: Arc<str> = "f0".into();
        assert_eq!(&*history.meant("abc", None).unwrap(), "abc");
        assert_eq!(&*history.meant("e", None).unwrap(), "ef");
        assert_eq!(&*history.meant("f", [&other]).unwrap(), "f0");
        assert!(history.meant("ab", None).unwrap_err().contains("begins 2 versions"));
        assert!(history.meant("", None).is_err() && history.meant("0", None).is_err());
        assert!(is_id("0123456789ab") && !is_id("0123456789aB") && !is_id("0123456789"));
    }

    proptest! {
        #[test]
        fn the_last_ten_are_kept_and_the_one_that_answers_is_among_them(
            answered in prop::collection::vec((0..30_u8, any::<bool>()), 1..60),
        ) {
            let mut history = History::default();
            for (version, held) in answered {
                let version: Arc<str> = version.to_string().into();
                history.answers(&version, &good(&version), held, 1);
                prop_assert!(history.versions.len() <= KEPT);
                prop_assert!(history.kept(&version).is_some());
                if let Some(before) = history.before(&version) {
                    prop_assert!(before.version != version);
                }
            }
            let text = serde_json::to_string(&history).unwrap();
            prop_assert_eq!(serde_json::from_str::<History>(&text).unwrap(), history);
        }
    }
}
