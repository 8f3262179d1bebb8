//! How a Redis or Valkey is reached: the keys that everything has which asks one.

use crate::base::secret::Secret;
use crate::discovery::registry::credential::Credential;
use crate::discovery::registry::members::OneOrMore;
use crate::http::tls::client;
use redis::{ConnectionAddr, IntoConnectionInfo};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The client's part of a table that names a Redis.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Raw")]
pub struct Settings {
    /// Each as `HOST:PORT`; one at least. Of sentinels, where there are any.
    pub address: Vec<String>,
    /// What the sentinels call the master.
    pub sentinel: Option<String>,
    /// It is a cluster, or is not; none: the server is asked.
    pub cluster: Option<bool>,
    /// The database's number.
    pub database: u32,
    /// Who the gateway is; none: the default user.
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
    sentinel: Option<String>,
    cluster: Option<bool>,
    username: Option<String>,
    password: Option<Secret>,
    password_file: Option<PathBuf>,
    tls: Option<client::Settings>,
}

/// What one address says.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    member: String,
    tls: bool,
    database: u32,
    username: Option<String>,
    password: Option<Secret>,
}

/// Reads `redis://USER:PASSWORD@HOST:PORT/DATABASE`, where only the host has to be. The text is never shown: it may hold a
/// password.
fn address(text: &str) -> Result<Said, String> {
    let expected = || "`address`: expected a URL like `redis://127.0.0.1:6379/0`, or `rediss://` for TLS".to_owned();
    if text.contains(['?', '#', ' ']) {
        return Err(format!("{}, without a query", expected()));
    }
    let whole = if text.contains("://") { text.to_owned() } else { format!("redis://{text}") };
    let info = whole.as_str().into_connection_info().map_err(|_| expected())?;
    let (host, port, tls) = match info.addr() {
        ConnectionAddr::Tcp(host, port) => (host, port, false),
        ConnectionAddr::TcpTls { host, port, .. } => (host, port, true),
        _ => return Err(expected()),
    };
    let settings = info.redis_settings();
    Ok(Said {
        member: member(host, *port).filter(|_| *port > 0).ok_or_else(expected)?,
        tls,
        database: settings.db().try_into().map_err(|_| expected())?,
        username: settings.username().map(str::to_owned),
        password: settings.password().map(Secret::new),
    })
}

/// As `HOST:PORT`, which an IPv6 address needs brackets for.
pub(super) fn member(host: &str, port: u16) -> Option<String> {
    match host {
        "" => None,
        host if host.contains(':') && !host.starts_with('[') => Some(format!("[{host}]:{port}")),
        host => Some(format!("{host}:{port}")),
    }
}

impl TryFrom<Raw> for Settings {
    type Error = String;

    fn try_from(raw: Raw) -> Result<Self, String> {
        let Raw { address: written, sentinel, cluster, mut username, mut password, password_file, mut tls } = raw;
        let said = Vec::from(written).iter().map(|text| address(text)).collect::<Result<Vec<_>, _>>()?;
        let first = said.first().ok_or("`address`: names no server; write one like `redis://127.0.0.1:6379`")?;
        let same = |one: &Said| {
            (one.tls, one.database, &one.username, &one.password)
                == (first.tls, first.database, &first.username, &first.password)
        };
        if !said.iter().all(same) {
            return Err("`address`: all have to say the same but for host and port".to_owned());
        }
        for (key, given) in [("username", first.username.is_some()), ("password", first.password.is_some())] {
            let other =
                if key == "username" { username.is_some() } else { password.is_some() || password_file.is_some() };
            if given && other {
                return Err(format!("`{key}` stands in the `address` as well: write it once"));
            }
        }
        username = username.or_else(|| first.username.clone());
        password = password.or_else(|| first.password.clone());
        let password = Credential::of("password", password, password_file)?;
        if username.is_some() && password.is_none() {
            return Err("`username` needs a `password` (or `password_file`)".to_owned());
        }
        if first.tls {
            tls.get_or_insert_default();
        }
        match (&sentinel, cluster) {
            (Some(_), Some(true)) => return Err("`sentinel` and `cluster` exclude each other".to_owned()),
            (Some(name), _) if name.trim().is_empty() => {
                return Err("`sentinel`: expected what the sentinels call the master".to_owned());
            }
            (None, Some(true)) if first.database > 0 => {
                return Err("`address`: a cluster has database 0 only".to_owned());
            }
            _ => {}
        }
        let database = first.database;
        let address = said.into_iter().map(|one| one.member).collect();
        Ok(Settings { address, sentinel, cluster, database, username, password, tls })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings, String> {
        toml::from_str(text).map_err(|error: toml::de::Error| error.message().to_owned())
    }

    #[test]
    fn addresses_say_who_and_how() {
        let settings = read("address = 'redis://127.0.0.1:6379'").unwrap();
        assert_eq!((settings.address.join(" ").as_str(), settings.database), ("127.0.0.1:6379", 0));
        assert!(settings.tls.is_none() && settings.password.is_none() && settings.cluster.is_none());
        let settings = read("address = 'rediss://me:hunter%32@[::1]/3'").unwrap();
        assert_eq!((settings.address.join(" ").as_str(), settings.database), ("[::1]:6379", 3));
        assert_eq!(settings.password, Credential::of("password", Some(Secret::new("hunter2")), None).unwrap());
        assert!(settings.tls.is_some() && !format!("{settings:?}").contains("hunter"));
        let settings = read("address = ['a:1', 'redis://b:2']\nsentinel = 'main'\npassword = 'p'").unwrap();
        assert_eq!((settings.address.join(" ").as_str(), settings.username), ("a:1 b:2", None));
    }

    #[test]
    fn problems_are_told_without_secrets() {
        for (text, problem) in [
            ("address = []", "names no server"),
            ("address = ''", "expected a URL like"),
            ("address = 'http://h:1'", "expected a URL like"),
            ("address = 'redis:///run/hunter2'", "expected a URL like"),
            ("address = 'unix:///run/hunter2.sock'", "expected a URL like"),
            ("address = 'redis://:hunter2@h:99999'", "expected a URL like"),
            ("address = 'redis://:hunter2@h:0'", "expected a URL like"),
            ("address = 'redis://:hunter2@h/x'", "expected a URL like"),
            ("address = 'redis://:hunter2@h/-1'", "expected a URL like"),
            ("address = 'rediss://:hunter2@h/#insecure'", "without a query"),
            ("address = ['redis://h', 'rediss://h']", "all have to say the same"),
            ("address = 'redis://:hunter2@h'\npassword_file = 'p'", "`password` stands in the `address` as well"),
            ("address = 'redis://u:hunter2@h'\nusername = 'u'", "`username` stands in the `address` as well"),
            ("address = 'h'\nusername = 'u'", "`username` needs a `password`"),
            ("address = 'h'\npassword = ''", "`password` is empty"),
            ("address = 'h'\nsentinel = 'm'\ncluster = true", "exclude each other"),
            ("address = 'h'\nsentinel = ' '", "what the sentinels call"),
            ("address = 'redis://h/1'\ncluster = true", "database 0 only"),
            ("address = 'h'\npasswort = 'hunter2'", "unknown field `passwort`"),
        ] {
            let told = read(text).unwrap_err();
            assert!(told.contains(problem), "{text} gave {told}");
            assert!(!told.contains("hunter"), "{told}");
        }
    }
}
