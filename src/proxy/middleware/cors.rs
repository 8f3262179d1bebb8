//! Answers preflights, and tells pages what they may read.

use super::{After, Passing, Stop};
use crate::service::decision::Answer;
use crate::service::middleware::cors::{Cors, is_preflight};
use http::{HeaderValue, StatusCode, header};
use std::sync::Arc;

/// # Errors
/// It is a preflight, which is answered here. One of an origin that may do nothing gets an answer that says so by saying
/// nothing.
pub(super) fn before(cors: &Arc<Cors>, passing: &mut Passing) -> Result<(), Stop> {
    let parts = &passing.head().parts;
    let allowed: Option<Box<str>> = cors.allows(parts.headers.only("origin")).map(Into::into);
    let preflight = is_preflight(&parts.method, &parts.headers);
    passing.after.push(After::Cors { cors: Arc::clone(cors), allowed, preflight });
    if !preflight {
        return Ok(());
    }
    let depends = HeaderValue::from_static("access-control-request-method, access-control-request-headers");
    let headers = vec![(header::VARY, depends)];
    Err(Stop::Answer(Box::new(Answer { status: StatusCode::NO_CONTENT, headers, body: String::new() })))
}
