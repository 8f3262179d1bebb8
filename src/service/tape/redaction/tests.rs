//! What is taken out, and from where.

use super::*;
use crate::http::request::Peer;
use proptest::prelude::*;
use std::sync::Arc;

fn head(uri: &str, headers: &[(&str, &str)]) -> Arc<Head> {
    let mut request = http::Request::get(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Head::new(request.body(()).unwrap().into_parts().0, Peer::new(([203, 0, 113, 7], 4711).into()), &[])
}

/// The head's lines and target as they are told, and what is left of a text.
fn told(rules: &[&str], uri: &str, headers: &[(&str, &str)], text: &str) -> (String, String) {
    let redaction = Redaction::parse(rules).unwrap();
    let head = head(uri, headers);
    let secrets = redaction.secrets(&head);
    let mut out = redaction.target(head.parts.target.as_str(), &secrets).into_owned();
    for (name, value) in head.parts.headers.iter() {
        let value = redaction.line(name, value, &secrets);
        out += &format!("|{}: {}", String::from_utf8_lossy(name), String::from_utf8_lossy(&value));
    }
    let mut text = text.to_owned();
    secrets.clean(&mut text);
    (out.replace(MARK, "*"), text.replace(MARK, "*"))
}

#[test]
fn values_go_and_names_stay() {
    let cookies = &[("cookie", "theme=dark; sid=\"user-7\"")][..];
    assert_eq!(
        told(&["cookie:sid"], "/a", cookies, "sticky USER-7 dark"),
        ("/a|cookie: theme=dark; sid=*".into(), "sticky * dark".into())
    );
    assert_eq!(
        told(&["cookie:*"], "/a", cookies, "sticky user-7 dark"),
        ("/a|cookie: theme=*; sid=*".into(), "sticky * *".into())
    );
    assert_eq!(told(&["header:Cookie"], "/user-7", cookies, "user-7 theme"), ("/*|cookie: *".into(), "* theme".into()));
    assert_eq!(
        told(&["query:token"], "/a?x=1&t%6fken=s%20cret&token=two2", &[("x-a", "s cret, two2")], "s cret s%20cret"),
        ("/a?x=1&t%6fken=*&token=*|x-a: *, *".into(), "* *".into())
    );
}

#[test]
fn what_a_scheme_says_is_hidden_in_each_of_its_forms() {
    let basic = &[("authorization", "Basic dXNlcjpwYXNzd29yZA==")][..];
    let (line, text) = told(&["header:authorization"], "/", basic, "dXNlcjpwYXNzd29yZA user:password PassWord Basic");
    assert_eq!((line.as_str(), text.as_str()), ("/|authorization: *", "* * * Basic"));
    let (_, text) = told(&["header:authorization"], "/", &[("authorization", "Bearer t0ken")], "t0ken Bearer");
    assert_eq!(text, "* Bearer");
}

#[test]
fn what_is_too_short_to_be_looked_for_is_told_apart() {
    let redaction = Redaction::parse(&["cookie:*"]).unwrap();
    let secrets = redaction.secrets(&head("/", &[("cookie", "a=1")]));
    assert!(secrets.has_short() && !secrets.is_empty() && secrets.take_out(b"1111").is_none());
    assert!(redaction.secrets(&head("/", &[])).is_empty());
}

#[test]
fn rules_that_are_none_are_told_so() {
    for rule in ["", "header", "header:", "header:a b", "cookie:", "body:x", "Config", "\u{1b}[31m"] {
        let problem = Redaction::parse(&[rule]).unwrap_err();
        assert!(problem.contains("is no rule") && !problem.contains('\u{1b}'), "{problem}");
    }
    assert!(Redaction::parse(&["config", "header:X-A", "cookie:*", "query:a"]).unwrap().config);
    assert!(Redaction::parse(&["config"; MOST + 1]).is_err());
}

proptest! {
    #[test]
    fn no_secret_is_left(
        secret in "[a-zA-Z0-9!#$%&'*+.^_`|~-]{4,12}",
        before in "[ -~]{0,12}",
        after in "[ -~]{0,12}",
    ) {
        let redaction = Redaction::parse(&["header:x-secret"]).unwrap();
        let secrets = redaction.secrets(&head("/", &[("x-secret", &secret)]));
        let mut text = format!("{before}{secret}{after}{}", secret.to_uppercase());
        prop_assert!(secrets.clean(&mut text));
        let left = text.replace(MARK, "\0");
        prop_assert!(!left.to_ascii_lowercase().contains(&secret.to_ascii_lowercase()), "{left}");
    }

    #[test]
    fn nothing_else_is_changed(text in "\\PC{0,40}") {
        let secrets = Redaction::parse(&["header:x-secret"]).unwrap().secrets(&head("/", &[("x-other", "text")]));
        let mut told = text.clone();
        prop_assert!(!secrets.clean(&mut told) && told == text);
    }
}
