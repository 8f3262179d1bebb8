//! The files that a configuration consists of: its own, and those that it names. They are watched as one and read aside.
//! What would take away much of what is in force must still say so a while later: it may be half written.

use crate::base::watch::{self, Changes};
use crate::control::config::Config;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// How long after a doubtful reading it is read again.
const CONFIRM_AFTER: Duration = Duration::from_secs(3);
/// What was wrong with a configuration may lie in no file; then it is tried again after this time.
const TRY_AGAIN: Duration = Duration::from_secs(30);
/// Keys of kinds of middleware that name files.
const MIDDLEWARE_FILES: [&str; 3] = ["file", "jwks_file", "ca"];
/// From this many on, the loss of more than half is doubted.
const MANY: usize = 4;

/// Watched files, and what is read of them.
#[derive(Debug)]
pub(super) struct Files {
    file: PathBuf,
    changes: Changes,
    /// Set when they are to be read once more.
    again: bool,
    reading: Option<JoinHandle<Reading>>,
    /// When to read without a change.
    read_at: Option<Instant>,
    doubt: Doubt,
    /// What the file said when it was last taken over; none: not read yet by this.
    text: Option<String>,
}

/// What was read with the text that it was read from, and all files that it names, so that also those that are missing are watched.
type Reading = (Result<(Config, String), String>, BTreeSet<PathBuf>);

impl Files {
    /// Watches what `config` was read from.
    pub(super) fn new(config: &Config) -> Self {
        let connectors = config.services.values().filter_map(|declared| declared.tls.as_ref());
        let files = connectors.flat_map(|connector| connector.files.clone()).chain(config.middleware.files.clone());
        let rules = config.services.values().filter_map(|declared| declared.affinity.as_ref());
        let files = files.chain(rules.map(|rule| rule.keys.file.clone())).chain([config.file.clone()]);
        Files {
            file: config.file.clone(),
            changes: watch::files(files),
            again: false,
            reading: None,
            read_at: None,
            doubt: Doubt::default(),
            text: None,
        }
    }

    /// They are read once more, whether or not they changed.
    pub(super) fn read_again(&mut self) {
        self.again = true;
    }

    /// The configuration as it stands in the files now, after a change; or what is wrong with it, for which it is read again
    /// after a while. A wait that is broken off loses nothing.
    pub(super) async fn next(&mut self, running: &Config) -> Result<Config, String> {
        loop {
            // One at a time: should a file system not answer, not a thread more waits for it.
            if self.reading.is_none() && std::mem::take(&mut self.again) {
                let file = self.file.clone();
                self.reading = Some(tokio::task::spawn_blocking(move || read(&file)));
            }
            let (reading, read_at) = (&mut self.reading, self.read_at);
            let idle = reading.is_none();
            let ended = async {
                match reading {
                    Some(reading) => reading.await,
                    None => std::future::pending().await,
                }
            };
            let due = async {
                match read_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                ended = ended => {
                    self.reading = None;
                    let (read, files) = ended.unwrap_or_else(|error| (Err(error.to_string()), BTreeSet::new()));
                    self.changes.follow(files.into_iter().chain([self.file.clone()]));
                    return self.judge(read, running);
                }
                () = self.changes.next(), if idle => self.again = true,
                () = due, if idle => self.again = true,
            }
        }
    }

    fn judge(&mut self, read: Result<(Config, String), String>, running: &Config) -> Result<Config, String> {
        let now = Instant::now();
        let judged = read.and_then(|(new, text)| {
            let cut_off = self.text.as_ref().is_some_and(|whole| text.len() < whole.len() && whole.starts_with(&text));
            let lost = lost(running, &new).or_else(|| cut_off.then(|| "it ends early".to_owned()));
            match self.doubt.about(lost, &new.digest, now) {
                None => {
                    self.text = Some(text);
                    Ok(new)
                }
                Some((problem, confirm_at)) => {
                    self.read_at = Some(confirm_at);
                    Err(format!("{}: {problem}", self.file.display()))
                }
            }
        });
        if judged.is_ok() {
            self.read_at = None;
        }
        judged
    }

    /// What was read, or could not be, is not in force, for a reason that may lie in no file.
    pub(super) fn refused(&mut self) {
        let now = Instant::now();
        if self.read_at.is_none_or(|at| at <= now) {
            self.read_at = Some(now + TRY_AGAIN);
        }
    }
}

/// Reads the configuration, and finds what files it names, as far as it can be read. Blocks.
fn read(file: &Path) -> Reading {
    match Config::text(file) {
        Ok(text) => {
            let files = named(file, &text);
            (Config::parse(file, &text).map(|config| (config, text)).map_err(|error| error.to_string()), files)
        }
        Err(error) => (Err(error.to_string()), BTreeSet::new()),
    }
}

/// The files that a configuration's text names and that are read with it, whether or not it is good.
fn named(file: &Path, text: &str) -> BTreeSet<PathBuf> {
    let folder = file.parent().unwrap_or(Path::new(""));
    let path = |value: &toml::Value, keys: &[&str]| {
        let found = keys.iter().try_fold(value, |value, key| value.get(key));
        found.and_then(|found| found.as_str()).map(|path| folder.join(path))
    };
    let whole = toml::from_str(text).map_or(toml::Value::Boolean(false), toml::Value::Table);
    let services = whole.get("services").and_then(|services| services.as_table());
    let of_service: [&[&str]; 4] =
        [&["tls", "ca"], &["tls", "certificate", "chain"], &["tls", "certificate", "key"], &["sticky", "key_file"]];
    let of_services = services
        .into_iter()
        .flatten()
        .flat_map(|(_, service)| of_service.iter().filter_map(|keys| path(service, keys)));
    // Whatever the kind is called: `basic.file` and the like.
    let of_kind = |(_, kind): (&String, &toml::Value)| {
        MIDDLEWARE_FILES.iter().filter_map(|key| path(kind, &[key])).collect::<Vec<_>>()
    };
    let middleware = whole.get("middleware").and_then(|middleware| middleware.as_array());
    let of_middleware =
        middleware.into_iter().flatten().filter_map(toml::Value::as_table).flat_map(|one| one.iter().flat_map(of_kind));
    // The policies' directory is watched by itself once it is there.
    let directory = path(&whole, &["policies", "directory"]).filter(|directory| !directory.exists());
    of_services.chain(of_middleware).chain(directory).collect()
}

/// A configuration that is not taken over yet, since it lacks much of what is in force.
#[derive(Debug, Default)]
struct Doubt(Option<(String, Instant)>);

impl Doubt {
    /// Some: why the configuration of this digest is doubted, which lacks what is `lost`, and when to look whether it is
    /// still the same.
    fn about(&mut self, lost: Option<String>, digest: &str, now: Instant) -> Option<(String, Instant)> {
        let Some(lost) = lost else {
            self.0 = None;
            return None;
        };
        let confirm_at = match &self.0 {
            Some((doubted, confirm_at)) if doubted == digest && *confirm_at <= now => {
                self.0 = None;
                return None;
            }
            Some((doubted, confirm_at)) if doubted == digest => *confirm_at,
            _ => now + CONFIRM_AFTER,
        };
        self.0 = Some((digest.to_owned(), confirm_at));
        let after = humantime::format_duration(CONFIRM_AFTER);
        Some((format!("{lost}; this is taken over if the file still says so {after} later"), confirm_at))
    }
}

/// What of that which is declared would be lost, if it is much, or if nothing comes in its place.
fn lost(running: &Config, new: &Config) -> Option<String> {
    // What there is without `[gateway]`.
    let default = crate::http::settings::Gateway::default().listen;
    if new.gateway.listen == default && running.gateway.listen != default {
        return Some("it declares no listeners any more".to_owned());
    }
    if new.policies.is_none() && running.policies.is_some() {
        return Some("it declares no policies any more".to_owned());
    }
    let names = |config: &Config| {
        [
            ("sources", config.sources.keys().cloned().collect::<BTreeSet<_>>()),
            ("services", config.services.keys().cloned().collect()),
            ("middleware", config.middleware.all.iter().map(|one| one.name.clone()).collect()),
            ("rate limits", config.rate_limits.iter().map(|limit| limit.name.clone()).collect()),
            ("routes", config.routes.iter().map(|route| route.name.clone()).collect()),
        ]
    };
    for ((what, before), (_, now)) in names(running).into_iter().zip(names(new)) {
        let gone = before.difference(&now).count();
        if now.is_empty() && gone > 0 {
            return Some(format!("it declares no {what} any more"));
        }
        let only_gone = gone > 0 && now.is_subset(&before);
        if only_gone || before.len() >= MANY && gone * 2 > before.len() {
            return Some(format!("it lacks {gone} of {} {what}", before.len()));
        }
    }
    None
}

#[cfg(test)]
mod tests;
