//! A body that is read no further than is wise, and what is told of an exchange that failed.

use std::error::Error as _;

/// What failed, and the innermost cause, which is what helps. The URL is left out: it may hold a password.
pub fn told(error: &reqwest::Error) -> String {
    let mut cause = error.source();
    while let Some(inner) = cause.and_then(|cause| cause.source()) {
        cause = Some(inner);
    }
    let what = if error.is_connect() { "cannot connect" } else { "the exchange failed" };
    cause.map_or_else(|| what.to_owned(), |cause| format!("{what}: {cause}"))
}

/// At most `limit` bytes of the body, and whether that is all of it.
///
/// # Errors
/// The exchange failed.
pub async fn read(response: &mut reqwest::Response, limit: usize) -> Result<(Vec<u8>, bool), reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let room = limit - body.len();
        if chunk.len() > room {
            body.extend_from_slice(&chunk[..room]);
            return Ok((body, false));
        }
        body.extend_from_slice(&chunk);
    }
    Ok((body, true))
}
