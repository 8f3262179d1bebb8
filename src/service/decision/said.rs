//! A decision by value: nothing in it points anywhere, two that are alike are equal, byte for byte, and it can be written
//! down and read back.

use super::{Answer, Edits, FaultKind, Forward, Outcome};
use crate::http::headers::edit::HeaderEdit;
use crate::service::plan::{Plan, Strategy};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What a policy decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Said {
    /// Not its request.
    Next,
    /// To a service.
    Forward(Box<Sent>),
    /// An answer of its own.
    Respond(Answered),
    /// It went wrong.
    Fault(FaultKind, String),
}

/// A forward.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// The service's name.
    pub service: String,
    /// How an endpoint is picked.
    pub strategy: Option<Strategy>,
    /// For strategies that go by one.
    pub key: Option<String>,
    /// Numbers of endpoints, in order.
    pub endpoints: Vec<u32>,
    /// Pairs that an endpoint must have.
    pub subset: Vec<(String, String)>,
    /// Pairs that it had better have.
    pub prefer: Vec<Vec<(String, String)>>,
    /// The whole exchange, ms.
    pub timeout_ms: Option<u64>,
    /// One attempt, ms.
    pub attempt_timeout_ms: Option<u64>,
    /// Attempts, the first one counted.
    pub max_attempts: Option<u32>,
    /// Statuses that are tried again.
    pub retry_status: Vec<u16>,
    /// With whom it waits, and its places.
    pub queue: Option<(String, u32)>,
    /// On the request.
    pub request: Vec<Edit>,
    /// On the response.
    pub response: Vec<Edit>,
    /// A new path.
    pub path: Option<String>,
    /// A new query.
    pub query: Option<String>,
    /// A new authority.
    pub host: Option<String>,
}

/// One change to a header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Edit {
    /// One line of this name, in place of all.
    Set(String, String),
    /// One line more.
    Append(String, String),
    /// No line of this name.
    Remove(String),
}

/// An answer of a policy's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// 200 to 599.
    pub status: u16,
    /// In this order.
    pub headers: Vec<(String, String)>,
    /// Its text.
    pub body: String,
}

impl Said {
    /// The same as an outcome.
    pub fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Next => Said::Next,
            Outcome::Forward(forward) => Said::Forward(Box::new(Sent::of(forward))),
            Outcome::Respond(answer) => Said::Respond(Answered::of(answer)),
            Outcome::Fault(fault) => Said::Fault(fault.kind, fault.message.clone()),
        }
    }

    /// What sort it is, in the words of logs and metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Said::Next => "next",
            Said::Forward(_) => "forward",
            Said::Respond(_) => "respond",
            Said::Fault(..) => "fault",
        }
    }

    /// The service that it names.
    pub fn service(&self) -> Option<&str> {
        match self {
            Said::Forward(sent) => Some(&sent.service),
            _ => None,
        }
    }

    /// It came of the machine, its load or the instance's past, not of what was asked: asked again, it may come out otherwise.
    pub fn is_of_environment(&self) -> bool {
        match self {
            Said::Fault(FaultKind::Trap, message) => message.contains(STACK),
            Said::Fault(kind, _) => !matches!(kind, FaultKind::Wait | FaultKind::BadAnswer | FaultKind::Error),
            _ => false,
        }
    }

    /// The one form of this decision: those that are alike have the same bytes (postcard).
    pub fn bytes(&self) -> Vec<u8> {
        // Nothing in it can fail to be written.
        postcard::to_allocvec(self).unwrap_or_default()
    }

    /// Lines of `Set-Cookie` that it gives the client.
    pub fn cookies(&self) -> Vec<&str> {
        match self {
            Said::Forward(sent) => sent.response.iter().filter_map(Edit::cookie).collect(),
            Said::Respond(answered) => {
                let lines = answered.headers.iter().filter(|(name, _)| name == SET_COOKIE);
                lines.map(|(_, value)| value.as_str()).collect()
            }
            Said::Next | Said::Fault(..) => Vec::new(),
        }
    }

    /// All of its texts that a policy has written.
    pub fn texts(&mut self) -> Vec<&mut String> {
        match self {
            Said::Next => Vec::new(),
            Said::Forward(sent) => sent.texts(),
            Said::Respond(answered) => {
                let headers = answered.headers.iter_mut().flat_map(|(name, value)| [name, value]);
                headers.chain([&mut answered.body]).collect()
            }
            Said::Fault(_, message) => vec![message],
        }
    }
}

/// Names are in lower case here.
const SET_COOKIE: &str = "set-cookie";
/// What wasmtime says of a stack that is used up, which depends on the compiler's frames.
const STACK: &str = "call stack exhausted";

impl Sent {
    fn of(forward: &Forward) -> Self {
        let Forward { service, plan, edits } = forward;
        let Plan { strategy, key, endpoints, subset, prefer, timeout, attempt_timeout, .. } = plan.clone();
        let Edits { request, response, path, query, host } = edits;
        let ms = |time: Option<Duration>| time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        Sent {
            service: service.name.as_ref().to_owned(),
            strategy,
            key,
            endpoints,
            subset,
            prefer,
            timeout_ms: ms(timeout),
            attempt_timeout_ms: ms(attempt_timeout),
            max_attempts: plan.max_attempts,
            retry_status: plan.retry_status.clone(),
            queue: plan.queue.clone(),
            request: request.iter().map(Edit::of).collect(),
            response: response.iter().map(Edit::of).collect(),
            path: path.clone(),
            query: query.clone(),
            host: host.as_ref().map(|host| text(host.as_bytes())),
        }
    }

    fn texts(&mut self) -> Vec<&mut String> {
        let Sent { key, subset, prefer, queue, request, response, path, query, host, .. } = self;
        let pairs = subset.iter_mut().chain(prefer.iter_mut().flatten()).flat_map(|(key, value)| [key, value]);
        let edits = request.iter_mut().chain(response).flat_map(Edit::texts);
        let one = [key, path, query, host].into_iter().flatten();
        pairs.chain(edits).chain(one).chain(queue.as_mut().map(|(key, _)| key)).collect()
    }
}

impl Edit {
    fn of(edit: &HeaderEdit) -> Self {
        match edit {
            HeaderEdit::Set(name, value) => Edit::Set(name.as_str().to_owned(), text(value.as_bytes())),
            HeaderEdit::Append(name, value) => Edit::Append(name.as_str().to_owned(), text(value.as_bytes())),
            HeaderEdit::Remove(name) => Edit::Remove(name.as_str().to_owned()),
        }
    }

    fn cookie(&self) -> Option<&str> {
        match self {
            Edit::Set(name, value) | Edit::Append(name, value) if name == SET_COOKIE => Some(value),
            _ => None,
        }
    }

    fn texts(&mut self) -> Vec<&mut String> {
        match self {
            Edit::Set(name, value) | Edit::Append(name, value) => vec![name, value],
            Edit::Remove(name) => vec![name],
        }
    }
}

impl Answered {
    fn of(answer: &Answer) -> Self {
        let header =
            |(name, value): &(http::HeaderName, http::HeaderValue)| (name.as_str().to_owned(), text(value.as_bytes()));
        Answered {
            status: answer.status.as_u16(),
            headers: answer.headers.iter().map(header).collect(),
            body: answer.body.clone(),
        }
    }
}

/// Guests write UTF-8 alone, so nothing is lost.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
