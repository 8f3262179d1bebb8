use super::edit::HeaderEdit;
use super::*;
use crate::http::request::Peer;
use std::sync::Arc;

fn parts(target: &str, version: Version, lines: &[(&str, &str)]) -> Parts {
    let mut request = http::Request::builder().uri(target).version(version);
    for (name, value) in lines {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn head(lines: &[(&str, &str)], trusted: &str) -> Arc<Head> {
    let peer = Peer::new(([10, 0, 0, 1], 4711).into());
    let trusted: Vec<ipnet::IpNet> = trusted.split_terminator(' ').map(|network| network.parse().unwrap()).collect();
    Head::new(parts("/x", Version::HTTP_11, lines), peer, &trusted)
}

fn upstream(lines: &[(&str, &str)], trusted: &str, forwarded: bool) -> Vec<String> {
    let gateway = Gateway { forwarded, via: None, ..Gateway::default() };
    let headers = for_upstream(&head(lines, trusted), &gateway);
    let mut left: Vec<String> =
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    left.sort();
    left
}

#[test]
fn what_belongs_to_the_connection_ends_here() {
    let left = upstream(
        &[
            ("host", "a"),
            ("connection", "close, X-Secret"),
            ("x-secret", "1"),
            ("keep-alive", "5"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("proxy-connection", "close"),
            ("x-forwarded-for", "6.6.6.6"),
            ("forwarded", "for=6.6.6.6"),
            ("accept", "*/*"),
        ],
        "",
        false,
    );
    let expected = [
        "accept: */*",
        "host: a",
        "te: trailers",
        "x-forwarded-for: 10.0.0.1",
        "x-forwarded-host: a",
        "x-forwarded-proto: http",
    ];
    assert_eq!(left, expected);
}

#[test]
fn the_word_of_a_trusted_proxy_is_taken_and_nobody_elses() {
    let said = [
        ("host", "a"),
        ("connection", "x-forwarded-for"),
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-for", "7.7.7.7, 10.0.0.2"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "b"),
        ("forwarded", "for=7.7.7.7"),
    ];
    let expected = [
        "forwarded: for=10.0.0.1;host=\"a\";proto=http",
        "forwarded: for=7.7.7.7",
        "host: a",
        "x-forwarded-for: 6.6.6.6, 7.7.7.7, 10.0.0.2, 10.0.0.1",
        "x-forwarded-host: b",
        "x-forwarded-proto: https",
    ];
    assert_eq!(upstream(&said, "10.0.0.0/8", true), expected);
    assert_eq!(head(&said, "10.0.0.0/8").client.to_string(), "7.7.7.7");
    assert_eq!(head(&said, "10.0.0.0/31").client.to_string(), "10.0.0.2");
    assert_eq!(head(&said, "192.168.0.0/16").client.to_string(), "10.0.0.1");
    assert_eq!(head(&[("x-forwarded-for", "7.7.7.7, what")], "10.0.0.0/8").client.to_string(), "10.0.0.1");
    assert_eq!(head(&[("x-forwarded-for", "[2001:db8::1]:80")], "10.0.0.0/8").client.to_string(), "2001:db8::1");
    assert_eq!(head(&[], "10.0.0.0/8").client.to_string(), "10.0.0.1");
}

#[test]
fn via_names_the_protocol_that_the_client_spoke() {
    let gateway = Gateway { via: Via::new("edge-1"), ..Gateway::default() };
    let headers = for_upstream(&head(&[("host", "a"), ("via", "1.0 before")], ""), &gateway);
    assert_eq!(headers.get_all(header::VIA).iter().collect::<Vec<_>>(), ["1.0 before", "1.1 edge-1"]);
    assert_eq!((Via::new(""), Via::new("a b"), Via::new("a,b")), (None, None, None));
}

#[test]
fn edits_apply_in_order() {
    let name = HeaderName::from_static("x-a");
    let value = HeaderValue::from_static;
    let mut headers = HeaderMap::new();
    edit::apply(
        &mut headers,
        &[
            HeaderEdit::Append(name.clone(), value("1")),
            HeaderEdit::Set(name.clone(), value("2")),
            HeaderEdit::Append(name.clone(), value("3")),
        ],
    );
    assert_eq!(headers.get_all(&name).iter().collect::<Vec<_>>(), ["2", "3"]);
    edit::apply(&mut headers, &[HeaderEdit::Remove(name)]);
    assert!(headers.is_empty());
}

#[test]
fn cookies_are_found_by_exact_name() {
    let lines = [&b"xsid=0; sid=\"a b\";sid=2"[..], b"e=; q=\"; u=\xc3\xa9"];
    let line = |line: &[u8]| (header::COOKIE, HeaderValue::from_bytes(line).unwrap());
    let headers: HeaderMap = lines.into_iter().map(line).collect();
    let cases = [("sid", Some("a b")), ("SID", None), ("e", Some("")), ("q", Some("\"")), ("u", Some("é"))];
    for (name, expected) in cases {
        assert_eq!(cookie(&headers, name).as_deref(), expected, "{name}");
    }
}

/// The host that everybody sees, or the kind of what is wrong.
fn host(target: &str, version: Version, lines: &[(&str, &str)]) -> Result<String, &'static str> {
    let mut parts = parts(target, version, lines);
    match check(&mut parts, &Gateway::default().limits) {
        Ok(()) => Ok(parts.headers.get(header::HOST).map_or("", |host| host.to_str().unwrap()).to_owned()),
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
    check(&mut parts, &Gateway::default().limits).unwrap();
    assert_eq!(parts.headers.get_all(header::COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2; c=3"]);
}

#[test]
fn options_end_where_they_say() {
    let mut cases = [("*", None, true), ("/", None, false), ("/", Some("0"), true), ("/", Some("3"), false)];
    for (target, steps, ends) in &mut cases {
        let mut parts = parts(target, Version::HTTP_11, &[]);
        parts.method = Method::OPTIONS;
        if let Some(steps) = steps {
            parts.headers.insert(header::MAX_FORWARDS, HeaderValue::from_static(steps));
        }
        assert_eq!(ends_at_this_hop(&mut parts), *ends, "{target} {steps:?}");
        assert!(*ends || steps.is_none() || parts.headers[header::MAX_FORWARDS] == "2");
    }
}

#[test]
fn trailers_say_nothing_that_should_have_been_checked_before() {
    let line = |name: &'static str| (HeaderName::from_static(name), HeaderValue::from_static("1"));
    let good = ["grpc-status", "grpc-message", "x-sum", "server-timing", "digest", "etag"];
    let bad = ["host", "content-length", "transfer-encoding", "authorization", "set-cookie", "x-forwarded-for", "te"];
    let mut trailers: HeaderMap = good.iter().chain(&bad).map(|name| line(name)).collect();
    end_trailers(&mut trailers);
    let mut left: Vec<&str> = trailers.keys().map(HeaderName::as_str).collect();
    left.sort_unstable();
    assert_eq!(left, ["digest", "etag", "grpc-message", "grpc-status", "server-timing", "x-sum"]);
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
