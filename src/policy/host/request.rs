//! `request`: the head as it came in.

use crate::http::fields::Fields;
use crate::http::headers::cookie;
use crate::http::request::Head;
use crate::policy::bindings::wayside::policy::request::Host;
use crate::policy::context::Context;
use crate::policy::question::Question;
use std::borrow::Cow;
use std::collections::HashSet;

impl Host for Context {
    fn method(&mut self) -> String {
        self.read("request.method", "method", "", |head| Some(head.parts.method.as_str().to_owned()))
            .unwrap_or_default()
    }

    fn scheme(&mut self) -> String {
        self.read("request.scheme", "scheme", "", |head| Some(head.scheme().to_owned())).unwrap_or_default()
    }

    fn host(&mut self) -> String {
        self.read("request.host", "host", "", |head| Some(head.host().to_owned())).unwrap_or_default()
    }

    fn path(&mut self) -> String {
        self.read("request.path", "path", "", |head| Some(head.path().to_owned())).unwrap_or_default()
    }

    fn query(&mut self) -> Option<String> {
        self.read("request.query", "query", "", |head| head.query().map(str::to_owned))
    }

    fn parameter(&mut self, name: String) -> Option<String> {
        self.read("request.parameter", "parameter", &name, |head| parameter(head.query()?, &name))
    }

    fn header(&mut self, mut name: String) -> Option<String> {
        name.make_ascii_lowercase();
        let header = |head: &Head| joined(&head.parts.headers, &name).map(Cow::into_owned);
        self.read("request.header", "header", &name, header)
    }

    fn header_values(&mut self, mut name: String) -> Vec<String> {
        name.make_ascii_lowercase();
        let Some(question) = self.lines("request.header-values", &name) else { return Vec::new() };
        question.head.parts.headers.all(&name).map(|line| String::from_utf8_lossy(line).into_owned()).collect()
    }

    fn header_bytes(&mut self, mut name: String) -> Vec<Vec<u8>> {
        name.make_ascii_lowercase();
        let Some(question) = self.lines("request.header-bytes", &name) else { return Vec::new() };
        question.head.parts.headers.all(&name).map(<[u8]>::to_vec).collect()
    }

    fn header_names(&mut self) -> Vec<String> {
        let Some(question) = self.question("request.header-names") else { return Vec::new() };
        question.saw("header-names", "", None);
        let mut seen = HashSet::new();
        let names = question.head.parts.headers.iter().map(|(name, _)| name).filter(|name| seen.insert(*name));
        names.map(|name| String::from_utf8_lossy(name).into_owned()).collect()
    }

    fn cookie(&mut self, name: String) -> Option<String> {
        self.read("request.cookie", "cookie", &name, |head| cookie(&head.parts.headers, &name))
    }

    fn client_address(&mut self) -> String {
        let client = |head: &Head| Some(head.client.to_string());
        self.read("request.client-address", "client-address", "", client).unwrap_or_default()
    }

    fn tls_subject(&mut self) -> Option<String> {
        let subject = |head: &Head| head.peer.tls_subject.as_deref().map(str::to_owned);
        self.read("request.tls-subject", "tls-subject", "", subject)
    }

    fn claim(&mut self, name: String) -> Option<String> {
        self.read("request.claim", "claim", &name, |head| claim(head, &name))
    }

    fn inputs(&mut self, names: String) -> String {
        let Context { question: Some(question), inputs, .. } = self else {
            self.deciding("request.inputs");
            return String::new();
        };
        let noted = question.wall.is_some().then(|| names.clone());
        match inputs.read(names, &question.head) {
            Ok(said) => {
                if let Some(names) = noted {
                    names.split('\n').for_each(|name| question.saw(name, "", Some(&said)));
                }
                said
            }
            Err(problem) => {
                self.bad(format!("`request.inputs`: {problem}"));
                String::new()
            }
        }
    }
}

impl Context {
    /// What `read` finds in the head, which is noted under this kind and name of input.
    fn read(
        &mut self,
        function: &str,
        kind: &str,
        name: &str,
        read: impl FnOnce(&Head) -> Option<String>,
    ) -> Option<String> {
        let question = self.question(function)?;
        let said = read(&question.head);
        if question.wall.is_some() {
            question.saw(kind, name, said.as_deref());
        }
        said
    }

    /// The question, of which the lines of this header are read.
    fn lines(&mut self, function: &str, name: &str) -> Option<&mut Question> {
        let question = self.question(function)?;
        if question.wall.is_some() {
            let said = joined(&question.head.parts.headers, name).map(Cow::into_owned);
            question.saw("header", name, said.as_deref());
        }
        Some(question)
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
