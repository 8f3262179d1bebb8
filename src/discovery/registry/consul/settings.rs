//! How an agent of Consul is reached: the keys that everything has which asks one.

use crate::base::secret::Secret;
use crate::discovery::registry::credential::Credential;
use serde::Deserialize;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The client's part of a table that names an agent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Raw")]
pub struct Settings {
    /// The agent's HTTP API.
    pub address: Address,
    /// Where the ACL token comes from; none: anonymous.
    pub token: Option<Credential>,
    /// How long one query waits for a change: 1 s to 10 min.
    pub wait: Duration,
    /// The largest answer that is read, bytes.
    pub max_answer: usize,
    /// Connections to the agent at once: 1 to 10,000. With more to watch than that, they take turns.
    pub max_connections: usize,
}

/// An `http` or `https` URL. `Debug` and `Display` leave out user and password.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(pub(super) reqwest::Url);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.0.host_str().unwrap_or_default();
        write!(f, "{}://{host}", self.0.scheme())?;
        self.0.port().map_or(Ok(()), |port| write!(f, ":{port}"))?;
        f.write_str(self.0.path().trim_end_matches('/'))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    address: String,
    token: Option<Secret>,
    token_file: Option<PathBuf>,
    #[serde(default = "wait", with = "crate::base::duration")]
    wait: Duration,
    #[serde(default = "max_answer")]
    max_answer: usize,
    #[serde(default = "max_connections")]
    max_connections: usize,
}

fn wait() -> Duration {
    Duration::from_secs(60)
}
fn max_answer() -> usize {
    16 << 20
}
/// An agent takes 200 of one address, which others on this machine may need, too.
fn max_connections() -> usize {
    150
}

impl TryFrom<Raw> for Settings {
    type Error = String;

    fn try_from(raw: Raw) -> Result<Self, String> {
        // The text is not shown: it may hold a password.
        let expected = "`address`: expected a URL like `http://127.0.0.1:8500`";
        let url = reqwest::Url::parse(&raw.address).map_err(|e| format!("{expected} ({e})"))?;
        if !matches!(url.scheme(), "http" | "https") || url.query().is_some() || url.fragment().is_some() {
            return Err(format!("{expected}, without a query"));
        }
        let token = Credential::of("token", raw.token, raw.token_file)?;
        if !(1..=10_000).contains(&raw.max_connections) {
            return Err(format!("`max_connections`: {} is not between 1 and 10000", raw.max_connections));
        }
        Ok(Settings {
            address: Address(url),
            token,
            // Consul's own limit; less than a second would be polling.
            wait: raw.wait.clamp(Duration::from_secs(1), Duration::from_secs(600)),
            max_answer: raw.max_answer,
            max_connections: raw.max_connections,
        })
    }
}

impl Settings {
    /// The same, where relative paths are relative to this folder.
    pub fn at(self, folder: &Path) -> Self {
        Settings { token: self.token.map(|token| token.at(folder)), ..self }
    }
}
