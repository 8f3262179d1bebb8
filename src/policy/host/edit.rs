//! `edit`: changes to what is sent upstream and to what comes back.

use crate::http::headers::edit::HeaderEdit;
use crate::http::request::path;
use crate::http::settings::Paths;
use crate::policy::bindings::wayside::policy::edit::Host;
use crate::policy::context::Context;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderName, HeaderValue};

/// Edits of one call.
const MOST: usize = 64;
/// Bytes of a header's name.
const NAME: usize = 128;
/// Bytes of a value, a path, a query or a host.
const VALUE: usize = 8 << 10;
/// These belong to the connection, as does all that starts with `proxy-`.
const CONNECTION: [&str; 8] =
    ["connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];

impl Host for Context {
    fn set_header(&mut self, name: String, value: String) {
        let edit = || Ok(HeaderEdit::Set(header_name(&name)?, header_value(&name, value)?));
        if let Some(edit) = self.edit("edit.set-header", edit) {
            self.call.edits.request.push(edit);
        }
    }

    fn append_header(&mut self, name: String, value: String) {
        let edit = || Ok(HeaderEdit::Append(header_name(&name)?, header_value(&name, value)?));
        if let Some(edit) = self.edit("edit.append-header", edit) {
            self.call.edits.request.push(edit);
        }
    }

    fn remove_header(&mut self, name: String) {
        if let Some(edit) = self.edit("edit.remove-header", || header_name(&name).map(HeaderEdit::Remove)) {
            self.call.edits.request.push(edit);
        }
    }

    fn set_response_header(&mut self, name: String, value: String) {
        let edit = || Ok(HeaderEdit::Set(header_name(&name)?, header_value(&name, value)?));
        if let Some(edit) = self.edit("edit.set-response-header", edit) {
            self.call.edits.response.push(edit);
        }
    }

    fn append_response_header(&mut self, name: String, value: String) {
        let edit = || Ok(HeaderEdit::Append(header_name(&name)?, header_value(&name, value)?));
        if let Some(edit) = self.edit("edit.append-response-header", edit) {
            self.call.edits.response.push(edit);
        }
    }

    fn remove_response_header(&mut self, name: String) {
        if let Some(edit) = self.edit("edit.remove-response-header", || header_name(&name).map(HeaderEdit::Remove)) {
            self.call.edits.response.push(edit);
        }
    }

    fn set_path(&mut self, path: String) {
        let paths = self.question.as_ref().map_or_else(Paths::default, |question| question.head.paths);
        if let Some(path) = self.edit("edit.set-path", || plain_path(path, paths)) {
            self.call.edits.path = Some(path);
        }
    }

    fn set_query(&mut self, query: String) {
        if let Some(query) = self.edit("edit.set-query", || plain_query(query)) {
            self.call.edits.query = Some(query);
        }
    }

    fn set_host(&mut self, host: String) {
        if let Some(host) = self.edit("edit.set-host", || authority(&host)) {
            self.call.edits.host = Some(host);
        }
    }
}

impl Context {
    /// Counts one more edit and makes it. None: it cannot be, which is noted.
    fn edit<T>(&mut self, function: &str, make: impl FnOnce() -> Result<T, String>) -> Option<T> {
        if !self.deciding(function) {
            return None;
        }
        if self.call.edit_count == MOST {
            self.bad(format!("more than {MOST} edits"));
            return None;
        }
        self.call.edit_count += 1;
        match make() {
            Ok(edit) => Some(edit),
            Err(problem) => {
                self.bad(format!("`{function}`: {problem}"));
                None
            }
        }
    }
}

/// A name that may be set, by the rules that hold for every header a policy writes.
pub(super) fn header_name(name: &str) -> Result<HeaderName, String> {
    if name.len() > NAME {
        return Err(format!("a name of {} bytes (at most {NAME})", name.len()));
    }
    let name: HeaderName = name.parse().map_err(|_| format!("`{}` is no header name", name.escape_debug()))?;
    if CONNECTION.contains(&name.as_str()) || name.as_str().starts_with("proxy-") {
        return Err(format!("`{name}` belongs to the connection"));
    }
    Ok(name)
}

/// As above, for a value. `name` is for the message.
pub(super) fn header_value(name: &str, value: String) -> Result<HeaderValue, String> {
    if value.len() > VALUE {
        return Err(format!("the value of `{name}` is {} bytes long (at most {VALUE})", value.len()));
    }
    HeaderValue::try_from(value).map_err(|_| format!("the value of `{name}` has a control character"))
}

/// It is read as the request's own path is, or a policy that puts one together from what a client sent could be led out
/// of the place that it meant.
fn plain_path(path: String, paths: Paths) -> Result<String, String> {
    let good = path.starts_with('/') && !path.contains(['?', '#', ' ']) && !path.contains(char::is_control);
    if path.len() > VALUE || !good || PathAndQuery::try_from(path.as_str()).is_err() {
        return Err(format!("`{}` is no path", shown(&path)));
    }
    let normal = path::normal(&path, paths).map_err(|_| {
        format!(
            "`{}` has a slash, a backslash or parameters next to a dot segment, which servers read differently",
            shown(&path)
        )
    })?;
    Ok(normal.into_owned())
}

fn plain_query(query: String) -> Result<String, String> {
    let good = !query.contains(['#', ' ']) && !query.contains(char::is_control);
    if query.len() > VALUE || !good || PathAndQuery::try_from(format!("/?{query}")).is_err() {
        return Err(format!("`{}` is no query", shown(&query)));
    }
    Ok(query)
}

fn authority(host: &str) -> Result<HeaderValue, String> {
    let problem = || format!("`{}` is not `HOST` or `HOST:PORT`", shown(host));
    let authority: Authority = host.parse().map_err(|_| problem())?;
    let name = authority.host();
    let port = host.strip_prefix(name).ok_or_else(problem)?;
    let good = !name.is_empty() && (port.is_empty() || authority.port_u16().is_some());
    if host.len() > 255 || !good {
        return Err(problem());
    }
    HeaderValue::from_str(host).map_err(|_| problem())
}

/// The start of something too long or too strange to be shown as it is.
fn shown(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_may_not_be_set() {
        for name in CONNECTION.into_iter().chain(["Proxy-Authorization", "Host", "a b", "", "x\n", "é"]) {
            assert!(header_name(name).is_err(), "{name:?}");
        }
        assert!(header_name(&"x".repeat(NAME + 1)).is_err());
        assert!(header_name(&"x".repeat(NAME)).is_ok());
        assert_eq!(header_name("X-Tier").unwrap().as_str(), "x-tier");
    }

    #[test]
    fn values_without_control_characters() {
        for value in ["a\r\nb", "a\nb", "a\0b", "\x7f"] {
            assert!(header_value("x", value.to_owned()).is_err(), "{value:?}");
        }
        assert!(header_value("x", "v".repeat(VALUE + 1)).is_err());
        for value in ["", "a\tb", "é", &"v".repeat(VALUE)] {
            assert!(header_value("x", value.to_owned()).is_ok(), "{value:?}");
        }
    }

    #[test]
    fn paths_are_checked_and_resolved() {
        for path in ["", "a", "*", "/a?b", "/a#b", "/a b", "/a\nb", "http://x/"] {
            assert!(plain_path(path.to_owned(), Paths::Normal).is_err(), "{path:?}");
        }
        for (path, paths, expected) in [
            ("/a/../b%20c", Paths::Normal, Some("/b%20c")),
            ("//x/y", Paths::Normal, Some("//x/y")),
            ("/%61/..%2fb", Paths::Normal, None),
            ("/%61%2fb", Paths::Normal, Some("/a%2Fb")),
            ("/%61%2fb", Paths::Strict, None),
            ("/%61/..%2fb", Paths::AsSent, Some("/%61/..%2fb")),
        ] {
            assert_eq!(plain_path(path.to_owned(), paths).ok().as_deref(), expected, "{path} {paths:?}");
        }
    }

    #[test]
    fn queries_and_hosts_are_checked() {
        assert!(plain_query("a=1&b=?/".to_owned()).is_ok());
        assert!(plain_query(String::new()).is_ok());
        for query in ["a b", "a#b", "a\r\nb"] {
            assert!(plain_query(query.to_owned()).is_err(), "{query:?}");
        }
        for host in ["shop.example", "shop.example:80", "[::1]:8080", "10.0.0.1"] {
            assert_eq!(authority(host).unwrap(), host);
        }
        for host in ["", "a b", "u@h", "a:b", "a:", ":80", "a/b", "a\r\nb", "a:99999", "http://a"] {
            assert!(authority(host).is_err(), "{host:?}");
        }
    }
}
