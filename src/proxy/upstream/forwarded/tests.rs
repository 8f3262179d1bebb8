use super::*;
use crate::base::trace::Sampler;
use crate::http::headers::Via;
use crate::http::request::Peer;
use http::Version;
use std::sync::Arc;

fn head(lines: &[(&str, &str)], trusted: &str) -> Arc<Head> {
    let peer = Peer::new(([10, 0, 0, 1], 4711).into());
    let trusted: Vec<ipnet::IpNet> = trusted.split_terminator(' ').map(|network| network.parse().unwrap()).collect();
    let mut request = http::Request::builder().uri("/x").version(Version::HTTP_11);
    for (name, value) in lines {
        request = request.header(*name, *value);
    }
    Head::new(request.body(()).unwrap().into_parts().0, peer, &trusted)
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn upstream(lines: &[(&str, &str)], trusted: &str, forwarded: bool) -> Vec<String> {
    let gateway = Gateway { forwarded, via: None, ..Gateway::default() };
    let headers = for_upstream(&[], &head(lines, trusted), &gateway);
    let mut left: Vec<String> =
        headers.iter().map(|(name, value)| format!("{}: {}", text(name), text(value))).collect();
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
            ("x-real-ip", "6.6.6.6"),
            ("x_forwarded_for", "6.6.6.6"),
            ("x-forwarded-client-cert", "subject=6"),
            ("x-rewrite-url", "/admin"),
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
fn a_list_of_hops_goes_on_without_empty_elements_at_its_ends() {
    let said = [("x-forwarded-for", ", 7.7.7.7,"), ("x-forwarded-for", " ,\t"), ("x-forwarded-for", "10.0.0.2 , ")];
    let left = upstream(&said, "10.0.0.0/8", false);
    assert!(left.contains(&"x-forwarded-for: 7.7.7.7, 10.0.0.2, 10.0.0.1".to_owned()), "{left:?}");
}

#[test]
fn what_only_a_proxy_says_comes_from_a_trusted_one() {
    let said = [("host", "a"), ("x-real-ip", "7.7.7.7"), ("x-forwarded-port", "443"), ("x-forwarded-prefix", "/a")];
    assert_eq!(upstream(&said, "", false).len(), 4);
    let passed = ["x-forwarded-port: 443", "x-forwarded-prefix: /a", "x-real-ip: 7.7.7.7"];
    let left = upstream(&said, "10.0.0.0/8", false);
    assert!(passed.iter().all(|line| left.iter().any(|passed| passed == line)), "{left:?}");
}

#[test]
fn a_clients_address_is_read_however_a_proxy_writes_it() {
    for (lines, expected) in [
        (&["7.7.7.7"][..], "7.7.7.7"),
        (&["6.6.6.6, 7.7.7.7:4711 "], "7.7.7.7"),
        (&["[2001:db8::1]"], "2001:db8::1"),
        (&["[2001:db8::1]:443"], "2001:db8::1"),
        (&["2001:db8::1"], "2001:db8::1"),
        (&["\"[2001:db8::1]:443\""], "2001:db8::1"),
        (&["[::ffff:7.7.7.7]"], "7.7.7.7"),
        (&["7.7.7.7,"], "7.7.7.7"),
        (&[",7.7.7.7"], "7.7.7.7"),
        (&[" , 7.7.7.7 ,\t, 10.0.0.9 ,, "], "7.7.7.7"),
        (&["7.7.7.7", "", "10.0.0.9", ","], "7.7.7.7"),
        // Nobody's word.
        (&["7.7.7.7, unknown"], "10.0.0.1"),
        (&["7.7.7.7, [7.7.7.8]"], "10.0.0.1"),
        (&["7.7.7.7, 7.7.7.7:99999"], "10.0.0.1"),
        (&["7.7.7.7, \"\"7.7.7.8\"\""], "10.0.0.1"),
        (&["7.7.7.7", "\u{e9}"], "10.0.0.1"),
        (&[",", ""], "10.0.0.1"),
    ] {
        let lines: Vec<(&str, &str)> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
        assert_eq!(head(&lines, "10.0.0.0/8").client.to_string(), expected, "{lines:?}");
    }
}

#[test]
fn via_names_the_protocol_that_the_client_spoke() {
    let gateway = Gateway { via: Via::new("edge-1"), ..Gateway::default() };
    let headers = for_upstream(&[], &head(&[("host", "a"), ("via", "1.0 before")], ""), &gateway);
    assert_eq!(headers.all("via").map(text).collect::<Vec<_>>(), ["1.0 before", "1.1 edge-1"]);
    assert_eq!((Via::new(""), Via::new("a b"), Via::new("a,b")), (None, None, None));
}

#[test]
fn the_attempt_is_the_parent_where_the_gateway_takes_part_in_traces() {
    const SENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let begin = |sampler| {
        let state = [&b"a=1"[..], b"b=2"].into_iter();
        TraceContext::begin(Some(SENT.as_bytes()), state, sampler, &mut crate::base::chance::Chance(1))
    };
    let sent: Fields = [("traceparent", SENT), ("tracestate", "a=1"), ("tracestate", "b=2")].into_iter().collect();
    let mut headers = sent.clone();
    trace(&mut headers, &begin(None), 7);
    assert_eq!(headers.to_map(), sent.to_map());
    trace(&mut headers, &begin(Some(Sampler::DEFAULT)), 7);
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000007-01";
    assert_eq!(headers.only("traceparent").map(text), Some(parent));
    assert_eq!(headers.only("tracestate").map(text), Some("a=1,b=2"));
}
