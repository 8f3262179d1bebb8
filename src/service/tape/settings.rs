//! `[record]`: which decisions are recorded, where, and for how long.

use super::redaction::Redaction;
use crate::base::duration;
use crate::base::size;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is recorded of policies' decisions.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Share of the requests that are recorded, of those about which a policy is asked: 0 to 1. 0: none.
    pub sample: f64,
    /// Where the files are. Default: `records` in `gateway.state_directory`.
    pub directory: PathBuf,
    /// Bytes of all files; the oldest go first. At least 1 MiB.
    #[serde(deserialize_with = "size::deserialize")]
    pub max_size: u64,
    /// A file that ended so long ago goes. At least a minute.
    #[serde(with = "duration")]
    pub max_age: Duration,
    /// Whose values are taken out of every record: `header:NAME`, `cookie:NAME`, `query:NAME` (`*`: each), `config`.
    pub redact: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            sample: 0.0,
            directory: PathBuf::new(),
            max_size: 1 << 30,
            max_age: Duration::from_secs(7 * 24 * 3600),
            redact: ["header:authorization", "header:proxy-authorization", "header:cookie"].map(str::to_owned).to_vec(),
        }
    }
}

impl Settings {
    /// Can it be recorded so?
    ///
    /// # Errors
    /// The key that is wrong, and what was expected.
    pub fn check(&self) -> Result<(), String> {
        if !(0.0..=1.0).contains(&self.sample) {
            return Err(format!("sample: {} is not between 0 and 1", self.sample));
        }
        if self.max_size < 1 << 20 {
            return Err(format!("max_size: {} bytes is less than 1 MiB", self.max_size));
        }
        if self.max_age < Duration::from_secs(60) {
            return Err("max_age: must be at least 1m".into());
        }
        self.redaction().map(|_| ()).map_err(|problem| format!("redact: {problem}"))
    }

    /// What its rules come to.
    ///
    /// # Errors
    /// The one that is none.
    pub fn redaction(&self) -> Result<Redaction, String> {
        Redaction::parse(&self.redact)
    }

    /// The same with its directory, which is relative to `folder`. `state`: where the gateway keeps what is its own.
    pub fn at(self, folder: &Path, state: &Path) -> Self {
        let none = self.directory.as_os_str().is_empty();
        let directory = if none { state.join("records") } else { folder.join(&self.directory) };
        Settings { directory, ..self }
    }
}
