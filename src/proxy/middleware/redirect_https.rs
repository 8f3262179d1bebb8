//! Sends a client to where there is TLS.

use super::{Passing, Stop, value};
use crate::http::error::Error;
use crate::service::decision::Answer;
use crate::service::middleware::redirect_https::RedirectHttps;
use http::{StatusCode, header};

/// # Errors
/// It has come without TLS.
pub(super) fn before(settings: RedirectHttps, passing: &Passing) -> Result<(), Stop> {
    match settings.of(passing.head()) {
        None => Ok(()),
        Some(to) if to.is_empty() => Err(Stop::Refuse(Error::PlainHttp, None)),
        Some(to) => {
            let headers = vec![(header::LOCATION, value(&to))];
            Err(Stop::Answer(Box::new(Answer { status: StatusCode::PERMANENT_REDIRECT, headers, body: String::new() })))
        }
    }
}
