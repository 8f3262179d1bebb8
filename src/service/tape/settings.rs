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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings, String> {
        let settings: Settings = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        settings.check().map(|()| settings)
    }

    #[test]
    fn keys_have_defaults_and_bounds() {
        let settings = read("sample = 0.01\nmax_size = \"2MiB\"\nmax_age = \"7d\"\nredact = [\"cookie:*\"]").unwrap();
        assert_eq!((settings.max_size, settings.max_age.as_secs()), (2 << 20, 7 * 24 * 3600));
        assert_eq!(read("").unwrap(), Settings::default());
        for (text, expected) in [
            ("sample = 1.5", "sample: 1.5 is not between"),
            ("sample = nan", "sample: NaN is not"),
            ("max_size = 7", "max_size: 7 bytes is less"),
            ("max_size = \"1\"", "is no size"),
            ("max_age = \"1s\"", "max_age: must be"),
            ("redact = [\"body\"]", "redact: `body` is no rule"),
            ("share = 1", "unknown field"),
        ] {
            let problem = read(text).unwrap_err();
            assert!(problem.contains(expected), "{text}: {problem}");
        }
    }

    #[test]
    fn files_are_beside_what_else_the_gateway_keeps() {
        let at = |settings: Settings| settings.at(Path::new("/etc/wayside"), Path::new("/var/wayside")).directory;
        assert_eq!(at(Settings::default()), Path::new("/var/wayside/records"));
        let named = Settings { directory: "mine".into(), ..Settings::default() };
        assert_eq!(at(named), Path::new("/etc/wayside/mine"));
    }
}
