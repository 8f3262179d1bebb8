//! What is known of one request and its response once they are over: plain data, and all that spans, metrics, logs and
//! records are made of.

pub mod taped;

use super::admission::Over;
use super::affinity;
use super::decision::{Decision, Fault, LogLine, Role};
use super::plan::Strategy;
use super::rate_limit::Standing;
use super::{Endpoint, Service};
use crate::base::time::Calendar;
use crate::base::trace::TraceContext;
use crate::http::error::Error;
use crate::http::request::{Head, Peer};
use crate::http::settings::AccessLog;
use smallvec::SmallVec;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// One request and its response with all that was measured.
#[derive(Debug)]
pub struct Record {
    /// Counts those of its worker, from 1; 0: it is the gateway's own.
    pub number: u64,
    /// What seeds the policies' random numbers follow from.
    pub seed: u64,
    /// When its head was there.
    pub started: Instant,
    /// What tells the same by the calendar; see [`Record::started_at`].
    pub calendar: Calendar,
    /// Its place in its trace.
    pub trace: TraceContext,
    /// Its line in the access log.
    pub access_log: AccessLog,
    /// Where the client connected from.
    pub peer: Arc<Peer>,
    /// The request's head, once it was checked.
    pub head: Option<Arc<Head>>,
    /// What the client was told that it is called; see `request_id`.
    pub request_id: Option<Box<str>>,
    /// Who the client has proved to be, as far as a middleware asked.
    pub user: Option<Arc<str>>,
    /// It is the gateway's own, for the sake of a client's request: of this middleware. It counts as no request.
    pub own: Option<By>,
    /// The middleware at which it ended: it answered it, or refused it.
    pub stopped_by: Option<By>,
    /// The middleware that could not find out whether it may pass, and let it.
    pub unchecked: Option<Arc<str>>,
    /// How it stands with the declared limits that are about it.
    pub rate_limit: Option<Standing>,
    /// Name of the declared route, or of the policy, that took it.
    pub route: Option<Arc<str>>,
    /// The service that it went to.
    pub service: Option<Arc<Service>>,
    /// How it stood with the endpoint that its client belongs to, where the service has that.
    pub affinity: Option<affinity::Standing>,
    /// Policies that were asked, in order.
    pub calls: SmallVec<[PolicyCall; 1]>,
    /// The same calls by value, where it is recorded.
    pub taped: Option<Box<taped::Taped>>,
    /// How long it waited for its service to have room for it.
    pub queued: Duration,
    /// Why that had none.
    pub over: Option<Over>,
    /// What was tried upstream, in order.
    pub attempts: SmallVec<[Attempt; 1]>,
    /// The status that the client was given; 0: none. A gRPC client is told of an error with a 200, which would tell
    /// nobody else; here stands what any other client would have been given.
    pub status: u16,
    /// The gateway answered itself, and why.
    pub error: Option<Error>,
    /// When the client may come again, s, where that is known.
    pub retry_after: Option<u64>,
    /// One more attempt would have been made, but the service's retry budget was spent.
    pub out_of_budget: bool,
    /// The client is a gateway that is trusted, and is asked not to try again.
    pub no_retry: bool,
    /// Bytes of the request's body that went upstream.
    pub request_bytes: u64,
    /// Bytes of the response's body that went to the client.
    pub response_bytes: u64,
    /// How it ended; that the client is gone, until it is known better.
    pub end: End,
}

impl Record {
    /// Of a request whose head came at `started`.
    pub fn new(
        started: Instant,
        calendar: Calendar,
        trace: TraceContext,
        access_log: AccessLog,
        peer: Arc<Peer>,
    ) -> Self {
        Record {
            number: 0,
            seed: 0,
            started,
            calendar,
            trace,
            access_log,
            peer,
            head: None,
            request_id: None,
            user: None,
            own: None,
            stopped_by: None,
            unchecked: None,
            rate_limit: None,
            route: None,
            service: None,
            affinity: None,
            calls: SmallVec::new(),
            taped: None,
            queued: Duration::ZERO,
            over: None,
            attempts: SmallVec::new(),
            status: 0,
            error: None,
            retry_after: None,
            out_of_budget: false,
            no_retry: false,
            request_bytes: 0,
            response_bytes: 0,
            end: End::ClientGone,
        }
    }

    /// When its head was there, by the calendar.
    pub fn started_at(&self) -> SystemTime {
        self.calendar.at(self.started)
    }

    /// The same, ms since 1970-01-01 UTC.
    pub fn unix_ms(&self) -> u64 {
        let since = self.started_at().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// When it was known where it goes, after the last policy's word, and its service had room for it.
    pub fn decided_at(&self) -> Instant {
        self.calls.last().map_or(self.started, |call| self.started + call.began + call.took) + self.queued
    }

    /// From its head to that of its response, or to the last failure, as far as a policy or an endpoint gave one.
    pub fn head_after(&self) -> Option<Duration> {
        let answered = self.attempts.iter().rev().find(|attempt| attempt.outcome.is_ok());
        match answered.or(self.attempts.last()) {
            Some(attempt) => Some(attempt.began + attempt.took),
            None => self.calls.last().map(|call| call.began + call.took),
        }
    }

    /// The declared limit that refused it.
    pub fn limited_by(&self) -> Option<&str> {
        self.rate_limit.as_ref().filter(|standing| standing.is_refusal()).map(|standing| &*standing.limit.name)
    }

    /// It is one of gRPC's calls.
    pub fn is_call(&self) -> bool {
        self.head.as_deref().is_some_and(crate::http::grpc::is_call)
    }
}

/// A declared middleware.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct By {
    /// Its name, which is nobody else's.
    pub name: Arc<str>,
    /// Its kind, as the configuration calls it.
    pub kind: &'static str,
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
    /// Id of the version that answered; none: nobody could be asked.
    pub version: Option<Arc<str>>,
    /// What that is to this request.
    pub role: Role,
    /// What it answered.
    pub decision: Decision,
    /// What it gave as its reason.
    pub reason: String,
    /// The strategy that it asked for.
    pub strategy: Option<Strategy>,
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
    pub strategy: Option<Strategy>,
    /// From how many.
    pub candidates: usize,
    /// Named endpoints that were passed over.
    pub passed_over: usize,
    /// So few were usable that it was chosen from all.
    pub panic: bool,
    /// It was made beside another one, which took long.
    pub hedge: bool,
    /// From the exchange's start.
    pub began: Duration,
    /// Until the response's head, or the failure.
    pub took: Duration,
    /// What came of it.
    pub outcome: Result<u16, AttemptError>,
    /// Why it failed, in the words of whoever found out.
    pub cause: Option<Box<str>>,
}

/// Why an attempt gave no response head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptError {
    /// No connection: nothing was sent.
    Connect,
    /// No connection in time: nothing was sent.
    ConnectTimeout,
    /// The gateway had no socket or file left for a connection, which says nothing of the endpoint: nothing was sent.
    NoSocket,
    /// No more connections may be open, or no more requests wait for one: nothing was sent.
    NoRoom,
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
    /// Another attempt that was made beside it was answered first.
    Outrun,
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
    pub const ALL: [AttemptError; 11] = [
        AttemptError::Connect,
        AttemptError::ConnectTimeout,
        AttemptError::NoSocket,
        AttemptError::NoRoom,
        AttemptError::Reset,
        AttemptError::Cancelled,
        AttemptError::Protocol,
        AttemptError::Timeout,
        AttemptError::ClientGone,
        AttemptError::Outrun,
        AttemptError::Unfinished,
    ];

    /// Nothing of the request was sent, so it may go to another endpoint whatever it asks for.
    pub fn is_unsent(self) -> bool {
        matches!(
            self,
            AttemptError::Connect | AttemptError::ConnectTimeout | AttemptError::NoSocket | AttemptError::NoRoom
        )
    }

    /// It says something of the endpoint.
    pub fn blames_endpoint(self) -> bool {
        use AttemptError::{ClientGone, NoRoom, NoSocket, Outrun, Unfinished};
        !matches!(self, NoSocket | NoRoom | ClientGone | Outrun | Unfinished)
    }

    /// As metrics and traces call it.
    pub fn name(self) -> &'static str {
        match self {
            AttemptError::Connect => "connect_failed",
            AttemptError::ConnectTimeout => "connect_timeout",
            AttemptError::NoSocket => "no_socket",
            AttemptError::NoRoom => "no_room",
            AttemptError::Reset => "reset",
            AttemptError::Cancelled => "cancelled",
            AttemptError::Protocol => "protocol",
            AttemptError::Timeout => "timeout",
            AttemptError::ClientGone => "client_gone",
            AttemptError::Outrun => "outrun",
            AttemptError::Unfinished => "unfinished",
        }
    }
}
