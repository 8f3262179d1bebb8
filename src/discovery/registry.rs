//! Clients of registries. Each talks and authenticates, and knows no endpoint: what to ask a registry, and what an
//! answer means, is the job of who asks.

pub mod body;
pub mod consul;
pub mod credential;
pub mod dns;
pub mod etcd;
pub mod grpc;
pub mod members;
pub mod nacos;
pub mod place;
pub mod redis;
pub mod zookeeper;

/// Why a registry gave no answer that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct Failure {
    /// Which kind of trouble it is.
    pub kind: Kind,
    /// What went wrong, in one line without secrets.
    pub problem: String,
}

/// The kinds of trouble with a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It lets us not have it, or there is no token to ask with. Somebody has to change that.
    Denied,
    /// Nobody is there, or nobody who can answer now: refused, broken off, turned away, without a leader.
    Unreachable,
    /// It answers, but not what was asked for, or more than is read.
    BadAnswer,
    /// It says nothing in time.
    Silent,
}

impl Failure {
    /// Trouble of this kind.
    pub fn new(kind: Kind, problem: impl Into<String>) -> Self {
        Failure { kind, problem: problem.into() }
    }
}
