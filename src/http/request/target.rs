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

    /// Of a path with its query, or what stands for them, and an authority: what [`Target::as_str`] and
    /// [`Target::authority`] said of another one.
    pub fn of_parts(text: &str, authority: Option<&str>) -> Self {
        Target { mark: memchr::memchr(b'?', text.as_bytes()), text: text.into(), authority: authority.map(Box::from) }
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

    /// The first query parameter of this name, decoded (the URL standard's `application/x-www-form-urlencoded`).
    pub fn parameter(&self, name: &str) -> Option<String> {
        let mut parameters = form_urlencoded::parse(self.query()?.as_bytes());
        parameters.find_map(|(key, value)| (key == name).then(|| value.into_owned()))
    }

    /// Takes all query parameters of this name away; the others stay as they were sent.
    pub fn remove_parameter(&mut self, name: &str) {
        let Some(query) = self.query() else { return };
        let is = |pair: &str| form_urlencoded::parse(pair.as_bytes()).any(|(key, _)| key == name);
        if !query.split('&').any(is) {
            return;
        }
        let left: Vec<&str> = query.split('&').filter(|pair| !is(pair)).collect();
        let path = self.path();
        let (text, mark) = match left.is_empty() {
            true => (path.to_owned(), None),
            false => (format!("{path}?{}", left.join("&")), Some(path.len())),
        };
        (self.text, self.mark) = (text.into(), mark);
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
    fn a_parameter_is_taken_away_however_it_is_written() {
        for (sent, left) in [
            ("/a?key=1", "/a"),
            ("/a?x=%2F&k%65y=1&y&key&key=2", "/a?x=%2F&y"),
            ("/a?keys=1&x=key", "/a?keys=1&x=key"),
            ("/a?", "/a?"),
            ("/a", "/a"),
        ] {
            let mut target = Target::read(sent.as_bytes()).unwrap();
            target.remove_parameter("key");
            assert_eq!(target, Target::read(left.as_bytes()).unwrap(), "{sent}");
            assert_eq!(target.parameter("key"), None);
        }
    }

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
            assert_eq!(target, Target::of_parts(target.as_str(), target.authority()));
        }
        assert_eq!(Target::read(b"\xff"), None);
        assert_eq!(Target::read(b"/\xff"), None);
    }
}
