//! The members of a registry: where they listen, and who the gateway is to them. One is spoken to at a time, the next
//! one after a failure.

use super::credential::Credential;
use super::{Failure, Kind};
use crate::base::secret::Secret;
use crate::http::tls::{self, client};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::time::timeout;

/// To connect, with the handshake.
pub const CONNECT: Duration = Duration::from_secs(1);

/// What a table says of a registry with members: `address`, `username`, `password`, `tls`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Raw")]
pub struct Settings {
    /// Each as `HOST:PORT`; one at least.
    pub address: Vec<String>,
    /// Who the gateway is.
    pub username: Option<String>,
    /// What proves it.
    pub password: Option<Credential>,
    /// TLS is spoken.
    pub tls: Option<client::Settings>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    address: OneOrMore,
    username: Option<String>,
    password: Option<Secret>,
    password_file: Option<PathBuf>,
    tls: Option<client::Settings>,
}

/// A text, or a list of them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "expected an address like `127.0.0.1:2379`, or a list of them")]
pub enum OneOrMore {
    /// One.
    One(String),
    /// More, or none.
    More(Vec<String>),
}

impl From<OneOrMore> for Vec<String> {
    fn from(given: OneOrMore) -> Self {
        match given {
            OneOrMore::One(one) => vec![one],
            OneOrMore::More(more) => more,
        }
    }
}

impl TryFrom<Raw> for Settings {
    type Error = String;

    fn try_from(raw: Raw) -> Result<Self, String> {
        let Raw { address, username, password, password_file, mut tls } = raw;
        let mut members = Vec::new();
        for written in Vec::from(address) {
            let (scheme, member) = written.split_once("://").unwrap_or(("", &written));
            let member = member.trim_end_matches('/');
            let wrong = || format!("`address`: `{member}` is not HOST:PORT, like `127.0.0.1:2379`");
            let (host, port) = member.rsplit_once(':').ok_or_else(wrong)?;
            let good =
                !host.is_empty() && !host.contains(['@', '/', ' ']) && port.parse().is_ok_and(|port: u16| port > 0);
            match scheme {
                _ if !good => return Err(wrong()),
                "" | "http" => {}
                "https" => drop(tls.get_or_insert_default()),
                _ => return Err(format!("`address`: `{scheme}` is neither `http` nor `https`")),
            }
            members.push(member.to_owned());
        }
        if members.is_empty() {
            return Err("`address`: names no member; write one like `127.0.0.1:2379`".to_owned());
        }
        let password = Credential::of("password", password, password_file)?;
        if username.is_some() != password.is_some() {
            return Err("`username` and `password` (or `password_file`) go together".to_owned());
        }
        Ok(Settings { address: members, username, password, tls })
    }
}

impl Settings {
    /// The same, where relative paths are relative to this folder.
    pub fn at(self, folder: &Path) -> Self {
        Settings {
            password: self.password.map(|password| password.at(folder)),
            tls: self.tls.map(|tls| tls.at(folder)),
            ..self
        }
    }
}

/// The members, and whose turn it is.
#[derive(Debug)]
pub struct Members {
    /// As they were given.
    pub settings: Settings,
    turn: AtomicUsize,
}

impl Members {
    /// The first is spoken to first.
    pub fn new(settings: Settings) -> Self {
        Members { settings, turn: AtomicUsize::new(0) }
    }

    /// Whose turn it is, as `HOST:PORT`.
    pub fn member(&self) -> &str {
        let members = &self.settings.address;
        &members[self.turn.load(Relaxed) % members.len()]
    }

    /// The next one's, after a failure.
    pub fn next(&self) {
        self.turn.fetch_add(1, Relaxed);
    }

    /// User and password as they are now, where there are any.
    ///
    /// # Errors
    /// The password's file.
    pub async fn login(&self) -> Result<Option<(String, Secret)>, Failure> {
        let (Some(username), Some(password)) = (&self.settings.username, &self.settings.password) else {
            return Ok(None);
        };
        let password = password.read().await.map_err(|problem| Failure::new(Kind::Denied, problem))?;
        Ok(Some((username.clone(), password)))
    }
}

/// A connection with a member, ready to be spoken on. `http2`: ALPN says so; else it says nothing.
///
/// # Errors
/// Why there is none.
pub async fn dial(member: &str, tls: Option<&client::Settings>, http2: bool) -> Result<tls::Socket, Failure> {
    let unreachable = |problem: String| Failure::new(Kind::Unreachable, format!("{member}: cannot connect: {problem}"));
    let connector = match tls.cloned() {
        None => None,
        Some(mut settings) => {
            let host = member.rsplit_once(':').map_or(member, |(host, _)| host).trim_matches(['[', ']']);
            settings.server_name.get_or_insert_with(|| host.to_owned());
            // Its files are read for each connection, so new ones need no restart.
            let read = tokio::task::spawn_blocking(move || client::Connector::new(&settings, http2)).await;
            let read = read.map_err(|error| error.to_string()).flatten();
            let read = read.map_err(|problem| Failure::new(Kind::Denied, format!("tls: {problem}")))?;
            Some(if http2 { read } else { read.without_alpn() })
        }
    };
    let connect = async {
        let mut last = "its name has no address".to_owned();
        for address in tokio::net::lookup_host(member).await.map_err(|error| error.to_string())? {
            match client::connect(address, connector.as_ref()).await {
                Ok(socket) => return Ok(socket),
                Err(error) => last = error.to_string(),
            }
        }
        Err(last)
    };
    timeout(CONNECT, connect).await.map_err(|_| unreachable("no answer in time".to_owned()))?.map_err(unreachable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings, String> {
        toml::from_str(text).map_err(|error: toml::de::Error| error.message().to_owned())
    }

    #[test]
    fn members_are_read() {
        let settings = read("address = ['a:1', 'https://[::1]:2/']\nusername = 'u'\npassword = 'p'").unwrap();
        assert_eq!(settings.address, ["a:1", "[::1]:2"]);
        assert!(settings.tls.is_some() && !format!("{settings:?}").contains("\"p\""));
        let members = Members::new(settings);
        assert_eq!(members.member(), "a:1");
        members.next();
        assert_eq!(members.member(), "[::1]:2");
        members.next();
        assert_eq!(members.member(), "a:1");
        for (text, problem) in [
            ("address = []", "names no member"),
            ("address = 'a'", "`a` is not HOST:PORT"),
            ("address = 'a:0'", "`a:0` is not HOST:PORT"),
            ("address = 'u:p@a:1'", "is not HOST:PORT"),
            ("address = 'ftp://a:1'", "neither `http` nor `https`"),
            ("address = 7", "expected an address"),
            ("address = 'a:1'\nusername = 'u'", "go together"),
            ("address = 'a:1'\nport = 1", "unknown field `port`"),
        ] {
            let told = read(text).unwrap_err();
            assert!(told.contains(problem), "{text} gave {told}");
        }
    }
}
