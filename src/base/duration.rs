//! Durations as people write them: `"500ms"`, `"2s"`, `"1m 30s"`.

use serde::{Deserialize, Deserializer, Serializer};
use std::time::Duration;

/// Reads a duration; a bare number is refused, since nobody could tell its unit.
///
/// # Errors
/// A sentence that shows the text and a good example.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    humantime::parse_duration(&text).map_err(|e| {
        serde::de::Error::custom(format!("`{text}` is no duration ({e}); write it like \"500ms\" or \"2s\""))
    })
}

/// Writes a duration the same way.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&humantime::format_duration(*duration))
}

/// The same for a duration that may be left out.
pub mod option {
    use super::{Deserialize, Deserializer, Duration};

    #[derive(Deserialize)]
    struct Given(#[serde(with = "super")] Duration);

    /// Reads a duration that is there.
    ///
    /// # Errors
    /// As for a single one.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        Given::deserialize(from).map(|given| Some(given.0))
    }
}
