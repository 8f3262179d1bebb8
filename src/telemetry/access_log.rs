//! The access log: one line on standard output for each exchange, from a bounded queue, written by a thread of its own.

use super::safe::{self, Quoted, Value, cut};
use super::spans::protocol;
use crate::http::settings::AccessLog;
use crate::service::record::Record;
use serde::Serialize;
use std::io::{BufWriter, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Lines that wait for the writer.
const QUEUE: usize = 8192;
/// How long the last lines may take, should nobody read them.
const LAST_LINES: Duration = Duration::from_secs(2);

/// The running log.
#[derive(Debug)]
pub(super) struct Log {
    lines: Mutex<Option<SyncSender<String>>>,
    dropped: Arc<AtomicU64>,
    /// Disconnected when the writer has ended.
    ended: Mutex<Receiver<()>>,
}

/// A worker's end of it.
#[derive(Debug)]
pub(super) struct Queue {
    /// None: the log has ended.
    lines: Option<SyncSender<String>>,
    dropped: Arc<AtomicU64>,
}

impl Queue {
    /// Queues a line, or counts it as dropped.
    pub(super) fn push(&self, line: impl FnOnce() -> String) {
        let sent = self.lines.as_ref().is_some_and(|lines| lines.try_send(line()).is_ok());
        if !sent {
            self.dropped.fetch_add(1, Relaxed);
        }
    }
}

impl Log {
    /// Starts the writer.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn start(to: impl Write + Send + 'static) -> std::io::Result<Self> {
        let (lines, queued) = mpsc::sync_channel(QUEUE);
        let (alive, ended) = mpsc::channel();
        let dropped = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&dropped);
        std::thread::Builder::new().name("access-log".into()).spawn(move || {
            write(&queued, to, &count);
            drop(alive);
        })?;
        Ok(Log { lines: Mutex::new(Some(lines)), dropped, ended: Mutex::new(ended) })
    }

    /// For a worker.
    pub(super) fn queue(&self) -> Queue {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        Queue { lines: lines.clone(), dropped: Arc::clone(&self.dropped) }
    }

    /// Lines that were not written.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Waits until all lines are written, but not for long. The workers' ends of the queue are gone by now.
    pub(super) fn stop(&self) {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).take();
        let _ = self.ended.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(LAST_LINES);
    }
}

/// Writes until the last sender is gone, in one piece what is there at once.
fn write(queued: &Receiver<String>, to: impl Write, dropped: &AtomicU64) {
    let mut to = BufWriter::with_capacity(64 << 10, to);
    while let Ok(first) = queued.recv() {
        let mut lines = 0;
        let mut written = Ok(());
        for line in std::iter::once(first).chain(queued.try_iter()).take(QUEUE) {
            lines += 1;
            written = written.and_then(|()| to.write_all(line.as_bytes()));
        }
        if written.and_then(|()| to.flush()).is_err() {
            // Nobody reads any more; somebody may later.
            dropped.fetch_add(lines, Relaxed);
        }
    }
}

/// What a line says. As JSON, fields that say nothing are left out.
#[derive(Serialize)]
struct Entry<'a> {
    time: String,
    /// Who a trusted proxy says it is, else the peer.
    client: std::net::IpAddr,
    /// Who connected, where that is somebody else.
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<std::net::IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_subject: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    method: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    host: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<std::borrow::Cow<'a, str>>,
    protocol: &'static str,
    /// 0: the client had none.
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    /// The last one that was tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<std::net::SocketAddr>,
    attempts: usize,
    /// Why the last one of them failed, where one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'a str>,
    /// The last one that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    request_bytes: u64,
    response_bytes: u64,
    duration_ms: f64,
    end: &'static str,
    trace_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<String>,
}

impl<'a> Entry<'a> {
    fn new(record: &'a Record, took: Duration) -> Self {
        let head = record.head.as_ref();
        let client = head.map_or(record.peer.ip, |head| head.client);
        let call = record.calls.last();
        let agent = head.and_then(|head| head.parts.headers.get(http::header::USER_AGENT));
        Entry {
            time: humantime::format_rfc3339_millis(record.started_at()).to_string(),
            client,
            peer: Some(record.peer.ip).filter(|peer| *peer != client),
            tls_subject: record.peer.tls_subject.as_deref().map(cut),
            method: head.map_or("", |head| cut(head.parts.method.as_str())),
            host: head.map_or("", |head| cut(head.host())),
            path: head.map_or("", |head| cut(head.path())),
            query: head.and_then(|head| head.query()).map(safe::query),
            protocol: head.map_or("", |head| protocol(head.parts.version)),
            status: record.status,
            error: record.error.map(crate::http::error::Error::code),
            route: record.route.as_deref().map(cut),
            service: record.service.as_ref().map(|service| cut(&service.name)),
            endpoint: record.attempts.last().map(|attempt| attempt.endpoint.address),
            attempts: record.attempts.len(),
            cause: record.attempts.iter().rev().find_map(|attempt| attempt.cause.as_deref()).map(cut),
            policy: call.map(|call| cut(&call.policy)),
            version: call.and_then(|call| call.version.as_deref()),
            decision: call.map(|call| call.decision.name()),
            reason: call.map(|call| cut(&call.reason)).filter(|reason| !reason.is_empty()),
            request_bytes: record.request_bytes,
            response_bytes: record.response_bytes,
            // Whole microseconds.
            duration_ms: took.as_micros() as f64 / 1000.0,
            end: record.end.name(),
            trace_id: format!("{:032x}", record.trace.trace_id),
            user_agent: agent.map(safe::header),
        }
    }

    /// `TIME CLIENT "METHOD HOST PATH HTTP/V" STATUS IN/OUT MSms key=value…`
    fn text(&self) -> String {
        use std::fmt::Write as _;
        let mut line = String::with_capacity(512);
        let mark = if self.query.is_some() { "?" } else { "" };
        let query = self.query.as_deref().unwrap_or("");
        // Writing into a string does not fail.
        let _ = write!(line, "{} {} \"{} ", self.time, self.client, Quoted(self.method));
        let _ = write!(line, "{}{}{mark}{} ", Quoted(self.host), Quoted(self.path), Quoted(query));
        let _ = write!(line, "HTTP/{}\" {} ", self.protocol, self.status);
        let _ = write!(line, "{}B/{}B {:.3}ms", self.request_bytes, self.response_bytes, self.duration_ms);
        let endpoint = self.endpoint.map(|endpoint| endpoint.to_string());
        let peer = self.peer.map(|peer| peer.to_string());
        let attempts = (self.attempts > 1).then(|| self.attempts.to_string());
        let pairs = [
            ("error", self.error),
            ("end", (self.end != "complete").then_some(self.end)),
            ("route", self.route),
            ("service", self.service),
            ("endpoint", endpoint.as_deref()),
            ("attempts", attempts.as_deref()),
            ("cause", self.cause),
            ("policy", self.policy),
            ("version", self.version),
            ("decision", self.decision),
            ("reason", self.reason),
            ("trace", Some(&*self.trace_id)),
            ("peer", peer.as_deref()),
            ("subject", self.tls_subject),
            ("agent", self.user_agent.as_deref()),
        ];
        for (key, value) in pairs {
            if let Some(value) = value {
                let _ = write!(line, " {key}={}", Value(value));
            }
        }
        line
    }
}

/// An exchange's line, with its end.
pub(super) fn line(record: &Record, took: Duration) -> String {
    let entry = Entry::new(record, took);
    let mut line = match record.access_log {
        // Text and numbers are always valid JSON.
        AccessLog::Json => serde_json::to_string(&entry).unwrap_or_default(),
        AccessLog::Text | AccessLog::Off => entry.text(),
    };
    line.push('\n');
    line
}
