//! Changes that a policy makes to headers.

use crate::http::fields::Fields;
use http::{HeaderName, HeaderValue};

/// One change to a header.
#[derive(Debug, Clone, PartialEq)]
pub enum HeaderEdit {
    /// Replaces all lines of this name.
    Set(HeaderName, HeaderValue),
    /// Adds a line.
    Append(HeaderName, HeaderValue),
    /// Takes all lines away.
    Remove(HeaderName),
}

/// Applies a policy's edits in order.
pub fn apply(headers: &mut Fields, edits: &[HeaderEdit]) {
    for edit in edits {
        match edit {
            HeaderEdit::Set(name, value) => headers.set(name.as_str(), value.as_bytes()),
            HeaderEdit::Append(name, value) => headers.append(name.as_str(), value.as_bytes()),
            HeaderEdit::Remove(name) => headers.remove(name.as_str()),
        }
    }
}
