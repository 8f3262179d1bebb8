use super::edit::{self, HeaderEdit};
use super::*;

#[test]
fn edits_apply_in_order() {
    let name = HeaderName::from_static("x-a");
    let value = http::HeaderValue::from_static;
    let mut headers = Fields::default();
    edit::apply(
        &mut headers,
        &[
            HeaderEdit::Append(name.clone(), value("1")),
            HeaderEdit::Set(name.clone(), value("2")),
            HeaderEdit::Append(name.clone(), value("3")),
        ],
    );
    assert_eq!(headers.all("x-a").collect::<Vec<_>>(), [b"2", b"3"]);
    edit::apply(&mut headers, &[HeaderEdit::Remove(name)]);
    assert!(headers.is_empty());
}

#[test]
fn cookies_are_found_by_exact_name() {
    let lines = [&b"xsid=0; sid=\"a b\";sid=2"[..], b"e=; q=\"; u=\xc3\xa9"];
    let mut headers = Fields::default();
    for line in lines {
        headers.append("cookie", line);
    }
    let cases = [("sid", Some("a b")), ("SID", None), ("e", Some("")), ("q", Some("\"")), ("u", Some("é"))];
    for (name, expected) in cases {
        assert_eq!(cookie(&headers, name).as_deref(), expected, "{name}");
    }
}

#[test]
fn trailers_say_nothing_that_should_have_been_checked_before() {
    let line = |name: &'static str| (HeaderName::from_static(name), http::HeaderValue::from_static("1"));
    let good = ["grpc-status", "grpc-message", "x-sum", "server-timing", "digest", "etag"];
    let bad = [
        "x_forwarded_for",
        "x-real-ip",
        "x_original-url",
        "content_type",
        "host",
        "content-length",
        "transfer-encoding",
        "authorization",
        "set-cookie",
        "x-forwarded-for",
        "te",
    ];
    let mut trailers: HeaderMap = good.iter().chain(&bad).map(|name| line(name)).collect();
    end_trailers(&mut trailers);
    let mut left: Vec<&str> = trailers.keys().map(HeaderName::as_str).collect();
    left.sort_unstable();
    assert_eq!(left, ["digest", "etag", "grpc-message", "grpc-status", "server-timing", "x-sum"]);
}
