//! Telling: traces, metrics, the access log and the policies' own lines, fed by each exchange when it finishes.
//!
//! A worker never waits for any of it: it counts in numbers of its own, and hands spans and lines to bounded queues whose
//! readers have threads of their own. What does not fit is dropped and counted.

mod access_log;
mod counter;
mod guest_log;
pub mod log;
mod metrics;
pub mod recording;
mod safe;
mod spans;
#[cfg(test)]
mod tests;
mod traces;

pub use counter::{Counter, Counters};

use crate::base::chance::Chance;
use crate::base::lines::{self, Lines};
use crate::base::trace::Sampler;
use crate::http::malformed::Malformed;
use crate::http::settings::{self, AccessLog};
use crate::service::record::Record;
use crate::service::record::taped::Taped;
use crate::snapshot::Snapshot;
use crate::snapshot::vitals::Vitals;
use recording::Recording;
use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the last lines of a log may take, should nobody read them.
const LAST_LINES: Duration = Duration::from_millis(500);

/// What all workers tell through, from the gateway's start until after their end.
#[derive(Debug)]
pub struct Telemetry {
    traces: Option<traces::Traces>,
    /// Where the configuration has no `sample`.
    sampler: Sampler,
    metrics: Arc<metrics::Registry>,
    access_log: Arc<Lines>,
    recording: Arc<Recording>,
}

impl Telemetry {
    /// Starts the threads behind the queues.
    ///
    /// # Errors
    /// The OTLP endpoint cannot be used, or a thread cannot be started.
    pub fn start(settings: &settings::Telemetry) -> anyhow::Result<Self> {
        let env = |name: &str| std::env::var(name).ok();
        let sampler = Sampler::of(env).unwrap_or(Sampler::DEFAULT);
        let exported = traces::Settings::of(settings.otlp.as_deref(), env).map_err(anyhow::Error::msg)?;
        let traces = match exported {
            Some(settings) => Some(traces::Traces::start(settings)?),
            None => None,
        };
        let metrics: Arc<metrics::Registry> = Arc::default();
        let recording = Arc::new(Recording::new(Arc::clone(&metrics.counters)));
        Ok(Telemetry { traces, sampler, metrics, access_log: Arc::clone(lines::output()), recording })
    }

    /// Can spans be exported as these and OpenTelemetry's variables say? Nothing is sent.
    ///
    /// # Errors
    /// What is wrong, with its key or variable.
    pub fn check(settings: &settings::Telemetry) -> anyhow::Result<()> {
        let exported = traces::Settings::of(settings.otlp.as_deref(), |name| std::env::var(name).ok());
        exported.map_err(anyhow::Error::msg)?.map_or(Ok(()), |settings| settings.check())
    }

    /// The record of decisions.
    pub fn recording(&self) -> &Arc<Recording> {
        &self.recording
    }

    /// What the worker with this number tells through.
    pub fn recorder(&self, worker: usize) -> Recorder {
        Recorder {
            worker: u32::try_from(worker).unwrap_or(u32::MAX),
            recording: Arc::clone(&self.recording),
            traces: self.traces.as_ref().map(traces::Traces::queue),
            sampler: self.sampler,
            metrics: metrics::Tally::new(&self.metrics),
            counters: Arc::clone(&self.metrics.counters),
            access_log: Arc::clone(&self.access_log),
            chance: RefCell::new(Chance::seeded()),
        }
    }

    /// The answer to `/metrics`: Prometheus text, format 0.0.4. `connections`: downstream, open now.
    pub fn metrics(&self, snapshot: &Snapshot, connections: usize, vitals: &Vitals) -> String {
        let spans = self.traces.as_ref().map(traces::Traces::counts);
        metrics::page(&self.metrics, snapshot, (connections, vitals), spans, self.access_log.dropped())
    }

    /// Hands over what the queues still hold, for a few seconds at most. For the end, when no worker runs any more.
    pub fn stop(&self) {
        self.access_log.flush(LAST_LINES);
        self.recording.stop(LAST_LINES);
        if let Some(traces) = &self.traces {
            traces.stop();
        }
    }
}

/// A worker's way to tell what happened. It never waits.
#[derive(Debug)]
pub struct Recorder {
    worker: u32,
    recording: Arc<Recording>,
    traces: Option<Arc<traces::Queue>>,
    sampler: Sampler,
    metrics: metrics::Tally,
    counters: Arc<Counters>,
    access_log: Arc<Lines>,
    /// For the ids of policies' spans.
    chance: RefCell<Chance>,
}

impl Recorder {
    /// An exchange begins.
    pub fn begin(&self) {
        self.metrics.begin();
    }

    /// Which traces are sampled. None: no spans are exported.
    pub fn sampler(&self, settings: &settings::Telemetry) -> Option<Sampler> {
        self.traces.as_ref().map(|_| settings.sample.map_or(self.sampler, Sampler::of_new_traces))
    }

    /// A client sent something that never became an record.
    pub fn refused(&self, bad: Malformed) {
        self.metrics.refused(bad);
    }

    /// One more of these.
    pub fn count(&self, counter: Counter) {
        self.counters.count(counter);
    }

    /// For whoever counts elsewhere.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Takes in an exchange that is over since `now`.
    pub fn finish(&self, record: &Record, now: Instant) {
        let took = now.saturating_duration_since(record.started);
        self.metrics.finish(record, took);
        guest_log::tell(record);
        if record.trace.sampled
            && let Some(traces) = &self.traces
        {
            traces.push(1 + record.calls.len() + record.attempts.len(), || {
                spans::build(record, took, &mut self.chance.borrow_mut())
            });
        }
        if record.access_log != AccessLog::Off {
            self.access_log.push(|| access_log::line(record, took));
        }
    }

    /// The decisions about the exchange with this seed are to be recorded.
    #[inline]
    pub fn records(&self, seed: u64) -> bool {
        self.recording.takes(seed)
    }

    /// Records the decisions about an exchange that is over since `now`.
    #[cold]
    pub fn record(&self, record: &Record, taped: &Taped, now: Instant) {
        let took = now.saturating_duration_since(record.started);
        self.recording.put(record, taped, (self.worker, took));
    }

    /// Forgets, after a while, the numbers of what no snapshot names any more, and takes over what is to be recorded.
    pub fn tidy(&self, snapshot: &Snapshot) {
        self.recording.configure(&snapshot.record);
        self.metrics.tidy(snapshot);
    }
}
