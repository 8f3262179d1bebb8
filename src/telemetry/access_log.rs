//! The access log: what is told of each exchange, in one line on standard output.

use super::safe::{self, Quoted, Value, cut};
use super::spans::protocol;
use crate::http::settings::AccessLog;
use crate::service::admission::Over;
use crate::service::affinity::Standing;
use crate::service::record::Record;
use serde::Serialize;
use std::time::Duration;

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
    /// The declared limit that refused it.
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_limit: Option<&'a str>,
    /// Its service had no room for it, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    over: Option<&'static str>,
    /// How long it waited for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    queued_ms: Option<f64>,
    /// The middleware at which it ended, and its kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    middleware: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    middleware_kind: Option<&'static str>,
    /// The middleware that let it pass without having found out whether it may.
    #[serde(skip_serializing_if = "Option::is_none")]
    unchecked: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    /// The last one that was tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<std::net::SocketAddr>,
    attempts: usize,
    /// How it stood with its client's endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    affinity: Option<&'static str>,
    /// The last one was chosen from all endpoints, since too few were usable.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    panic: bool,
    /// One more would have been made, but for the retry budget.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    retry_budget_spent: bool,
    /// Why the last one of them failed, where one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'a str>,
    /// The last one that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    /// What that version is to this request.
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
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
    request_id: Option<&'a str>,
    /// Who it proved to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<String>,
}

impl<'a> Entry<'a> {
    fn new(record: &'a Record, took: Duration) -> Self {
        let head = record.head.as_ref();
        let client = head.map_or(record.peer.ip, |head| head.client);
        let call = record.calls.last();
        let agent = head.and_then(|head| head.parts.headers.get("user-agent"));
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
            rate_limit: record.limited_by(),
            over: record.over.map(Over::name),
            queued_ms: Some(ms(record.queued)).filter(|ms| *ms > 0.0),
            middleware: record.stopped_by.as_ref().map(|by| cut(&by.name)),
            middleware_kind: record.stopped_by.as_ref().map(|by| by.kind),
            unchecked: record.unchecked.as_deref().map(cut),
            route: record.route.as_deref().map(cut),
            service: record.service.as_ref().map(|service| cut(&service.name)),
            endpoint: record.attempts.last().map(|attempt| attempt.endpoint.address),
            attempts: record.attempts.len(),
            affinity: record.affinity.map(Standing::name),
            panic: record.attempts.last().is_some_and(|attempt| attempt.panic),
            retry_budget_spent: record.out_of_budget,
            cause: record.attempts.iter().rev().find_map(|attempt| attempt.cause.as_deref()).map(cut),
            policy: call.map(|call| cut(&call.policy)),
            version: call.and_then(|call| call.version.as_deref()),
            role: call.filter(|call| call.version.is_some()).map(|call| call.role.name()),
            decision: call.map(|call| call.decision.name()),
            reason: call.map(|call| cut(&call.reason)).filter(|reason| !reason.is_empty()),
            request_bytes: record.request_bytes,
            response_bytes: record.response_bytes,
            duration_ms: ms(took),
            end: record.end.name(),
            trace_id: format!("{:032x}", record.trace.trace_id),
            user: record.user.as_deref().map(cut),
            request_id: record.request_id.as_deref().map(cut),
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
        let queued = self.queued_ms.map(|ms| format!("{ms:.3}ms"));
        let attempts = (self.attempts > 1).then(|| self.attempts.to_string());
        let pairs = [
            ("error", self.error),
            ("end", (self.end != "complete").then_some(self.end)),
            ("rate_limit", self.rate_limit),
            ("over", self.over),
            ("queued", queued.as_deref()),
            ("middleware", self.middleware),
            ("middleware_kind", self.middleware_kind),
            ("unchecked", self.unchecked),
            ("route", self.route),
            ("service", self.service),
            ("endpoint", endpoint.as_deref()),
            ("attempts", attempts.as_deref()),
            ("affinity", self.affinity),
            ("panic", self.panic.then_some("true")),
            ("retry_budget_spent", self.retry_budget_spent.then_some("true")),
            ("cause", self.cause),
            ("policy", self.policy),
            ("version", self.version),
            ("role", self.role),
            ("decision", self.decision),
            ("reason", self.reason),
            ("trace", Some(&*self.trace_id)),
            ("request_id", self.request_id),
            ("user", self.user),
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

/// In whole microseconds.
fn ms(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
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
