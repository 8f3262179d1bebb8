//! The kinds of sources that there are: one row each.

use super::{Build, Lookup, Source, consul, dns, etcd, file, nacos, redis, zookeeper};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// A kind of source.
struct Kind {
    /// As `kind` names it.
    name: &'static str,
    /// May report services that nobody declared.
    names_services: bool,
    /// Reads what else its table says; relative paths are relative to the folder. Gives what builds the source.
    read: fn(toml::Table, &Path) -> Result<Build, String>,
    /// Can a service be looked up like this? An error names the service's key.
    check: fn(&Lookup) -> Result<(), String>,
}

const KINDS: [Kind; 7] = [
    Kind { name: "consul", names_services: false, read: consul::read, check: any },
    Kind { name: "dns", names_services: false, read: dns::read, check: dns::check },
    Kind { name: "etcd", names_services: false, read: etcd::read, check: any },
    Kind { name: "file", names_services: true, read: file::read, check: any },
    Kind { name: "nacos", names_services: false, read: nacos::read, check: any },
    Kind { name: "redis", names_services: false, read: redis::read, check: any },
    Kind { name: "zookeeper", names_services: false, read: zookeeper::read, check: any },
];

/// Any text may be a service's name.
fn any(_: &Lookup) -> Result<(), String> {
    Ok(())
}

/// A source as the configuration declares it. Equal to another one that says the same.
#[derive(Clone)]
pub struct SourceSettings {
    kind: &'static Kind,
    /// What was written; may hold secrets.
    table: toml::Table,
    build: Build,
}

impl SourceSettings {
    /// Reads a `[sources.NAME]` table. Relative paths are relative to `folder`.
    ///
    /// # Errors
    /// The key that is wrong, and what was expected.
    pub fn parse(mut table: toml::Table, folder: &Path) -> Result<Self, String> {
        let named = match table.remove("kind") {
            Some(toml::Value::String(named)) => named,
            _ => return Err(format!("`kind` is missing (expected one of {})", names())),
        };
        let kind = KINDS.iter().find(|kind| kind.name == named);
        let kind = kind.ok_or_else(|| format!("`kind`: `{named}` is none of {}", names()))?;
        let build = (kind.read)(table.clone(), folder)?;
        Ok(SourceSettings { kind, table, build })
    }

    /// Builds the source.
    ///
    /// # Errors
    /// What in the settings cannot be used.
    pub fn build(&self) -> Result<Arc<dyn Source>, String> {
        (self.build)()
    }

    /// Hash of what was written, without its secrets: another one is another registry.
    pub fn identity(&self) -> String {
        let is_secret = |key: &str| ["password", "token", "username"].iter().any(|secret| key.starts_with(secret));
        let said: toml::Table = self
            .table
            .iter()
            .filter(|(key, _)| !is_secret(key))
            .map(|(key, value)| (key.clone(), without_login(value)))
            .collect();
        crate::base::digest::short(format!("{} {said}", self.kind.name).as_bytes())
    }

    /// Can a service be looked up like this?
    ///
    /// # Errors
    /// The service's key that is wrong, and what to write.
    pub fn check(&self, lookup: &Lookup) -> Result<(), String> {
        (self.kind.check)(lookup)
    }

    /// May report services that nobody declared.
    pub fn names_services(&self) -> bool {
        self.kind.names_services
    }

    /// As `kind` names it.
    pub fn kind(&self) -> &'static str {
        self.kind.name
    }
}

impl PartialEq for SourceSettings {
    fn eq(&self, other: &Self) -> bool {
        self.kind.name == other.kind.name && self.table == other.table
    }
}

impl fmt::Debug for SourceSettings {
    /// Without what was written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceSettings").field("kind", &self.kind.name).finish_non_exhaustive()
    }
}

/// A value where no URL says who asks, and what proves it.
fn without_login(value: &toml::Value) -> toml::Value {
    match value {
        toml::Value::String(text) => match text.split_once("://") {
            Some((scheme, rest)) => {
                format!("{scheme}://{}", rest.rsplit_once('@').map_or(rest, |(_, host)| host)).into()
            }
            None => value.clone(),
        },
        toml::Value::Array(values) => toml::Value::Array(values.iter().map(without_login).collect()),
        _ => value.clone(),
    }
}

fn names() -> String {
    KINDS.map(|kind| format!("`{}`", kind.name)).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_login_is_no_other_registry() {
        let identity =
            |text: &str| SourceSettings::parse(toml::from_str(text).unwrap(), Path::new("/")).unwrap().identity();
        let table = |address: &str, more: &str| format!("kind = 'redis'\naddress = {address}\n{more}");
        let same = identity(&table("'redis://h:1'", ""));
        for (address, more) in
            [("'redis://:old@h:1'", ""), ("'redis://u:n@w@h:1'", ""), ("'redis://h:1'", "password = 'x'")]
        {
            assert_eq!(identity(&table(address, more)), same, "{address} {more}");
        }
        assert_ne!(identity(&table("'redis://h:2'", "")), same);
        let (old, new) = ("['redis://:old@h:1', 'redis://:old@i:1']", "['redis://:new@h:1', 'redis://:new@i:1']");
        assert_eq!(identity(&table(old, "")), identity(&table(new, "")));
    }
}
