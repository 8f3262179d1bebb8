//! The `file` source: services and endpoints in a TOML file that is watched. One that is half written, or empty for a
//! moment, takes no endpoint away: what lacks much is read again a while later.

use super::guard::Guards;
use super::{Build, Entry, Lookup, Metadata, Observed, Report, Reports, Source};
use crate::base::{duration, files, watch};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// `[sources.NAME]` with `kind = "file"`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The file; relative to the configuration's folder.
    pub path: PathBuf,
    /// How long after a doubtful reading it is read again.
    #[serde(default = "crate::discovery::guard::confirm_after", with = "duration")]
    pub confirm_after: Duration,
}

/// Watches one file.
#[derive(Debug)]
pub struct File {
    settings: Settings,
    known: Known,
}

/// What was last applied. It outlives a watch, so that a changed configuration does not make an empty file a first
/// reading, which would be applied at once.
type Known = Arc<Mutex<BTreeMap<Arc<str>, Observed>>>;

/// How old the last reading gets.
const CONFIRM: Duration = Duration::from_secs(10);
/// The largest file that is read, bytes.
const MAX_BYTES: u64 = 16 << 20;

/// Reads a table of this kind.
pub(super) fn read(table: toml::Table, folder: &Path) -> Result<Build, String> {
    let mut settings: Settings = super::settings(table)?;
    settings.path = folder.join(settings.path);
    Ok(Arc::new(move || Ok(Arc::new(File::new(&settings)))))
}

impl File {
    /// A source that reads this file.
    pub fn new(settings: &Settings) -> Self {
        File { settings: settings.clone(), known: Known::default() }
    }
}

impl Source for File {
    fn watch(&self, lookups: Vec<Lookup>, reports: Reports) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(run(self.settings.clone(), Arc::clone(&self.known), lookups, reports))
    }
}

async fn run(settings: Settings, known: Known, lookups: Vec<Lookup>, reports: Reports) {
    let allow_empty = lookups.into_iter().filter(|lookup| lookup.allow_empty).map(|lookup| lookup.service).collect();
    let before = known.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut guards = Guards::new(settings.confirm_after, allow_empty, before);
    let (mut held, mut failed) = (BTreeSet::new(), None::<String>);
    let mut changes = watch::file(&settings.path);
    changes.begun().await;
    loop {
        match look(&settings.path).await {
            Ok(services) => {
                failed = None;
                let report = guards.offer(services, Instant::now());
                *known.lock().unwrap_or_else(PoisonError::into_inner) = guards.accepted();
                tell(&mut held, &report);
                reports.send(Report::All(report)).await;
            }
            // Once for each new problem; control knows that the rest is silence.
            Err(problem) if failed.as_ref() == Some(&problem) => {}
            Err(problem) => {
                failed = Some(problem.clone());
                reports.send(Report::Failed(None, problem)).await;
            }
        }
        // Read again also when nothing changed, which confirms what is known.
        let next = Instant::now() + CONFIRM;
        let _ = timeout_at(guards.confirm_at().map_or(next, |at| at.min(next)), changes.next()).await;
    }
}

/// Says of which services the newest reading is held, and no longer held, since the last time.
fn tell(told: &mut BTreeSet<Arc<str>>, report: &BTreeMap<Arc<str>, Observed>) {
    let held = report.iter().filter_map(|(service, observed)| Some((service, observed.held.as_ref()?)));
    let held: BTreeMap<_, _> = held.collect();
    told.retain(|service| {
        let still = held.contains_key(service);
        if !still {
            let endpoints = report.get(service).map_or(0, |observed| observed.endpoints.len());
            tracing::info!(%service, endpoints, "no longer held");
        }
        still
    });
    for (service, held) in held {
        if told.insert(Arc::clone(service)) {
            tracing::warn!(%service, %held, "the file's answer is held");
        }
    }
}

async fn look(path: &Path) -> Result<BTreeMap<Arc<str>, Observed>, String> {
    let text = files::read_text_beside(path, MAX_BYTES).await;
    let text = text.map_err(|error| format!("{}: cannot be read: {error}", path.display()))?;
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
