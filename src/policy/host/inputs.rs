//! `request.inputs`: several of a request's facts in one call. A policy asks for the same ones each time, so what it asks
//! for is read once.

use super::request::{claim, joined, parameter};
use crate::http::headers::cookie;
use crate::http::request::Head;
use http::HeaderName;
use std::borrow::Cow;

/// Inputs of one call.
const MOST: usize = 32;
/// Before each value, so that one that is empty is not like one that is not there.
const THERE: char = '=';
/// Between two values.
const BETWEEN: char = '\n';

/// What was asked for last, read.
#[derive(Debug, Default)]
pub(in crate::policy) struct Inputs {
    names: String,
    inputs: Vec<Input>,
}

/// One of a request's facts.
#[derive(Debug, PartialEq, Eq)]
enum Input {
    Method,
    Scheme,
    Host,
    Path,
    Query,
    ClientAddress,
    TlsSubject,
    /// None: the name can be no header's.
    Header(Option<HeaderName>),
    Cookie(String),
    Parameter(String),
    Claim(String),
}

impl Input {
    fn parse(line: &str) -> Option<Self> {
        let (kind, name) = line.split_once(' ').unwrap_or((line, ""));
        if !name.is_empty() {
            return match kind {
                "header" => Some(Input::Header(name.parse().ok())),
                "cookie" => Some(Input::Cookie(name.to_owned())),
                "claim" => Some(Input::Claim(name.to_owned())),
                "parameter" => Some(Input::Parameter(name.to_owned())),
                _ => None,
            };
        }
        match line {
            "method" => Some(Input::Method),
            "scheme" => Some(Input::Scheme),
            "host" => Some(Input::Host),
            "path" => Some(Input::Path),
            "query" => Some(Input::Query),
            "client-address" => Some(Input::ClientAddress),
            "tls-subject" => Some(Input::TlsSubject),
            _ => None,
        }
    }

    fn value<'a>(&self, head: &'a Head) -> Option<Cow<'a, str>> {
        match self {
            Input::Method => Some(head.parts.method.as_str().into()),
            Input::Scheme => Some(head.scheme().into()),
            Input::Host => Some(head.host().into()),
            Input::Path => Some(head.path().into()),
            Input::Query => head.query().map(Cow::from),
            Input::ClientAddress => Some(head.client.to_string().into()),
            Input::TlsSubject => head.peer.tls_subject.as_deref().map(Cow::from),
            Input::Header(name) => joined(&head.parts.headers, name.as_ref()?.as_str()),
            Input::Cookie(name) => cookie(&head.parts.headers, name).map(Cow::from),
            Input::Claim(name) => claim(head, name).map(Cow::from),
            Input::Parameter(name) => parameter(head.query()?, name).map(Cow::from),
        }
    }
}

impl Inputs {
    /// The values of what these name, as the guest gets them.
    ///
    /// # Errors
    /// What is wrong with the names.
    pub(super) fn read(&mut self, names: String, head: &Head) -> Result<String, String> {
        if self.inputs.is_empty() || names != self.names {
            self.inputs = parse(&names)?;
            self.names = names;
        }
        let mut text = String::with_capacity(256);
        for (index, input) in self.inputs.iter().enumerate() {
            if index > 0 {
                text.push(BETWEEN);
            }
            if let Some(value) = input.value(head) {
                text.push(THERE);
                push(&mut text, &value);
            }
        }
        Ok(text)
    }
}

/// What a request says to one of these names, as `request.inputs` would tell a policy; none where there is nothing.
pub fn read_input(head: &Head, name: &str) -> Option<String> {
    Input::parse(name)?.value(head).map(Cow::into_owned)
}

fn parse(names: &str) -> Result<Vec<Input>, String> {
    if names.split(BETWEEN).count() > MOST {
        return Err(format!("more than {MOST} inputs"));
    }
    let parse = |line: &str| {
        let shown = || line.chars().take(64).collect::<String>().escape_debug().to_string();
        Input::parse(line).ok_or_else(|| {
            format!("`{}` is no input (expected `path`, `header NAME` or the like, one a line)", shown())
        })
    };
    names.split(BETWEEN).map(parse).collect()
}

/// No value can look like the next one.
fn push(text: &mut String, value: &str) {
    if memchr::memchr(b'\n', value.as_bytes()).is_none() {
        text.push_str(value);
    } else {
        text.extend(value.chars().map(|char| if char == BETWEEN { char::REPLACEMENT_CHARACTER } else { char }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::Peer;

    fn read(names: &str) -> Result<String, String> {
        let mut request = http::Request::post("/a/%62?user=a%20b&evil=x%0A%3Dgold&none=");
        for (name, value) in [("host", "Shop.example:80"), ("x-a", "1"), ("x-a", "2"), ("x-empty", "")] {
            request = request.header(name, value);
        }
        let (parts, ()) = request.header("cookie", "theme=dark; sid=\"7\"").body(()).unwrap().into_parts();
        let peer = Peer::over_tls(([203, 0, 113, 7], 4711).into(), Some("CN=ada".into()));
        let mut head = Head::new(parts, peer, &[]);
        let claims = serde_json::json!({ "sub": "ada", "roles": ["a", 1], "note": "x\n=gold" });
        std::sync::Arc::get_mut(&mut head).unwrap().claims = claims.as_object().cloned().map(std::sync::Arc::new);
        Inputs::default().read(names.to_owned(), &head)
    }

    #[test]
    fn every_input_is_what_its_own_function_gives() {
        let cases = [
            ("method", "=POST"),
            ("scheme", "=https"),
            ("host", "=shop.example"),
            ("path", "=/a/b"),
            ("query", "=user=a%20b&evil=x%0A%3Dgold&none="),
            ("client-address", "=203.0.113.7"),
            ("tls-subject", "=CN=ada"),
            ("header X-A", "=1, 2"),
            ("header x-empty", "="),
            ("header x-none", ""),
            ("header no header", ""),
            ("cookie sid", "=7"),
            ("cookie SID", ""),
            ("parameter user", "=a b"),
            ("parameter none", "="),
            ("parameter nobody", ""),
            ("claim sub", "=\"ada\""),
            ("claim roles", "=[\"a\",1]"),
            ("claim note", "=\"x\\n=gold\""),
            ("claim nobody", ""),
        ];
        for (name, expected) in cases {
            assert_eq!(read(name).as_deref(), Ok(expected), "{name}");
        }
        let (names, expected): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
        assert_eq!(read(&names.join("\n")), Ok(expected.join("\n")), "in the order of the names");
    }

    #[test]
    fn a_value_does_not_look_like_the_next_one() {
        assert_eq!(read("parameter evil\nheader x-tier").as_deref(), Ok("=x\u{fffd}=gold\n"));
    }

    #[test]
    fn what_names_no_input_is_told_so() {
        for names in ["", "Path", "path ", "header", "header ", "path x", "body", "path\n", "path\r\nhost"] {
            let problem = read(names).unwrap_err();
            assert!(problem.contains("is no input"), "{names:?}: {problem}");
        }
        assert!(read(&["path"; MOST].join("\n")).is_ok());
        assert!(read(&["path"; MOST + 1].join("\n")).unwrap_err().contains("more than 32"));
        assert!(read(&"x".repeat(100_000)).unwrap_err().len() < 200);
    }

    #[test]
    fn other_names_are_read_anew() {
        let (parts, ()) = http::Request::get("/a").body(()).unwrap().into_parts();
        let head = Head::new(parts, Peer::new(([203, 0, 113, 7], 4711).into()), &[]);
        let mut inputs = Inputs::default();
        for (names, expected) in [("path", Ok("=/a")), ("method", Ok("=GET")), ("no", Err(())), ("method", Ok("=GET"))]
        {
            let read = inputs.read(names.to_owned(), &head);
            assert_eq!(read.as_deref().map_err(|_| ()), expected, "{names}");
        }
    }
}
