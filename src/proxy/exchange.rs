//! One request and its response with all that was measured. It begins before anything is decided, and finishes exactly
//! once: when it is dropped, which is when the last byte of the response is gone or the client is.

use crate::base::trace::Context;
use crate::http::downstream::clock::Active;
use crate::http::error::Error;
use crate::http::request::{Head, Peer};
use crate::http::settings::{AccessLog, Telemetry};
use crate::policy::Version;
use crate::proxy::worker::Worker;
use crate::service::balance::Picked;
use crate::service::decision::{Fault, LogLine};
use crate::service::{Endpoint, Service};
use smallvec::SmallVec;
use std::cell::OnceCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// One request and its response.
#[derive(Debug)]
pub struct Exchange {
    /// Who carries it.
    pub worker: Rc<Worker>,
    /// When its head was there.
    pub started: Instant,
    /// The same by the calendar; see [`Exchange::started_at`].
    started_at: OnceCell<SystemTime>,
    /// Its place in its trace.
    pub trace: Context,
    /// Its line in the access log.
    pub access_log: AccessLog,
    /// Where the client connected from.
    pub peer: Arc<Peer>,
    /// Keeps the connection's idle timer still.
    pub active: Active,
    /// The request's head, once it was checked.
    pub head: Option<Arc<Head>>,
    /// Name of the declared route, or of the policy, that took it.
    pub route: Option<Arc<str>>,
    /// The service that it went to.
    pub service: Option<Arc<Service>>,
    /// Policies that were asked, in order.
    pub calls: SmallVec<[PolicyCall; 1]>,
    /// What was tried upstream, in order.
    pub attempts: SmallVec<[Attempt; 1]>,
    /// The status that the client was given; 0: none. A gRPC client is told of an error with a 200, which would tell
    /// nobody else; here stands what any other client would have been given.
    pub status: u16,
    /// The gateway answered itself, and why.
    pub error: Option<Error>,
    /// Bytes of the request's body that went upstream.
    pub request_bytes: u64,
    /// Bytes of the response's body that went to the client.
    pub response_bytes: u64,
    /// How it ended; set when it does.
    pub end: End,
}

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The whole response was handed over.
    Complete,
    /// The client went away before that.
    ClientGone,
    /// The upstream broke off in the middle of the body.
    UpstreamBroke,
    /// The whole time was over in the middle of the body.
    TimedOut,
}

/// One policy that was asked.
#[derive(Debug)]
pub struct PolicyCall {
    /// Its name.
    pub policy: Arc<str>,
    /// Who answered; none: nobody could be asked.
    pub version: Option<Arc<Version>>,
    /// `next`, `forward`, `respond` or `fault`.
    pub decision: &'static str,
    /// What it gave as its reason.
    pub reason: String,
    /// The strategy that it asked for.
    pub strategy: Option<&'static str>,
    /// The path that it sends upstream instead.
    pub path: Option<String>,
    /// The query that it sends upstream instead.
    pub query: Option<String>,
    /// Why there is no decision.
    pub fault: Option<Fault>,
    /// What it logged.
    pub logs: Vec<LogLine>,
    /// From the exchange's start.
    pub began: Duration,
    /// How long it took.
    pub took: Duration,
}

/// One try upstream.
#[derive(Debug)]
pub struct Attempt {
    /// Its span's id.
    pub span_id: u64,
    /// Where it went.
    pub endpoint: Arc<Endpoint>,
    /// How that was chosen; none: named by the policy.
    pub strategy: Option<&'static str>,
    /// From how many.
    pub candidates: usize,
    /// Named endpoints that were passed over.
    pub passed_over: usize,
    /// From the exchange's start.
    pub began: Duration,
    /// Until the response's head, or the failure.
    pub took: Duration,
    /// What came of it.
    pub outcome: Result<u16, AttemptError>,
}

/// Why an attempt gave no response head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptError {
    /// No connection: nothing was sent.
    Connect,
    /// No connection in time: nothing was sent.
    ConnectTimeout,
    /// The connection broke; something may have been sent.
    Reset,
    /// HTTP/2: the endpoint cancelled the request.
    Cancelled,
    /// What came back is no HTTP.
    Protocol,
    /// No response head in time.
    Timeout,
    /// The client's side of the body broke, so the upstream is not to blame.
    ClientGone,
    /// Still open.
    Unfinished,
}

impl End {
    /// As logs and traces call it.
    pub fn name(self) -> &'static str {
        match self {
            End::Complete => "complete",
            End::ClientGone => "client_gone",
            End::UpstreamBroke => "upstream_broke",
            End::TimedOut => "timed_out",
        }
    }
}

impl AttemptError {
    /// Each once, in the order of their declaration.
    pub const ALL: [AttemptError; 8] = [
        AttemptError::Connect,
        AttemptError::ConnectTimeout,
        AttemptError::Reset,
        AttemptError::Cancelled,
        AttemptError::Protocol,
        AttemptError::Timeout,
        AttemptError::ClientGone,
        AttemptError::Unfinished,
    ];

    /// As metrics and traces call it.
    pub fn name(self) -> &'static str {
        match self {
            AttemptError::Connect => "connect_failed",
            AttemptError::ConnectTimeout => "connect_timeout",
            AttemptError::Reset => "reset",
            AttemptError::Cancelled => "cancelled",
            AttemptError::Protocol => "protocol",
            AttemptError::Timeout => "timeout",
            AttemptError::ClientGone => "client_gone",
            AttemptError::Unfinished => "unfinished",
        }
    }
}

impl Exchange {
    /// Begins: takes the time, finds the trace.
    pub fn begin(
        worker: &Rc<Worker>,
        peer: Arc<Peer>,
        active: Active,
        headers: &http::HeaderMap,
        telemetry: &Telemetry,
    ) -> Box<Self> {
        worker.recorder.begin();
        let trace = Context::begin(headers, worker.recorder.sampler(telemetry), &mut worker.chance.borrow_mut());
        Box::new(Exchange {
            worker: Rc::clone(worker),
            started: Instant::now(),
            started_at: OnceCell::new(),
            trace,
            access_log: telemetry.access_log,
            peer,
            active,
            head: None,
            route: None,
            service: None,
            calls: SmallVec::new(),
            attempts: SmallVec::new(),
            status: 0,
            error: None,
            request_bytes: 0,
            response_bytes: 0,
            end: End::ClientGone,
        })
    }

    /// When its head was there, by the calendar. Worked out when it is first asked for, and the same from then on.
    pub fn started_at(&self) -> SystemTime {
        *self.started_at.get_or_init(|| self.worker.calendar.get().at(self.started))
    }

    /// The exchange's start, ms since 1970-01-01 UTC.
    pub fn unix_ms(&self) -> u64 {
        let since = self.started_at().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// Notes that an attempt begins now.
    pub fn attempt(&mut self, picked: &Picked, now: Instant) -> u64 {
        let span_id = self.worker.chance.borrow_mut().next_u64().max(1);
        self.attempts.push(Attempt {
            span_id,
            endpoint: Arc::clone(&picked.endpoint),
            strategy: picked.strategy.map(crate::service::plan::Strategy::name),
            candidates: picked.candidates,
            passed_over: picked.passed_over,
            began: now.saturating_duration_since(self.started),
            took: Duration::ZERO,
            outcome: Err(AttemptError::Unfinished),
        });
        span_id
    }

    /// Notes what came of the attempt that was begun last, and how long it took.
    pub fn attempted(&mut self, outcome: Result<u16, AttemptError>) -> Duration {
        let now = self.started.elapsed();
        let Some(attempt) = self.attempts.last_mut() else { return Duration::ZERO };
        attempt.outcome = outcome;
        attempt.took = now.saturating_sub(attempt.began);
        attempt.took
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.active.ended(self.end == End::ClientGone);
        let worker = Rc::clone(&self.worker);
        worker.recorder.finish(self);
    }
}
