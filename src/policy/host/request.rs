//! `request`: the head as it came in.

use crate::http::fields::Fields;
use crate::http::headers::cookie;
use crate::http::request::Head;
use crate::policy::bindings::wayside::policy::request::Host;
use crate::policy::context::Context;
use std::borrow::Cow;
use std::collections::HashSet;

impl Host for Context {
    fn method(&mut self) -> String {
        self.question("request.method").map_or_else(String::new, |q| q.head.parts.method.as_str().to_owned())
    }

    fn scheme(&mut self) -> String {
        self.question("request.scheme").map_or_else(String::new, |q| q.head.scheme().to_owned())
    }

    fn host(&mut self) -> String {
        self.question("request.host").map_or_else(String::new, |q| q.head.host().to_owned())
    }

    fn path(&mut self) -> String {
        self.question("request.path").map_or_else(String::new, |q| q.head.path().to_owned())
    }

    fn query(&mut self) -> Option<String> {
        self.question("request.query")?.head.query().map(str::to_owned)
    }

    fn parameter(&mut self, name: String) -> Option<String> {
        parameter(self.question("request.parameter")?.head.query()?, &name)
    }

    fn header(&mut self, mut name: String) -> Option<String> {
        name.make_ascii_lowercase();
        joined(&self.question("request.header")?.head.parts.headers, &name).map(Cow::into_owned)
    }

    fn header_values(&mut self, mut name: String) -> Vec<String> {
        name.make_ascii_lowercase();
        let Some(question) = self.question("request.header-values") else { return Vec::new() };
        question.head.parts.headers.all(&name).map(|line| String::from_utf8_lossy(line).into_owned()).collect()
    }

    fn header_bytes(&mut self, mut name: String) -> Vec<Vec<u8>> {
        name.make_ascii_lowercase();
        let Some(question) = self.question("request.header-bytes") else { return Vec::new() };
        question.head.parts.headers.all(&name).map(<[u8]>::to_vec).collect()
    }

    fn header_names(&mut self) -> Vec<String> {
        let Some(question) = self.question("request.header-names") else { return Vec::new() };
        let mut seen = HashSet::new();
        let names = question.head.parts.headers.iter().map(|(name, _)| name).filter(|name| seen.insert(*name));
        names.map(|name| String::from_utf8_lossy(name).into_owned()).collect()
    }

    fn cookie(&mut self, name: String) -> Option<String> {
        cookie(&self.question("request.cookie")?.head.parts.headers, &name)
    }

    fn client_address(&mut self) -> String {
        self.question("request.client-address").map_or_else(String::new, |q| q.head.client.to_string())
    }

    fn tls_subject(&mut self) -> Option<String> {
        self.question("request.tls-subject")?.head.peer.tls_subject.as_deref().map(str::to_owned)
    }

    fn claim(&mut self, name: String) -> Option<String> {
        claim(&self.question("request.claim")?.head, &name)
    }

    fn inputs(&mut self, names: String) -> String {
        let Context { question: Some(question), inputs, .. } = self else {
            self.deciding("request.inputs");
            return String::new();
        };
        inputs.read(names, &question.head).unwrap_or_else(|problem| {
            self.bad(format!("`request.inputs`: {problem}"));
            String::new()
        })
    }
}

/// All lines of the header of this name, which is in lower case, in one.
pub(super) fn joined<'a>(headers: &'a Fields, name: &str) -> Option<Cow<'a, str>> {
    let mut lines = headers.all(name);
    let first = String::from_utf8_lossy(lines.next()?);
    let Some(second) = lines.next() else { return Some(first) };
    let between = if name == "cookie" { "; " } else { ", " };
    let mut text = first.into_owned();
    for line in std::iter::once(second).chain(lines) {
        text.push_str(between);
        text.push_str(&String::from_utf8_lossy(line));
    }
    Some(text.into())
}

/// A verified claim as JSON.
pub(super) fn claim(head: &Head, name: &str) -> Option<String> {
    head.claims.as_ref()?.get(name).map(serde_json::Value::to_string)
}

/// The first query parameter of this name, decoded (the URL standard's `application/x-www-form-urlencoded`).
pub(super) fn parameter(query: &str, name: &str) -> Option<String> {
    let mut parameters = form_urlencoded::parse(query.as_bytes());
    parameters.find_map(|(key, value)| (key == name).then(|| value.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_header_are_joined_and_bad_bytes_shown_as_such() {
        let mut headers = Fields::default();
        for (name, value) in
            [("x-a", &b"1"[..]), ("x-a", b"2"), ("cookie", b"a=1"), ("cookie", b"b=2"), ("x-b", b"\xff")]
        {
            headers.append(name, value);
        }
        let header = |name: &str| joined(&headers, name);
        assert_eq!(header("x-a").as_deref(), Some("1, 2"));
        assert_eq!(header("cookie").as_deref(), Some("a=1; b=2"));
        assert_eq!(header("x-b").as_deref(), Some("\u{fffd}"));
        assert_eq!(header("x-c"), None);
        assert_eq!(header("no header"), None);
        assert_eq!(header(""), None);
    }

    #[test]
    fn parameters_are_decoded() {
        let query = "a=1&b=x+y%21&%63=3&d&e=&a=2&f=%zz%4&&=7";
        let cases = [
            ("a", Some("1")),
            ("b", Some("x y!")),
            ("c", Some("3")),
            ("d", Some("")),
            ("e", Some("")),
            ("f", Some("%zz%4")),
            ("", Some("7")),
            ("g", None),
        ];
        for (name, expected) in cases {
            assert_eq!(parameter(query, name).as_deref(), expected, "{name}");
        }
    }
}
