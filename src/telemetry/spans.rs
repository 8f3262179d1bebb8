//! The spans of one exchange, after OpenTelemetry's semantic conventions for HTTP: the server's, one for each policy that
//! was asked, one for each attempt upstream.

use super::safe::{self, cut};
use crate::base::chance::Chance;
use crate::service::decision::Decision;
use crate::service::plan::Strategy;
use crate::service::record::{Attempt, AttemptError, End, PolicyCall, Record};
use opentelemetry::trace::{Event, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use std::borrow::Cow;
use std::sync::LazyLock;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

/// Methods that the conventions know; others are `_OTHER`, so that nobody can make up span names.
const METHODS: [&str; 10] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE", "QUERY"];

/// In place of a strategy: the policy named the endpoint.
const NAMED: &str = "named by policy";
/// The same: its client belongs to that endpoint.
const HELD: &str = "affinity";

static SCOPE: LazyLock<InstrumentationScope> =
    LazyLock::new(|| InstrumentationScope::builder("wayside").with_version(env!("CARGO_PKG_VERSION")).build());

/// All spans of an exchange that took so long.
pub(super) fn build(record: &Record, took: Duration, chance: &mut Chance) -> Vec<SpanData> {
    let trace = Trace::new(record);
    let mut spans = Vec::with_capacity(1 + record.calls.len() + record.attempts.len());
    spans.push(server(&trace, took));
    for call in &record.calls {
        let span_id = chance.next_u64().max(1);
        spans.push(policy(&trace, call, span_id));
    }
    for (number, attempt) in record.attempts.iter().enumerate() {
        spans.push(client(&trace, attempt, number, took));
    }
    spans
}

/// What the spans of one exchange share.
struct Trace<'a> {
    record: &'a Record,
    state: TraceState,
    method: &'static str,
}

impl<'a> Trace<'a> {
    fn new(record: &'a Record) -> Self {
        let state = record.trace.state.as_ref().and_then(|state| std::str::from_utf8(state).ok());
        let state = state.and_then(|state| state.parse().ok()).unwrap_or_default();
        let method = record.head.as_ref().map_or("", |head| head.parts.method.as_str());
        let method = METHODS.into_iter().find(|known| *known == method).unwrap_or("_OTHER");
        Trace { record, state, method }
    }

    /// The conventions call a method that they don't know `HTTP` in names.
    fn named(&self) -> &'static str {
        if self.method == "_OTHER" { "HTTP" } else { self.method }
    }

    fn span(
        &self,
        span_id: u64,
        kind: SpanKind,
        name: Cow<'static, str>,
        began: Duration,
        ended: Duration,
    ) -> SpanData {
        let trace = &self.record.trace;
        let server = span_id == trace.span_id;
        let parent = if server { trace.parent.unwrap_or(0) } else { trace.span_id };
        SpanData {
            span_context: SpanContext::new(
                trace.trace_id.into(),
                span_id.into(),
                TraceFlags::SAMPLED,
                false,
                self.state.clone(),
            ),
            parent_span_id: SpanId::from(parent),
            parent_span_is_remote: server && parent != 0 && self.record.own.is_none(),
            span_kind: kind,
            name,
            start_time: self.at(began),
            end_time: self.at(ended),
            attributes: Vec::with_capacity(24),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: SCOPE.clone(),
        }
    }

    /// The calendar's time so long after the exchange's start.
    fn at(&self, after: Duration) -> SystemTime {
        self.record.started_at() + after
    }
}

fn server(trace: &Trace<'_>, took: Duration) -> SpanData {
    let record = trace.record;
    let (kind, name) = match (&record.own, &record.route) {
        (Some(by), _) => (SpanKind::Internal, Cow::Owned(format!("middleware {}", cut(&by.name)))),
        (None, Some(route)) => (SpanKind::Server, Cow::Owned(format!("{} {}", trace.named(), cut(route)))),
        (None, None) => (SpanKind::Server, Cow::Borrowed(trace.named())),
    };
    let mut span = trace.span(record.trace.span_id, kind, name, Duration::ZERO, took);
    let mut set = |key: &'static str, value: Value| span.attributes.push(KeyValue::new(key, value));
    set("http.request.method", trace.method.into());
    if let Some(head) = &record.head {
        if trace.method == "_OTHER" {
            set("http.request.method_original", text(head.parts.method.as_str()));
        }
        set("url.scheme", head.scheme().into());
        set("url.path", text(head.path()));
        if let Some(query) = head.query() {
            set("url.query", safe::query(query).into_owned().into());
        }
        if !head.host().is_empty() {
            set("server.address", text(head.host()));
        }
        if let Some(port) = port(head) {
            set("server.port", port.into());
        }
        set("client.address", head.client.to_string().into());
        if let Some(subject) = &head.peer.tls_subject {
            set("tls.client.subject", cut(subject).to_owned().into());
        }
        set("network.protocol.name", "http".into());
        set("network.protocol.version", protocol(head.parts.version).into());
        if let Some(agent) = head.parts.headers.get("user-agent") {
            set("user_agent.original", safe::header(agent).into());
        }
    }
    set("network.peer.address", record.peer.ip.to_string().into());
    set("network.peer.port", i64::from(record.peer.address.port()).into());
    if let Some(route) = &record.route {
        set("http.route", text(route));
    }
    if let Some(limit) = record.limited_by() {
        set("wayside.rate_limit", text(limit));
    }
    if let Some(by) = record.stopped_by.as_ref().or(record.own.as_ref()) {
        set("wayside.middleware", text(&by.name));
        set("wayside.middleware.kind", by.kind.into());
    }
    if let Some(name) = &record.unchecked {
        set("wayside.unchecked", text(name));
    }
    if record.status > 0 {
        set("http.response.status_code", i64::from(record.status).into());
    }
    set("http.request.body.size", count(record.request_bytes));
    set("http.response.body.size", count(record.response_bytes));
    if let Some(service) = &record.service {
        set("wayside.service", text(&service.name));
        set("wayside.service.revision", text(&service.reported.revision));
        set("wayside.service.age_ms", count(u64::try_from(service.age().as_millis()).unwrap_or(u64::MAX)));
        let doubts = [
            ("wayside.service.stale", service.live.stale.load(Relaxed)),
            ("wayside.service.partial", service.live.partial.load(Relaxed)),
            ("wayside.service.held", service.reported.held.is_some()),
        ];
        doubts.into_iter().filter(|(_, is)| *is).for_each(|(key, _)| set(key, true.into()));
    }
    // The policy that decided is the one that was asked last.
    if let Some(call) = record.calls.last() {
        decided(call, &mut set);
    }
    if !record.queued.is_zero() {
        set("wayside.queued_ms", (record.queued.as_micros() as f64 / 1000.0).into());
    }
    if let Some(over) = record.over {
        set("wayside.over", over.name().into());
    }
    if let Some(standing) = record.affinity {
        set("wayside.affinity", standing.name().into());
    }
    if record.out_of_budget {
        set("wayside.retry_budget_spent", true.into());
    }
    set("wayside.end", record.end.name().into());
    let broke = matches!(record.end, End::UpstreamBroke | End::TimedOut);
    let kind: Option<Cow<'static, str>> = match (record.error, record.end) {
        (Some(error), _) => Some(error.code().into()),
        (None, _) if record.status >= 500 => Some(record.status.to_string().into()),
        (None, End::Complete) => None,
        (None, end) => Some(end.name().into()),
    };
    if let Some(kind) = kind {
        set("error.type", kind.into_owned().into());
    }
    if record.status >= 500 || broke {
        span.status = Status::error(record.error.map_or("", crate::http::error::Error::reason));
    }
    span
}

fn policy(trace: &Trace<'_>, call: &PolicyCall, span_id: u64) -> SpanData {
    let name = format!("policy {}", cut(&call.policy)).into();
    let ended = call.began + call.took;
    let mut span = trace.span(span_id, SpanKind::Internal, name, call.began, ended);
    let mut set = |key: &'static str, value: Value| span.attributes.push(KeyValue::new(key, value));
    decided(call, &mut set);
    if call.decision == Decision::Forward {
        // What it decided is what was done.
        if let Some(service) = &trace.record.service {
            set("wayside.service", text(&service.name));
        }
        let attempt = trace.record.attempts.first();
        let used = attempt.map(|attempt| strategy(trace.record, attempt));
        if let Some(strategy) = call.strategy.map(Strategy::name).or(used) {
            set("wayside.strategy", strategy.into());
        }
        if let Some(attempt) = attempt {
            set("wayside.candidates", count(attempt.candidates as u64));
        }
    }
    if let Some(fault) = &call.fault {
        set("wayside.fault", fault.kind.name().into());
        set("wayside.fault.message", text(&fault.message));
        set("error.type", fault.kind.name().into());
        span.status = Status::error(cut(&fault.message).to_owned());
    }
    let at = trace.at(ended);
    span.events.events = call
        .logs
        .iter()
        .map(|line| {
            let level = KeyValue::new("wayside.log.level", line.level.as_str());
            Event::new("log", at, vec![level, KeyValue::new("wayside.log.message", text(&line.message))], 0)
        })
        .collect();
    span
}

/// Who decided what and why: on the policy's own span, and on the server's, so that one look suffices.
fn decided(call: &PolicyCall, set: &mut impl FnMut(&'static str, Value)) {
    set("wayside.policy", text(&call.policy));
    if let Some(version) = &call.version {
        set("wayside.policy.version", text(version));
        set("wayside.policy.role", call.role.name().into());
    }
    set("wayside.decision", call.decision.name().into());
    if !call.reason.is_empty() {
        set("wayside.reason", text(&call.reason));
    }
}

/// How the attempt's endpoint was chosen.
fn strategy(record: &Record, attempt: &Attempt) -> &'static str {
    let other = if record.affinity.is_some() { HELD } else { NAMED };
    attempt.strategy.map_or(other, Strategy::name)
}

/// One attempt; `number` from 0.
fn client(trace: &Trace<'_>, attempt: &Attempt, number: usize, whole: Duration) -> SpanData {
    let unfinished = attempt.outcome == Err(AttemptError::Unfinished);
    let ended = if unfinished { whole.max(attempt.began) } else { attempt.began + attempt.took };
    let mut span = trace.span(attempt.span_id, SpanKind::Client, trace.named().into(), attempt.began, ended);
    let mut set = |key: &'static str, value: Value| span.attributes.push(KeyValue::new(key, value));
    let address = attempt.endpoint.address;
    let ip = address.ip().to_string();
    set("http.request.method", trace.method.into());
    set("url.full", url(trace.record, attempt).into());
    set("server.address", ip.clone().into());
    set("server.port", i64::from(address.port()).into());
    set("network.peer.address", ip.into());
    set("network.peer.port", i64::from(address.port()).into());
    if number > 0 {
        set("http.request.resend_count", count(number as u64));
    }
    set("wayside.service", text(&attempt.endpoint.service));
    set("wayside.endpoint", address.to_string().into());
    set("wayside.strategy", strategy(trace.record, attempt).into());
    set("wayside.candidates", count(attempt.candidates as u64));
    if attempt.passed_over > 0 {
        set("wayside.passed_over", count(attempt.passed_over as u64));
    }
    if attempt.hedge {
        set("wayside.hedge", true.into());
    }
    if attempt.panic {
        set("wayside.panic", true.into());
    }
    let failed: Option<Cow<'static, str>> = match attempt.outcome {
        Ok(status) => {
            set("http.response.status_code", i64::from(status).into());
            (status >= 400).then(|| status.to_string().into())
        }
        // No fault of anybody's.
        Err(AttemptError::Outrun) => {
            set("wayside.outrun", true.into());
            None
        }
        Err(error) => Some(error.name().into()),
    };
    if let Some(kind) = failed {
        set("error.type", kind.into_owned().into());
        if let Some(cause) = &attempt.cause {
            set("wayside.cause", text(cause));
        }
        span.status = Status::error(attempt.cause.as_deref().map_or("", cut).to_owned());
    }
    span
}

/// Where the attempt went, with what a policy changed.
fn url(record: &Record, attempt: &Attempt) -> String {
    let Some(head) = &record.head else { return String::new() };
    let decided = record.calls.iter().find(|call| call.decision == Decision::Forward);
    let path = decided.and_then(|call| call.path.as_deref()).unwrap_or_else(|| head.path());
    let query = decided.and_then(|call| call.query.as_deref()).or_else(|| head.query());
    let query = query.filter(|query| !query.is_empty()).map(safe::query);
    let mark = if query.is_some() { "?" } else { "" };
    let over_tls = record.service.as_ref().is_some_and(|service| service.tls.is_some());
    let scheme = if over_tls { "https" } else { "http" };
    format!("{scheme}://{}{}{mark}{}", attempt.endpoint.address, cut(path), query.unwrap_or_default())
}

/// The port that the client asked for, where it named one.
fn port(head: &crate::http::request::Head) -> Option<i64> {
    let authority = head.parts.headers.get("host")?;
    let port = std::str::from_utf8(authority).ok()?.rsplit_once(':')?.1;
    port.parse::<u16>().ok().map(i64::from)
}

/// As `network.protocol.version` has it.
pub(super) fn protocol(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_09 => "0.9",
        http::Version::HTTP_10 => "1.0",
        http::Version::HTTP_2 => "2",
        http::Version::HTTP_3 => "3",
        _ => "1.1",
    }
}

fn text(text: &str) -> Value {
    cut(text).to_owned().into()
}

fn count(number: u64) -> Value {
    i64::try_from(number).unwrap_or(i64::MAX).into()
}
