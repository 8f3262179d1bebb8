//! The configuration: what `wayside.toml` says, checked as a whole, in types that cannot be wrong.

mod raw;

use crate::discovery::{Lookup, SourceSettings};
use crate::http::settings::{Gateway, Policies, Telemetry};
use crate::service::Settings;
use crate::service::route::Match;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A whole configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file that it came from.
    pub file: PathBuf,
    /// Of its text, and of the files of TLS with endpoints that it names: 12 hex digits.
    pub digest: String,
    /// `[gateway]`.
    pub gateway: Gateway,
    /// `[policies]`; none: no policies.
    pub policies: Option<Policies>,
    /// `[telemetry]`.
    pub telemetry: Telemetry,
    /// `[sources.NAME]`.
    pub sources: BTreeMap<Arc<str>, SourceSettings>,
    /// `[services.NAME]`.
    pub services: BTreeMap<Arc<str>, Declared>,
    /// `[[routes]]`, in file order.
    pub routes: Vec<DeclaredRoute>,
}

/// A declared service.
#[derive(Debug, Clone, PartialEq)]
pub struct Declared {
    /// How it is balanced, timed and retried.
    pub settings: Arc<Settings>,
    /// What its source looks for.
    pub lookup: Lookup,
}

/// A declared route.
#[derive(Debug, Clone)]
pub struct DeclaredRoute {
    /// Its `name`, else what it matches.
    pub name: Arc<str>,
    /// Which requests it takes.
    pub matcher: Match,
    /// Name of the service that it leads to.
    pub service: Arc<str>,
}

/// A configuration that cannot be used: the file, and all that is wrong with it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{}: {problem}", file.display())]
pub struct Error {
    /// The configuration file.
    pub file: PathBuf,
    /// What is wrong, with its key or line, and what to do.
    pub problem: String,
}

/// Settings of a service that only a file source names.
pub fn default_settings(source: &Arc<str>) -> Settings {
    raw::default_settings(source)
}

impl Default for Gateway {
    fn default() -> Self {
        raw::default_gateway()
    }
}

impl Config {
    /// Reads and checks a configuration file. Relative paths in it are relative to its folder.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn read(file: &Path) -> Result<Self, Error> {
        let error = |problem: String| Error { file: file.to_owned(), problem };
        let text = std::fs::read_to_string(file).map_err(|e| error(format!("cannot be read: {e}")))?;
        Self::parse(file, &text)
    }

    /// Checks the text of a configuration file.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn parse(file: &Path, text: &str) -> Result<Self, Error> {
        raw::parse(file, text).map_err(|problem| Error { file: file.to_owned(), problem })
    }

    /// What only a restart can change stays as it is in `running`. Gives the keys of what differed.
    pub fn keep_until_restart(&mut self, running: &Config) -> Vec<&'static str> {
        let mut kept = Vec::new();
        keep(&mut self.gateway.listen, &running.gateway.listen, "gateway.listen", &mut kept);
        keep(&mut self.gateway.admin, &running.gateway.admin, "gateway.admin", &mut kept);
        keep(&mut self.gateway.workers, &running.gateway.workers, "gateway.workers", &mut kept);
        keep(&mut self.telemetry.otlp, &running.telemetry.otlp, "telemetry.otlp", &mut kept);
        kept
    }

    /// What a source shall look up.
    pub fn lookups(&self, source: &str) -> Vec<Lookup> {
        let of_source = self.services.values().filter(|declared| *declared.settings.source == *source);
        of_source.map(|declared| declared.lookup.clone()).collect()
    }

    /// What the gateway waits for before it is ready: each declared service, and each source that names its own.
    pub fn awaited(&self) -> HashSet<(Arc<str>, Option<Arc<str>>)> {
        let declared = self.services.iter().map(|(name, d)| (Arc::clone(&d.settings.source), Some(Arc::clone(name))));
        let naming = self.sources.iter().filter(|(_, settings)| settings.names_services());
        declared.chain(naming.map(|(name, _)| (Arc::clone(name), None))).collect()
    }
}

fn keep<T: Clone + PartialEq>(new: &mut T, running: &T, key: &'static str, kept: &mut Vec<&'static str>) {
    if new != running {
        new.clone_from(running);
        kept.push(key);
    }
}
