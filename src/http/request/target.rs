//! What a request is for (RFC 9112 §3.2): a path and a query, and in some forms an authority.

use http::Uri;

/// A request's target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Path and query; `*`; or "" where there is neither.
    text: Box<str>,
    /// Where the query's `?` stands.
    mark: Option<usize>,
    authority: Option<Box<str>>,
}

impl Target {
    /// Of what stands in a request's line. None: it is no target.
    pub fn read(sent: &[u8]) -> Option<Self> {
        if sent.first() == Some(&b'/') {
            let text = std::str::from_utf8(sent).ok()?;
            return Some(Target { mark: memchr::memchr(b'?', sent), text: text.into(), authority: None });
        }
        Uri::try_from(sent).ok().map(|uri| Target::of(&uri))
    }

    /// The same of a URI.
    pub fn of(uri: &Uri) -> Self {
        let (path, query) = (uri.path(), uri.query());
        // An absolute form without path means `/` (RFC 9112 §3.2.1).
        let path = if path.is_empty() && uri.scheme().is_some() { "/" } else { path };
        let text = match query {
            Some(query) => format!("{path}?{query}").into(),
            None => path.into(),
        };
        let authority = uri.authority().map(|authority| authority.as_str().into());
        Target { text, mark: query.map(|_| path.len()), authority }
    }

    /// As it is sent to the next hop.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Without the query.
    pub fn path(&self) -> &str {
        &self.text[..self.mark.unwrap_or(self.text.len())]
    }

    /// What follows the `?`.
    pub fn query(&self) -> Option<&str> {
        self.mark.map(|mark| &self.text[mark + 1..])
    }

    /// What stands between the scheme and the path.
    pub fn authority(&self) -> Option<&str> {
        self.authority.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_taken_apart() {
        for (sent, path, query, authority) in [
            ("/", "/", None, None),
            ("/a/b?c=d?e", "/a/b", Some("c=d?e"), None),
            ("/a?", "/a", Some(""), None),
            ("*", "*", None, None),
            ("http://U@h:80/a?b", "/a", Some("b"), Some("U@h:80")),
            ("http://h", "/", None, Some("h")),
            ("http://h?b", "/", Some("b"), Some("h")),
            ("h:80", "", None, Some("h:80")),
        ] {
            let target = Target::read(sent.as_bytes()).unwrap();
            assert_eq!((target.path(), target.query(), target.authority()), (path, query, authority), "{sent}");
            let whole = query.map_or(path.to_owned(), |query| format!("{path}?{query}"));
            assert_eq!(target.as_str(), whole);
            assert_eq!(target, Target::of(&sent.parse().unwrap()));
        }
        assert_eq!(Target::read(b"\xff"), None);
        assert_eq!(Target::read(b"/\xff"), None);
    }
}
