//! Durations as people write them: `"500ms"`, `"2s"`, `"1m 30s"`.

use serde::{Deserialize, Deserializer, Serializer};
use std::time::Duration;

/// The longest one that is taken: nobody waits longer, and any clock can add it to its time.
pub const MOST: Duration = Duration::from_secs(10 * 31_557_600);

/// Reads a duration; a bare number is refused, since nobody could tell its unit, and so is one above [`MOST`].
///
/// # Errors
/// A sentence that shows the text and a good example.
pub fn parse(text: &str) -> Result<Duration, String> {
    let most = humantime::format_duration(MOST);
    let too_long = || format!("`{text}` is too long; the longest that is taken is \"{most}\"");
    match humantime::parse_duration(text) {
        Ok(duration) if duration <= MOST => Ok(duration),
        Ok(_) | Err(humantime::DurationError::NumberOverflow) => Err(too_long()),
        Err(e) => Err(format!("`{text}` is no duration ({e}); write it like \"500ms\" or \"2s\"")),
    }
}

/// Reads a duration as [`parse`] does.
///
/// # Errors
/// A sentence that shows the text and a good example.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    parse(&String::deserialize(from)?).map_err(serde::de::Error::custom)
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn no_duration_that_is_taken_is_too_much_for_a_clock() {
        assert_eq!(parse("1m 30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse("10years"), Ok(MOST));
        assert!(Instant::now().checked_add(MOST * 2).is_some());
        let long =
            ["10years 1ns", "1000000000000years", "99999999999999999999s", "18446744073709551615s", "584554years"];
        for text in long {
            assert_eq!(parse(text), Err(format!("`{text}` is too long; the longest that is taken is \"10years\"")));
        }
        for text in ["", "5", "5 parsecs", "-1s", "s", "1e3s"] {
            assert!(parse(text).unwrap_err().contains("is no duration"), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[0-9]{0,25}(ns|us|ms|s|m|h|d|w|M|y|years| ){0,3}[0-9]{0,25}[a-z]{0,3}") {
            if let Ok(duration) = parse(&text) {
                proptest::prop_assert!(duration <= MOST);
            }
        }
    }
}
