//! `request_id`: each request has an id, which its endpoint, its client and the access log are told.

use http::HeaderName;
use serde::Deserialize;

/// Longer ones are nobody's id, bytes.
const MOST: usize = 128;

/// How ids are given.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RequestId {
    /// The header, on the way up and back.
    pub header: String,
    /// A client's own id is kept, too; else only that of a trusted proxy is.
    pub trust_clients: bool,
}

impl Default for RequestId {
    fn default() -> Self {
        RequestId { header: "x-request-id".to_owned(), trust_clients: false }
    }
}

impl RequestId {
    /// # Errors
    /// What is wrong with which key.
    pub(super) fn check(&self) -> Result<(), String> {
        check_header("header", &self.header)
    }

    /// The id that came with a request is one that may be kept: nothing in it that would have to be escaped in a log.
    pub fn is_good(id: &[u8]) -> bool {
        (1..=MOST).contains(&id.len())
            && id.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(byte))
    }
}

/// Headers that say how a message is read, or that the gateway sets itself.
const OWN: [&str; 10] = [
    "host",
    "connection",
    "content-length",
    "content-type",
    "transfer-encoding",
    "keep-alive",
    "te",
    "trailer",
    "upgrade",
    "via",
];

/// A header that a middleware may set: a name in lower case that says nothing of how a message is read.
pub(super) fn check_header(key: &str, name: &str) -> Result<(), String> {
    let good = name.parse::<HeaderName>().is_ok_and(|parsed| parsed.as_str() == name);
    if !good || OWN.contains(&name) {
        return Err(format!(
            "`{key}`: `{name}` cannot be set; write the name of a header in lower case, like `x-name`"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_plain_and_short() {
        for id in [&b"a"[..], b"0af7651916cd43dd", b"550e8400-e29b-41d4-a716-446655440000", b"Root=1-67:a/b+c_d"] {
            assert!(RequestId::is_good(id));
        }
        for id in [&b""[..], b"a b", b"a\"b", b"a,b", b"\xff", &[b'a'; 129]] {
            assert!(!RequestId::is_good(id));
        }
    }

    #[test]
    fn a_header_that_frames_is_refused() {
        for header in ["host", "X-Id", "a b", "", "content-length"] {
            let problem = RequestId { header: header.to_owned(), ..RequestId::default() }.check().unwrap_err();
            assert!(problem.starts_with(&format!("`header`: `{header}` cannot be set")), "{problem}");
        }
        RequestId::default().check().unwrap();
    }
}
