//! The calls of an exchange that is recorded, each by value, with what they were asked about.

use crate::http::request::Head;
use crate::service::catalog::Catalog;
use crate::service::decision::said::Said;
use crate::service::tape::Tape;
use smallvec::SmallVec;
use std::sync::Arc;

/// What was asked in one exchange, and what came of it.
#[derive(Debug)]
pub struct Taped {
    /// The request as the policies saw it.
    pub head: Arc<Head>,
    /// The services as they saw them.
    pub catalog: Arc<Catalog>,
    /// In order.
    pub calls: SmallVec<[Call; 1]>,
}

/// One call.
#[derive(Debug)]
pub struct Call {
    /// Who was asked.
    pub version: Arc<About>,
    /// What it read and did.
    pub tape: Tape,
    /// What it decided.
    pub said: Said,
    /// What it gave as its reason.
    pub reason: String,
}

/// All that makes a version what it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct About {
    /// The policy's name.
    pub policy: Arc<str>,
    /// The version's id.
    pub version: Arc<str>,
    /// SHA-256 of its component, in hex.
    pub component: String,
    /// What its `init` was given.
    pub config: String,
    /// What it may use, as JSON.
    pub limits: String,
}
