//! A registry as one types it: a URL that names its kind, its members and where in it.

use std::path::PathBuf;
use std::str::FromStr;

/// A registry, as one types it: `consul://HOST:PORT`, `etcd://HOST:PORT,HOST:PORT/PREFIX`,
/// `redis://HOST:PORT/DATABASE?prefix=PREFIX`, `zookeeper://HOST:PORT/PATH`, `nacos://HOST:PORT?namespace=…&group=…`. What has to be proven to it comes
/// apart, so that it stands in no list of processes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    kind: String,
    members: Vec<String>,
    /// What follows the members, with its first slash; may be empty.
    pub path: String,
    /// What follows a question mark.
    parameters: Vec<(String, String)>,
    /// Who registers.
    username: Option<String>,
    /// Holds what proves it.
    password_file: Option<PathBuf>,
    /// Holds a token (Consul).
    token_file: Option<PathBuf>,
    /// Speak TLS, and trust the authorities in here.
    ca: Option<PathBuf>,
}

const KINDS: [&str; 5] = ["consul", "etcd", "nacos", "redis", "zookeeper"];

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = "expected a URL like `consul://127.0.0.1:8500` or `etcd://127.0.0.1:2379/services/`";
        // The text is not shown: it may hold a password.
        let (kind, rest) = text.split_once("://").ok_or(expected)?;
        if !KINDS.contains(&kind) {
            return Err(format!("`{kind}` is no registry that is known: {expected}"));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (members, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        if members.contains('@') {
            return Err(format!(
                "a password does not belong in the URL: use `--username` and `--password-file` ({expected})"
            ));
        }
        let members: Vec<String> = members.split(',').map(str::to_owned).collect();
        if members.iter().any(String::is_empty) {
            return Err(format!("it names no host: {expected}"));
        }
        let parameters = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        Ok(Place { kind: kind.to_owned(), members, path: path.to_owned(), parameters, ..Place::default() })
    }
}

impl Place {
    /// A member's `HOST:PORT`, from which the way to the registry can be seen.
    pub fn member(&self) -> &str {
        self.members.first().map_or("", String::as_str)
    }

    /// The table of a client's settings, to which more may be added.
    fn table(&self) -> Result<toml::Table, String> {
        let mut table = toml::Table::new();
        let mut put = |key: &str, value: String| drop(table.insert(key.to_owned(), value.into()));
        if let Some(username) = &self.username {
            put("username", username.clone());
        }
        for (key, file) in [("password_file", &self.password_file), ("token_file", &self.token_file)] {
            if let Some(file) = file {
                put(key, std::path::absolute(file).map_err(|error| error.to_string())?.display().to_string());
            }
        }
        if let Some(ca) = &self.ca {
            let mut tls = toml::Table::new();
            tls.insert("ca".to_owned(), ca.display().to_string().into());
            table.insert("tls".to_owned(), tls.into());
        }
        Ok(table)
    }

    /// The settings of a registry with members.
    ///
    /// # Errors
    /// A file's path.
    pub fn with_members(&self) -> Result<toml::Table, String> {
        let mut table = self.table()?;
        table.insert("address".to_owned(), self.members.clone().into());
        Ok(table)
    }

    /// The settings of an agent with a URL.
    ///
    /// # Errors
    /// A file's path.
    pub fn with_agent(&self) -> Result<toml::Table, String> {
        let mut table = self.table()?;
        let scheme = if table.remove("tls").is_some() { "https" } else { "http" };
        table.insert("address".to_owned(), format!("{scheme}://{}", self.member()).into());
        Ok(table)
    }

    /// The same for who can prove who they are.
    pub fn with(
        self,
        username: Option<String>,
        password_file: Option<PathBuf>,
        token_file: Option<PathBuf>,
        ca: Option<PathBuf>,
    ) -> Self {
        Place { username, password_file, token_file, ca, ..self }
    }

    /// `consul`, `etcd`, …
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The value of `?NAME=…`.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The settings of a Redis, whose path is a database, and the prefix of its keys (`?prefix=…`).
    ///
    /// # Errors
    /// A file's path.
    pub fn with_url(&self) -> Result<(toml::Table, String), String> {
        let mut table = self.table()?;
        let scheme = if table.contains_key("tls") { "rediss" } else { "redis" };
        let url = |member: &String| format!("{scheme}://{member}{}", self.path);
        table.insert("address".to_owned(), self.members.iter().map(url).collect::<Vec<_>>().into());
        if let Some(master) = self.parameter("sentinel") {
            table.insert("sentinel".to_owned(), master.into());
        }
        Ok((table, self.parameter("prefix").unwrap_or("services:").to_owned()))
    }

    /// Where in the registry, else there.
    pub fn path_or(&self, default: &str) -> String {
        if self.path.len() > 1 { self.path.clone() } else { default.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_and_what_is_wrong_is_said() {
        let place: Place = "etcd://a:1,b:2/x/".parse().unwrap();
        assert_eq!(
            (place.kind.as_str(), &*place.members, place.path.as_str()),
            ("etcd", &["a:1".to_owned(), "b:2".to_owned()][..], "/x/")
        );
        for (text, problem) in [
            ("127.0.0.1:8500", "expected a URL"),
            ("eureka://a:1", "`eureka` is no registry"),
            ("etcd:///x", "names no host"),
            ("etcd://u:secret@a:1", "--password-file"),
        ] {
            let told = text.parse::<Place>().unwrap_err();
            assert!(told.contains(problem) && !told.contains("secret"), "{text}: {told}");
        }
    }
}
