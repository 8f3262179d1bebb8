//! Changes that a policy makes to headers.

use http::{HeaderMap, HeaderName, HeaderValue};

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
pub fn apply(headers: &mut HeaderMap, edits: &[HeaderEdit]) {
    for edit in edits {
        match edit {
            HeaderEdit::Set(name, value) => {
                headers.insert(name, value.clone());
            }
            HeaderEdit::Append(name, value) => {
                headers.append(name, value.clone());
            }
            HeaderEdit::Remove(name) => {
                headers.remove(name);
            }
        }
    }
}
