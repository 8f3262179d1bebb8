//! What was decided about a request: plain data between a policy, or a declared route, and the proxy.

pub mod said;

use super::Service;
use super::plan::Plan;
use super::tape::Tape;
use crate::http::headers::edit::HeaderEdit;
use http::{HeaderName, HeaderValue, StatusCode};
use std::sync::Arc;

/// One policy call and what came of it.
#[derive(Debug)]
pub struct Called {
    /// The decision, or why there is none.
    pub outcome: Outcome,
    /// What the policy gave as its reason; "" if nothing.
    pub reason: String,
    /// Lines that the policy logged, in order.
    pub logs: Vec<LogLine>,
    /// What it read and did, where that was to be noted.
    pub tape: Option<Box<Tape>>,
}

/// The end of a call.
#[derive(Debug)]
pub enum Outcome {
    /// Not this policy's request.
    Next,
    /// Send it to this service, this way.
    Forward(Arc<Forward>),
    /// Answer it here.
    Respond(Box<Answer>),
    /// The guest went wrong, or could not be asked; `on_fault` says what follows.
    Fault(Fault),
}

impl Outcome {
    /// What sort it is.
    pub fn decision(&self) -> Decision {
        match self {
            Outcome::Next => Decision::Next,
            Outcome::Forward(_) => Decision::Forward,
            Outcome::Respond(_) => Decision::Respond,
            Outcome::Fault(_) => Decision::Fault,
        }
    }
}

/// Sorts of outcomes, in the words of logs, metrics and traces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Not this policy's request.
    Next,
    /// To a service.
    Forward,
    /// Answered by the policy.
    Respond,
    /// None: the guest went wrong, or could not be asked.
    Fault,
}

impl Decision {
    /// Each once, in the order of their declaration.
    pub const ALL: [Decision; 4] = [Decision::Next, Decision::Forward, Decision::Respond, Decision::Fault];

    /// As logs, metrics and traces call it.
    pub fn name(self) -> &'static str {
        match self {
            Decision::Next => "next",
            Decision::Forward => "forward",
            Decision::Respond => "respond",
            Decision::Fault => "fault",
        }
    }
}

/// What a version is to a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Role {
    /// It answers.
    #[default]
    Live,
    /// It answers a part of the clients, to see how that goes.
    Canary,
}

impl Role {
    /// Each once, in the order of their declaration.
    pub const ALL: [Role; 2] = [Role::Live, Role::Canary];

    /// As logs, metrics and traces call it.
    pub fn name(self) -> &'static str {
        match self {
            Role::Live => "live",
            Role::Canary => "canary",
        }
    }
}

/// Where a request goes, and how: what a policy told `plan` and `edit`, or nothing where a declared route decided.
#[derive(Debug)]
pub struct Forward {
    /// Out of the question's snapshot.
    pub service: Arc<Service>,
    /// Which endpoint, how long, how often.
    pub plan: Plan,
    /// What changes on the way.
    pub edits: Edits,
}

impl Forward {
    /// The way this plan and the service's settings say, and unchanged.
    pub fn to(service: Arc<Service>, plan: Plan) -> Self {
        Forward { service, plan, edits: Edits::default() }
    }
}

/// Changes to the request that goes upstream and to the response that comes back, in the order of the calls.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Edits {
    /// On the request.
    pub request: Vec<HeaderEdit>,
    /// On the response.
    pub response: Vec<HeaderEdit>,
    /// A new path.
    pub path: Option<String>,
    /// A new query without `?`; "" takes it away.
    pub query: Option<String>,
    /// A new authority.
    pub host: Option<HeaderValue>,
}

/// An answer that a policy made.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// 200 to 599.
    pub status: StatusCode,
    /// In this order; with a `content-type` where there is a body.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// At most 64 KiB.
    pub body: String,
}

/// The guest went wrong. `kind` is for metrics, `message` for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What sort.
    pub kind: FaultKind,
    /// A sentence; may hold what the guest said, so it is for logs and traces, never for clients.
    pub message: String,
}

/// Sorts of faults, in the words of metrics and traces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// An unreachable, an overflow, an access out of bounds.
    Trap,
    /// Out of CPU or wall time.
    Deadline,
    /// Out of memory.
    Memory,
    /// It tried to wait.
    Wait,
    /// An answer or a call that the interface forbids.
    BadAnswer,
    /// `decide` returned an error.
    Error,
    /// Not asked: the version is suspended.
    Suspended,
    /// Not asked: no version of it could be loaded.
    Broken,
    /// Not asked: every ready instance was used up by faults.
    Starved,
}

impl FaultKind {
    /// Each once, in the order of their declaration.
    pub const ALL: [FaultKind; 9] = [
        FaultKind::Trap,
        FaultKind::Deadline,
        FaultKind::Memory,
        FaultKind::Wait,
        FaultKind::BadAnswer,
        FaultKind::Error,
        FaultKind::Suspended,
        FaultKind::Broken,
        FaultKind::Starved,
    ];

    /// As metrics and traces call it.
    pub fn name(self) -> &'static str {
        match self {
            FaultKind::Trap => "trap",
            FaultKind::Deadline => "deadline",
            FaultKind::Memory => "memory",
            FaultKind::Wait => "wait",
            FaultKind::BadAnswer => "bad_answer",
            FaultKind::Error => "error",
            FaultKind::Suspended => "suspended",
            FaultKind::Broken => "broken",
            FaultKind::Starved => "starved",
        }
    }
}

/// One line that a policy logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// How loud.
    pub level: tracing::Level,
    /// At most 4 KiB.
    pub message: String,
}
