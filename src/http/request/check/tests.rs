use super::*;
use crate::http::settings::Gateway;

fn parts(target: &str, version: Version, lines: &[(&str, &str)]) -> Parts {
    let mut request = http::Request::builder().uri(target).version(version);
    for (name, value) in lines {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0.into()
}

fn host(target: &str, version: Version, lines: &[(&str, &str)]) -> Result<String, &'static str> {
    let mut parts = parts(target, version, lines);
    match check(&mut parts, &Gateway::default()) {
        Ok(()) => Ok(String::from_utf8(parts.headers.get("host").unwrap_or_default().to_vec()).unwrap()),
        Err(Error::Malformed(malformed)) => Err(malformed.name()),
        Err(other) => Err(other.code()),
    }
}

#[test]
fn a_request_has_one_host() {
    let (one, ten, two) = (Version::HTTP_11, Version::HTTP_10, Version::HTTP_2);
    type Case<'a> = (&'a str, Version, &'a [(&'a str, &'a str)], Result<&'a str, &'a str>);
    let cases: [Case<'_>; 22] = [
        ("/", one, &[("host", "a")], Ok("a")),
        ("/", one, &[("host", "A-1_b.example:8080")], Ok("A-1_b.example:8080")),
        ("/", one, &[("host", "[2001:db8::1]:80")], Ok("[2001:db8::1]:80")),
        ("/", one, &[("host", "[::1]")], Ok("[::1]")),
        // RFC 9112 §3.2
        ("/", one, &[], Err("host")),
        ("/", one, &[("host", "")], Err("host")),
        ("/", one, &[("host", "a"), ("host", "a")], Err("host")),
        ("/", one, &[("host", "a b")], Err("host")),
        ("/", one, &[("host", "a,b")], Err("host")),
        ("/", one, &[("host", "a/b")], Err("host")),
        ("/", one, &[("host", "u@a")], Err("host")),
        ("/", one, &[("host", "a:b")], Err("host")),
        ("/", one, &[("host", "a:80:80")], Err("host")),
        ("/", one, &[("host", "[::1")], Err("host")),
        ("/", ten, &[], Ok("")),
        // RFC 9112 §3.2.2: the target wins.
        ("http://b/", one, &[("host", "a")], Ok("b")),
        ("http://u@b/", one, &[("host", "a")], Err("host")),
        ("b:80", one, &[("host", "a")], Err("target")),
        ("*", one, &[("host", "a")], Err("target")),
        // RFC 9113 §8.3.1
        ("http://b/", two, &[], Ok("b")),
        ("http://b/", two, &[("host", "B")], Ok("B")),
        ("http://b/", two, &[("host", "a")], Err("authority")),
    ];
    for (target, version, lines, expected) in cases {
        assert_eq!(host(target, version, lines), expected.map(str::to_owned), "{target} {version:?} {lines:?}");
    }
}

#[test]
fn cookies_of_http_2_are_put_into_one_line() {
    let mut parts = parts("http://a/", Version::HTTP_2, &[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")]);
    check(&mut parts, &Gateway::default()).unwrap();
    assert_eq!(parts.headers.all("cookie").collect::<Vec<_>>(), [b"a=1; b=2; c=3"]);
}

#[test]
fn options_end_where_they_say() {
    let mut cases = [("*", None, true), ("/", None, false), ("/", Some("0"), true), ("/", Some("3"), false)];
    for (target, steps, ends) in &mut cases {
        let mut parts = parts(target, Version::HTTP_11, &[]);
        parts.method = Method::OPTIONS;
        if let Some(steps) = steps {
            parts.headers.set("max-forwards", steps.as_bytes());
        }
        assert_eq!(ends_at_this_hop(&mut parts), *ends, "{target} {steps:?}");
        assert!(*ends || steps.is_none() || parts.headers.get("max-forwards") == Some(b"2"));
    }
}

proptest::proptest! {
    #[test]
    fn no_authority_that_passes_can_be_taken_for_another(text in "[a-zA-Z0-9.:@/\\[\\]%,_ \\-]{0,12}") {
        if is_authority(text.as_bytes()) {
            let parsed: http::uri::Authority = text.parse().unwrap();
            proptest::prop_assert!(!text.contains(['@', '/', ' ', ',']) && !parsed.host().is_empty());
        }
    }
}
