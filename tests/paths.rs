//! Guards that nobody walks around: what reaches a service is never what another rule was to keep.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

use crate::support::gateway::Gateway;
use crate::support::program::{Program, echo};
use std::io::{Read, Write};
use std::net::TcpStream;

/// A gateway before one service for what is under `/admin` at a host of its own, and one for the rest. Each answers
/// with the head that it was sent.
fn guarded(gateway: &str) -> Program {
    Gateway::with()
        .keys(gateway)
        .named("admin")
        .endpoint(echo())
        .service("host = \"admin.internal\"")
        .route("match = { path_prefix = \"/%61dmin\" }")
        .route("match = { host = \"admin.example\" }")
        .named("rest")
        .endpoint(echo())
        .route("match = { path_prefix = \"/\" }")
        .start()
}

/// Who answers, and the target that it was sent; or the status and the code.
fn asked(gateway: &Program, path: &str, host: &str) -> (String, String) {
    let mut stream = TcpStream::connect(&gateway.address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    if !head.starts_with("HTTP/1.1 200 ") {
        let code: serde_json::Value = serde_json::from_str(body).unwrap();
        return (head[9..12].to_owned(), code["error"]["code"].as_str().unwrap().to_owned());
    }
    let who = if body.contains("host: admin.internal\r\n") { "admin" } else { "rest" };
    (who.to_owned(), body.split(' ').nth(1).unwrap().to_owned())
}

fn expect(gateway: &Program, path: &str, who: &str, what: &str) {
    assert_eq!(asked(gateway, path, "a"), (who.to_owned(), what.to_owned()), "{path}");
}

#[test]
fn no_spelling_leads_past_a_guard() {
    let gateway = guarded("");
    for (path, target) in [
        ("/admin/x?q=/../%61", "/admin/x?q=/../%61"),
        ("/%61dmin/x?q=%61", "/admin/x?q=%61"),
        ("//admin/x", "//admin/x"),
        ("/admin;a=b/x", "/admin;a=b/x"),
        ("/x/%2e%2e/admin/x", "/admin/x"),
        ("/admin%2fx", "/admin%2Fx"),
    ] {
        expect(&gateway, path, "admin", target);
    }
    let ambiguous = [
        "/x/..%2fadmin/x",
        "/x/..%5cadmin/x",
        "/x\\..\\admin\\x",
        "/x/..;/admin/x",
        "/x/%2e%2e%2Fadmin",
        "/x%2f%2e./admin",
        "/x//../admin",
    ];
    for path in ambiguous {
        expect(&gateway, path, "400", "bad_request");
    }
    let counted = gateway.metric("wayside_refused_requests_total{kind=\"ambiguous_path\"}");
    assert_eq!(counted, Some(ambiguous.len() as f64));
    for (path, target) in [
        ("/admin/../x", "/x"),
        ("/%2561dmin/x", "/%2561dmin/x"),
        ("/%%361dmin/x", "/%%361dmin/x"),
        ("/a%2fb;c//d", "/a%2Fb;c//d"),
    ] {
        expect(&gateway, path, "rest", target);
    }
    for host in ["admin.example", "Admin.Example.", "admin.example.:80"] {
        assert_eq!(asked(&gateway, "/", host).0, "admin", "{host}");
    }
}

#[test]
fn a_gateway_can_be_stricter_or_forward_what_it_was_sent() {
    let strict = guarded("paths = \"strict\"");
    for path in ["/a%2fb", "/a%5Cb", "/a\\b", "/x/..;/admin"] {
        expect(&strict, path, "400", "bad_request");
    }
    expect(&strict, "/a;b//%63", "rest", "/a;b//c");
    let lenient = guarded("paths = \"as-sent\"");
    expect(&lenient, "/%61dmin/x", "admin", "/%61dmin/x");
    for path in ["/x/..%2fadmin/x", "/x/..;/admin/x", "/x\\..\\admin", "/a%2fb"] {
        expect(&lenient, path, "rest", path);
    }
    expect(&lenient, "/admin/../a", "rest", "/a");
}
