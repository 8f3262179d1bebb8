//! Codes responses.

use super::{After, Passing, Response};
use crate::http::coding::Coding;
use crate::service::middleware::compress::Compress;
use http::{Method, Version};
use http_body::Body;
use std::sync::Arc;

/// Finds out what the client takes, before anybody changes what it says.
pub(super) fn before(compress: &Arc<Compress>, passing: &mut Passing) {
    let parts = &passing.head().parts;
    // To HTTP/1.0, a coded body would end with the connection, and could not be told from one that broke off.
    let coding = compress.chosen(&parts.headers).filter(|_| parts.version != Version::HTTP_10);
    let head_only = parts.method == Method::HEAD;
    passing.after.push(After::Compress { compress: Arc::clone(compress), coding, head_only });
}

/// Codes the response, if it may be coded. To HEAD it says what it would say to GET (RFC 9110 §9.3.2).
pub(super) fn after(compress: &Compress, coding: Option<Coding>, head_only: bool, response: &mut Response) {
    let small = response.body.size_hint().exact().is_some_and(|bytes| !head_only && bytes < compress.min_bytes);
    if small || !compress.prepare(response.status, &mut response.headers, coding) {
        return;
    }
    if let Some(coding) = coding.filter(|_| !head_only) {
        response.body.code(coding);
    }
}
