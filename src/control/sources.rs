//! The sources that run: begun, ended or left alone as the configuration says.

use crate::control::config::Config;
use crate::discovery::backoff::Backoff;
use crate::discovery::{Lookup, Observed, Report, Reports, Source, SourceSettings};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// The sources that run.
pub(super) struct Sources {
    running: BTreeMap<Arc<str>, Running>,
    to: mpsc::Sender<(Arc<str>, Report)>,
    /// What the last process knew: by source.
    before: Vec<(Arc<str>, Lookup, Arc<Observed>)>,
}

/// One source; dropping it ends its watch.
struct Running {
    settings: SourceSettings,
    source: Arc<dyn Source>,
    lookups: Vec<Lookup>,
    watch: tokio::task::AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

/// Watches for ever: a watch that ends or panics is a bug of ours, which is reported, and begun again.
async fn watch(source: Arc<dyn Source>, lookups: Vec<Lookup>, reports: Reports) {
    let mut backoff = Backoff::seeded();
    loop {
        // On a task of its own, which ends with this one.
        let mut watch = JoinSet::new();
        watch.spawn(source.watch(lookups.clone(), reports.clone()));
        let ended = watch.join_next().await;
        let problem = match ended {
            Some(Err(error)) => format!("its watch ended: {error}"),
            _ => "its watch ended".to_owned(),
        };
        tracing::error!(source = %reports.source, problem, "a source is watched anew");
        reports.send(Report::Failed(None, problem)).await;
        tokio::time::sleep(backoff.wait()).await;
    }
}

impl Sources {
    /// None yet; their reports will go to `to`.
    pub(super) fn new(to: mpsc::Sender<(Arc<str>, Report)>) -> Self {
        Sources { running: BTreeMap::new(), to, before: Vec::new() }
    }

    /// The last process knew this.
    pub(super) fn remember(&mut self, source: Arc<str>, lookup: Lookup, observed: Arc<Observed>) {
        self.before.push((source, lookup, observed));
    }

    /// Builds what `config` declares, aside. A source whose settings stay is kept: it remembers what it confirmed.
    ///
    /// # Errors
    /// The source that cannot be built, and why.
    pub(super) fn build(&self, config: &Config) -> Result<BTreeMap<Arc<str>, Arc<dyn Source>>, String> {
        let build = |(name, settings): (&Arc<str>, &SourceSettings)| {
            let source = match self.running.get(name).filter(|running| running.settings == *settings) {
                Some(running) => Arc::clone(&running.source),
                None => settings.build().map_err(|problem| format!("sources.{name}: {problem}"))?,
            };
            Ok((Arc::clone(name), source))
        };
        config.sources.iter().map(build).collect()
    }

    /// Watches with what [`Sources::build`] gave for this configuration.
    pub(super) fn switch(&mut self, config: &Config, built: BTreeMap<Arc<str>, Arc<dyn Source>>) {
        for (source, lookup, observed) in self.before.drain(..) {
            if let Some(source) = built.get(&source) {
                source.remember(&lookup, &observed);
            }
        }
        self.running.retain(|name, _| built.contains_key(name));
        for (name, source) in built {
            let Some(settings) = config.sources.get(&name) else { continue };
            let lookups = config.lookups(&name);
            let goes_on = |running: &Running| Arc::ptr_eq(&running.source, &source) && running.lookups == lookups;
            if self.running.get(&name).is_some_and(goes_on) {
                continue;
            }
            let reports = Reports { source: Arc::clone(&name), to: self.to.clone() };
            let watch = tokio::spawn(watch(Arc::clone(&source), lookups.clone(), reports)).abort_handle();
            self.running.insert(name, Running { settings: settings.clone(), source, lookups, watch });
        }
    }
}
