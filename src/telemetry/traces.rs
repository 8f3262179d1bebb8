//! The way of spans out of the process: a bounded queue, and a thread that sends what is in it over OTLP.

mod settings;
mod variables;

pub(super) use settings::Settings;

use crossbeam_queue::ArrayQueue;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Spans of one export; so many in the queue wake the thread before its time.
const BATCH: usize = 512;
/// How long what is in the queue at the end may take.
const LAST_FLUSH: Duration = Duration::from_secs(5);
/// The log tells of lost spans at most so often.
const TELL: Duration = Duration::from_secs(60);

/// The running export.
#[derive(Debug)]
pub(super) struct Traces {
    queue: Arc<Queue>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// From the workers to the thread. Nobody waits here.
#[derive(Debug)]
pub(super) struct Queue {
    /// The spans of an exchange each.
    waiting: ArrayQueue<Vec<SpanData>>,
    wake: Notify,
    /// When the end began.
    stopped: OnceLock<Instant>,
    counts: Counts,
}

/// How many spans there were, since the start.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Put into the queue.
    pub(super) queued: AtomicU64,
    /// Arrived at the collector.
    pub(super) exported: AtomicU64,
    /// Never put into the queue, since it was full.
    pub(super) queue_full: AtomicU64,
    /// Not taken by the collector.
    pub(super) not_taken: AtomicU64,
}

impl Queue {
    fn new(exchanges: usize) -> Self {
        Queue {
            waiting: ArrayQueue::new(exchanges.max(1)),
            wake: Notify::new(),
            stopped: OnceLock::new(),
            counts: Counts::default(),
        }
    }

    /// Queues an exchange's spans; builds none where there is no room.
    pub(super) fn push(&self, spans: usize, build: impl FnOnce() -> Vec<SpanData>) {
        let spans = spans as u64;
        if self.waiting.is_full() || self.waiting.push(build()).is_err() {
            self.counts.queue_full.fetch_add(spans, Relaxed);
            return;
        }
        let before = self.counts.queued.fetch_add(spans, Relaxed);
        // Once for each batch: waking costs a system call.
        if before / BATCH as u64 != (before + spans) / BATCH as u64 {
            self.wake.notify_one();
        }
    }

    /// The end began, and this is when it must be over.
    fn deadline(&self) -> Option<Instant> {
        self.stopped.get().map(|at| *at + LAST_FLUSH)
    }

    fn batch(&self) -> Vec<SpanData> {
        let mut batch = Vec::new();
        while batch.len() < BATCH
            && let Some(spans) = self.waiting.pop()
        {
            batch.extend(spans);
        }
        batch
    }
}

impl Traces {
    /// Starts the thread.
    ///
    /// # Errors
    /// The endpoint cannot be used, or the thread cannot be started.
    pub(super) fn start(settings: Settings) -> anyhow::Result<Self> {
        let queue = Arc::new(Queue::new(settings.queue));
        // tonic and reqwest need a runtime that outlives all others.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let exporter = settings.build(&runtime)?;
        let mut sender = Sender::new(Arc::clone(&queue), settings);
        let work = move || runtime.block_on(sender.run(exporter));
        let thread = std::thread::Builder::new().name("otlp".into()).spawn(work)?;
        Ok(Traces { queue, thread: Mutex::new(Some(thread)) })
    }

    /// For a worker.
    pub(super) fn queue(&self) -> Arc<Queue> {
        Arc::clone(&self.queue)
    }

    /// For `/metrics`.
    pub(super) fn counts(&self) -> &Counts {
        &self.queue.counts
    }

    /// Sends what is in the queue, for at most [`LAST_FLUSH`], and ends the thread.
    pub(super) fn stop(&self) {
        let _ = self.queue.stopped.set(Instant::now());
        self.queue.wake.notify_one();
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
    }
}

/// The thread's side.
struct Sender {
    queue: Arc<Queue>,
    settings: Settings,
    /// Spans lost that the log has not told yet.
    untold: u64,
    told: Option<Instant>,
    queue_full_told: u64,
}

impl Sender {
    fn new(queue: Arc<Queue>, settings: Settings) -> Self {
        Sender { queue, settings, untold: 0, told: None, queue_full_told: 0 }
    }

    /// Sends a batch after the other until the end, and then the rest.
    async fn run(&mut self, exporter: SpanExporter) {
        let queue = Arc::clone(&self.queue);
        while queue.deadline().is_none() {
            let _ = tokio::time::timeout(self.settings.delay, queue.wake.notified()).await;
            let mut full = true;
            while full && queue.deadline().is_none() {
                let batch = queue.batch();
                full = batch.len() >= BATCH;
                self.send(&exporter, batch).await;
            }
            self.tell("the queue was full: the collector is slower than the spans come");
        }
        loop {
            let batch = queue.batch();
            if batch.is_empty() {
                break;
            }
            self.send(&exporter, batch).await;
        }
        // What was told a moment ago does not matter at the end.
        self.told = None;
        self.tell("the end came before the collector took them");
    }

    async fn send(&mut self, exporter: &SpanExporter, batch: Vec<SpanData>) {
        if batch.is_empty() {
            return;
        }
        let spans = batch.len() as u64;
        let queue = &self.queue;
        let ended = async {
            loop {
                match queue.deadline() {
                    Some(deadline) => return tokio::time::sleep_until(deadline.into()).await,
                    None => queue.wake.notified().await,
                }
            }
        };
        let within = self.settings.timeout;
        let problem = tokio::select! {
            result = tokio::time::timeout(within, exporter.export(batch)) => match result {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some(format!("no answer within {within:?}")),
            },
            () = ended => Some("no answer before the end".to_owned()),
        };
        let counts = &self.queue.counts;
        match problem {
            None => {
                counts.exported.fetch_add(spans, Relaxed);
            }
            Some(problem) => {
                counts.not_taken.fetch_add(spans, Relaxed);
                self.untold += spans;
                self.tell(&problem);
            }
        }
    }

    /// Logs how many spans were lost since it last did, and why the last ones were.
    fn tell(&mut self, problem: &str) {
        let full = self.queue.counts.queue_full.load(Relaxed);
        self.untold += full - self.queue_full_told;
        self.queue_full_told = full;
        let recently = self.told.is_some_and(|told| told.elapsed() < TELL);
        if self.untold == 0 || recently {
            return;
        }
        let (endpoint, lost) = (&self.settings.endpoint, self.untold);
        tracing::warn!(%endpoint, lost, problem = %super::safe::OneLine(problem), "spans lost");
        self.told = Some(Instant::now());
        self.untold = 0;
    }
}

#[cfg(test)]
mod tests;
