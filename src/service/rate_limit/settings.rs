//! `[[rate_limits]]`: what the configuration says of a limit, and what came of checking it.

use super::gcra::Terms;
use super::key::Key;
use super::rate::Rate;
use crate::service::route::{Match, RawMatch};
use serde::Deserialize;
use std::collections::HashSet;
use std::num::NonZero;
use std::sync::Arc;

/// Limits that may be declared. A request is compared with those whose host and path it has.
const MOST: usize = 1000;
/// Bytes of a name, which goes with each answer.
const NAME: usize = 64;
/// In place of a store's name: this gateway counts for itself.
pub const LOCAL: &str = "local";

/// One of `[[rate_limits]]`, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// What clients, logs and metrics are told; what was counted belongs to it. None: what it matches.
    name: Option<String>,
    /// Which requests it is about; by default, all of them.
    #[serde(rename = "match", default)]
    rule: RawMatch,
    /// Whose requests are counted together; by default, each client's.
    #[serde(default)]
    key: Key,
    /// How many come through in the long run.
    rate: Rate,
    /// How many come through at once; none: a second's worth.
    burst: Option<NonZero<u32>>,
    /// Through which gateways count together; none or `local`: each counts for itself.
    store: Option<Arc<str>>,
    /// What holds while that one fails; none: `open`.
    on_store_failure: Option<OnStoreFailure>,
    /// Clients are told by `RateLimit` and `RateLimit-Policy`, too.
    #[serde(default = "yes")]
    headers: bool,
}

fn yes() -> bool {
    true
}

/// What a limit does while its store fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum OnStoreFailure {
    /// This gateway counts for itself.
    Open,
    /// All that it is about is refused.
    Closed,
}

/// A limit that was checked.
#[derive(Debug)]
pub struct Declared {
    /// What clients, logs and metrics are told; printable ASCII.
    pub name: Arc<str>,
    /// Which requests it is about.
    pub(super) matcher: Match,
    /// Whose requests are counted together.
    pub(super) key: Key,
    pub(super) rate: Rate,
    pub(super) terms: Terms,
    /// The store through which gateways count together.
    pub(super) store: Option<Arc<str>>,
    /// While it fails, nothing is granted.
    pub(super) closed: bool,
    pub(super) headers: bool,
    /// The name as a string of structured fields (RFC 9651 §3.3.3).
    pub(super) quoted: Box<str>,
}

impl Declared {
    /// What it matches, in short.
    pub fn matches(&self) -> String {
        self.matcher.label()
    }

    /// Whose requests are counted together, as it is written.
    pub fn key(&self) -> String {
        self.key.to_string()
    }

    /// How many come through in the long run, as it is written.
    pub fn rate(&self) -> String {
        self.rate.to_string()
    }

    /// How many come through at once.
    pub fn burst(&self) -> u32 {
        self.terms.burst
    }

    /// The store through which gateways count together.
    pub fn store(&self) -> Option<&str> {
        self.store.as_deref()
    }
}

/// Checks what is written. `is_store`: there is a store of this name.
///
/// # Errors
/// The number of the first one that is wrong, the key, and what was expected.
pub fn check(written: Vec<Written>, is_store: impl Fn(&str) -> bool) -> Result<Vec<Arc<Declared>>, String> {
    if written.len() > MOST {
        return Err(format!("at most {MOST} can be declared"));
    }
    let mut names = HashSet::new();
    let one = |(index, written): (usize, Written)| {
        let at = |problem: String| format!("number {}: {problem}", index + 1);
        let declared = written.check(&is_store).map_err(at)?;
        if !names.insert(Arc::clone(&declared.name)) {
            return Err(at(format!(
                "there is another one named `{}`; give this one a `name` of its own",
                declared.name
            )));
        }
        Ok(Arc::new(declared))
    };
    written.into_iter().enumerate().map(one).collect()
}

impl Written {
    fn check(self, is_store: impl Fn(&str) -> bool) -> Result<Declared, String> {
        let Written { name, rule, key, rate, burst, store, on_store_failure, headers } = self;
        let matcher = rule.check().map_err(|problem| format!("match.{problem}"))?;
        let printable = |text: &str| text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        let name = match name {
            Some(name) if name.is_empty() || name.len() > NAME || !printable(&name) => {
                return Err(format!("`name`: expected 1 to {NAME} printable characters of ASCII"));
            }
            Some(name) => name,
            None => Some(matcher.label())
                .filter(|label| label.len() <= NAME && printable(label))
                .ok_or("`name`: is missing; what this matches is too long or too strange to be told to clients")?,
        };
        let store = store.filter(|store| **store != *LOCAL);
        if let Some(store) = store.as_ref().filter(|store| !is_store(store)) {
            return Err(format!("`store`: there is no `[stores.{store}]`"));
        }
        if store.is_none() && on_store_failure.is_some() {
            return Err("`on_store_failure`: needs `store`, which names one of `[stores]`".to_owned());
        }
        let closed = on_store_failure == Some(OnStoreFailure::Closed);
        let terms = rate.with_burst(burst)?;
        let quoted = format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\"")).into();
        Ok(Declared { name: name.into(), matcher, key, rate, terms, store, closed, headers, quoted })
    }
}
