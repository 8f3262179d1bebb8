//! The `file` source: services and endpoints in a TOML file that is watched.

use super::{Entry, Observed, Report, Reports, Source};
use crate::discovery::Metadata;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// `[sources.NAME]` with `kind = "file"`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The file; relative to the configuration's folder.
    pub path: PathBuf,
}

/// Watches one file.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
}

/// How old the last reading gets.
const CONFIRM: Duration = Duration::from_secs(10);
/// The largest file that is read, bytes.
const MAX_BYTES: u64 = 16 << 20;

impl File {
    /// A source that reads this file.
    pub fn new(settings: &Settings) -> Self {
        File { path: settings.path.clone() }
    }
}

impl Source for File {
    fn watch(&self, _: Vec<super::Lookup>, reports: Reports) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let path = self.path.clone();
        Box::pin(async move {
            let mut changes = crate::base::watch::file(&path);
            loop {
                let report = match read(&path) {
                    Ok(services) => Report::All(services),
                    Err(problem) => Report::Failed(None, problem),
                };
                reports.send(report).await;
                // Read again also when nothing changed, which confirms what is known.
                let _ = tokio::time::timeout(CONFIRM, changes.next()).await;
            }
        })
    }
}

fn read(path: &Path) -> Result<BTreeMap<Arc<str>, Observed>, String> {
    let failed = |e: std::io::Error| format!("{}: cannot be read: {e}", path.display());
    if std::fs::metadata(path).map_err(failed)?.len() > MAX_BYTES {
        return Err(format!("{}: is larger than {MAX_BYTES} bytes", path.display()));
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    parse(&text).map_err(|problem| format!("{}: {problem}", path.display()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    services: BTreeMap<String, RawService>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawService {
    #[serde(default)]
    endpoints: Vec<RawEndpoint>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEndpoint {
    address: toml::Spanned<String>,
    #[serde(default = "one")]
    weight: u32,
    #[serde(default)]
    metadata: Metadata,
}

fn one() -> u32 {
    1
}

/// Checks the text of the file as a whole.
///
/// # Errors
/// What is wrong and on which line.
pub fn parse(text: &str) -> Result<BTreeMap<Arc<str>, Observed>, String> {
    let raw: Raw = toml::from_str(text).map_err(|e| crate::base::place::toml_problem(text, &e))?;
    let revision = crate::base::digest::short(text.as_bytes());
    let mut services = BTreeMap::new();
    for (name, service) in raw.services {
        let mut seen = BTreeSet::new();
        let mut endpoints = Vec::new();
        for endpoint in service.endpoints {
            let line = crate::base::place::line(text, endpoint.address.span().start);
            let written = endpoint.address.into_inner();
            let address: SocketAddr = written.parse().map_err(|_| {
                format!(
                    "line {line}: services.{name}: `{written}` is not IP:PORT, like `127.0.0.1:9001` or `[::1]:9001`"
                )
            })?;
            if address.port() == 0 {
                return Err(format!("line {line}: services.{name}: `{written}` has port 0"));
            }
            if !seen.insert(address) {
                return Err(format!("line {line}: services.{name}: `{written}` is there twice"));
            }
            endpoints.push(Entry { address, weight: endpoint.weight, healthy: true, metadata: endpoint.metadata });
        }
        let observed = Observed { endpoints, revision: revision.clone(), ..Observed::default() };
        services.insert(Arc::from(name), observed);
    }
    Ok(services)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_services_with_weight_and_metadata() {
        let text = r#"
            [[services.users.endpoints]]
            address = "127.0.0.1:9001"
            weight = 2
            metadata = { version = "v2", zone = "a" }
            [[services.users.endpoints]]
            address = "[::1]:9002"
        "#;
        let services = parse(text).unwrap();
        let users = &services["users"];
        assert_eq!(users.endpoints.len(), 2);
        assert_eq!(users.endpoints[0].weight, 2);
        assert_eq!(users.endpoints[0].metadata["zone"], "a");
        assert_eq!(users.endpoints[1].weight, 1);
        assert_eq!(users.endpoints[1].address, "[::1]:9002".parse().unwrap());
    }

    #[test]
    fn problems_name_their_line() {
        let cases = [
            ("[[services.a.endpoints]]\naddress = \"nowhere\"\n", "line 2: services.a: `nowhere` is not IP:PORT"),
            ("\n\n[[services.a.endpoints]]\naddress = \"1.2.3.4:0\"\n", "line 4: services.a: `1.2.3.4:0` has port 0"),
            ("[[services.a.endpoints]]\naddress = 7\n", "line 2"),
            ("[[services.a.endpoints]]\naddress = \"1.2.3.4:5\"\nwieght = 2\n", "line 3"),
            ("[services", "line 1"),
        ];
        for (text, expected) in cases {
            let problem = parse(text).unwrap_err();
            assert!(problem.contains(expected), "{text:?} gave {problem:?}");
        }
        let twice = "[[services.a.endpoints]]\naddress = \"1.2.3.4:5\"\n".repeat(2);
        assert!(parse(&twice).unwrap_err().contains("line 4: services.a: `1.2.3.4:5` is there twice"));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,200}") {
            let _ = parse(&text);
        }
        #[test]
        fn no_near_miss_makes_it_panic(key in "[a-z=\\[\\]\"\n.]{0,40}", address in "[0-9a-f:.\\[\\]]{0,20}") {
            let _ = parse(&format!("[[services.a.endpoints]]\naddress = \"{address}\"\n{key}"));
        }
    }
}
