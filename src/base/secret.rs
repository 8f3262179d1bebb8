//! Secrets: values that are used but never shown, in no log, error or debug output.

use serde::Deserialize;
use std::fmt;

/// A token or password. `Debug` and `Display` print `[redacted]`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a value out of sight.
    pub fn new(value: impl Into<String>) -> Self {
        Secret(value.into())
    }

    /// The value itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The text without this value in it, for what a registry says in its own words.
    pub fn redact(&self, text: &str) -> String {
        if self.0.is_empty() { text.to_owned() } else { text.replace(&self.0, REDACTED) }
    }
}

const REDACTED: &str = "[redacted]";

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // Serde's own message for a wrong type shows the value.
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Given {
            Text(String),
            Other(serde::de::IgnoredAny),
        }
        match Given::deserialize(from)? {
            Given::Text(text) => Ok(Secret(text)),
            Given::Other(_) => Err(serde::de::Error::custom("a secret must be a string")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Holder {
        token: Secret,
    }

    #[test]
    fn is_never_shown() {
        let holder: Holder = toml::from_str("token = \"hunter2\"").unwrap();
        assert_eq!(holder.token.expose(), "hunter2");
        assert_eq!(format!("{holder:?} {}", holder.token), "Holder { token: [redacted] } [redacted]");
        assert_eq!(holder.token.redact("token hunter2 not found"), "token [redacted] not found");
        let table: toml::Table = toml::from_str("token = 4711").unwrap();
        let problem = table.try_into::<Holder>().unwrap_err().to_string();
        assert!(!problem.contains("4711"), "{problem}");
    }
}
