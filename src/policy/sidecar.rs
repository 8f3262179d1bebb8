//! The sidecar `NAME.toml`: which requests a policy is asked about, its configuration, and what it may use up.

use super::limits::Limits;
use super::release;
use super::scope::OnFault;
use crate::base::digest;
use crate::service::route::{Match, RawMatch};
use serde::{Deserialize, Deserializer, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// A sidecar that was checked. A policy without one has the default.
#[derive(Debug, Clone, Default)]
pub struct Sidecar {
    /// Which requests the policy is asked about.
    pub matcher: Match,
    /// The text that `init` gets.
    pub config: String,
    /// What follows when the policy faults.
    pub on_fault: OnFault,
    /// What one call and one instance may use up.
    pub limits: Limits,
    /// The store through which its state is shared; none: it is this gateway's own.
    pub store: Option<Arc<str>>,
    /// While the store fails, no bucket grants anything, and no value is there.
    pub closed: bool,
    /// How it takes the place of the one before, which says nothing of what it is.
    pub release: release::Settings,
    /// The rule of `match`, as it is written.
    pub rule: RawMatch,
    /// Equal for equal content, however it is written.
    canonical: String,
}

/// What a sidecar may say, in the order of its canonical form. What is not said is not in that form, so that a version
/// keeps its id when a default changes.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default, rename = "match")]
    matcher: RawMatch,
    #[serde(default)]
    config: String,
    #[serde(default)]
    on_fault: OnFault,
    #[serde(default)]
    limits: RawLimits,
    /// The store through which its state is shared.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<Arc<str>>,
    /// While that fails, no bucket grants anything, and no value is there.
    #[serde(default, skip_serializing_if = "OnStoreFailure::is_open")]
    on_store_failure: OnStoreFailure,
    #[serde(default, skip_serializing)]
    release: release::Settings,
}

/// What a policy sees of a store that fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum OnStoreFailure {
    /// What this gateway knows.
    #[default]
    Open,
    /// Buckets that grant nothing, and no values.
    Closed,
}

impl OnStoreFailure {
    fn is_open(&self) -> bool {
        *self == OnStoreFailure::Open
    }
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RawLimits {
    #[serde(default, deserialize_with = "size", skip_serializing_if = "Option::is_none")]
    memory: Option<usize>,
    #[serde(default, with = "duration", skip_serializing_if = "Option::is_none")]
    cpu: Option<Duration>,
    #[serde(default, with = "duration", skip_serializing_if = "Option::is_none")]
    wall: Option<Duration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    calls: Option<u32>,
    #[serde(default, deserialize_with = "size", skip_serializing_if = "Option::is_none")]
    memory_mark: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_keys: Option<usize>,
    #[serde(default, deserialize_with = "size", skip_serializing_if = "Option::is_none")]
    state_bytes: Option<usize>,
}

mod duration {
    pub(super) use crate::base::duration::option::deserialize;
    use std::time::Duration;

    pub(super) fn serialize<S: serde::Serializer>(duration: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => crate::base::duration::serialize(duration, to),
            None => to.serialize_none(),
        }
    }
}

/// Reads the text of a sidecar.
///
/// # Errors
/// A sentence with the line or the key that is wrong, and what was expected. The caller names the file.
pub fn parse(text: &str) -> Result<Sidecar, String> {
    let raw: Raw = toml::from_str(text).map_err(|e| crate::base::place::toml_problem(text, &e))?;
    let matcher = raw.matcher.check().map_err(|e| format!("match: {e}"))?;
    let limits = raw.limits.check()?;
    let canonical = serde_json::to_string(&raw).map_err(|e| e.to_string())?;
    raw.release.check().map_err(|e| format!("release.{e}"))?;
    let closed = !raw.on_store_failure.is_open();
    if closed && raw.state.is_none() {
        return Err("on_store_failure: needs `state`, which names a store".to_owned());
    }
    let Raw { matcher: rule, config, on_fault, state: store, release, .. } = raw;
    Ok(Sidecar { matcher, store, closed, config, on_fault, limits, release, rule, canonical })
}

impl Sidecar {
    /// The id of the version that a component with this digest and this sidecar make: 12 hex digits.
    pub fn version(&self, component_digest: &str) -> Arc<str> {
        // The default is not canonical JSON yet: no sidecar and an empty one are the same.
        let canonical = if self.canonical.is_empty() { EMPTY } else { &self.canonical };
        digest::short(format!("{component_digest}{canonical}").as_bytes()).into()
    }
}

/// The canonical form of an empty sidecar.
const EMPTY: &str = r#"{"match":{},"config":"","on_fault":"unavailable","limits":{}}"#;

impl RawLimits {
    fn check(&self) -> Result<Limits, String> {
        let default = Limits::default();
        let memory = self.memory.unwrap_or(default.memory);
        let limits = Limits {
            memory,
            cpu: self.cpu.unwrap_or(default.cpu),
            wall: self.wall.unwrap_or(default.wall),
            calls: self.calls.unwrap_or(default.calls),
            // The default's proportion: whoever allows more memory means it to be used for more than one call.
            memory_mark: self.memory_mark.unwrap_or(memory / 4 * 3),
            state_keys: self.state_keys.unwrap_or(default.state_keys),
            state_bytes: self.state_bytes.unwrap_or(default.state_bytes),
        };
        limits.check().map_err(|e| format!("limits: {e}"))?;
        Ok(limits)
    }
}

/// Reads a size: bytes as a number, or text with a unit.
fn size<'de, D: Deserializer<'de>>(from: D) -> Result<Option<usize>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a size is a number of bytes or text like \"16MiB\"")]
    enum Written {
        Bytes(usize),
        Text(String),
    }
    let text = match Written::deserialize(from)? {
        Written::Bytes(bytes) => return Ok(Some(bytes)),
        Written::Text(text) => text,
    };
    let bytes = crate::base::size::parse(&text).and_then(|bytes| usize::try_from(bytes).ok());
    bytes.map(Some).ok_or_else(|| {
        serde::de::Error::custom(format!("`{text}` is no size; write it like \"16MiB\" (KiB, MiB, GiB or B)"))
    })
}

#[cfg(test)]
mod tests;
