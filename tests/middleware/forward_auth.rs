//! `forward_auth` before checks that say yes, no, something else, or nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

use crate::support::gateway::Gateway;
use crate::support::heard::{Heard, response};
use crate::support::program::{Program, get_as, nobody};
use crate::support::raw::Raw;
use serde_json::Value;
use std::fmt::Display;

/// A gateway whose requests below `/in` this check is asked about.
fn gateway(check: impl Display, shop: impl Display, keys: &str) -> Program {
    let rule = format!(
        "[[middleware]]\nname = \"outside\"\nmatch = {{ path_prefix = \"/in\" }}\nforward_auth = {{ service = \"auth\", \
         path = \"/check?v=1\", copy = [\"x-user\", \"x-role\"]{keys} }}\n"
    );
    let gateway = Gateway::with().named("auth").endpoint(check).named("shop").endpoint(shop);
    gateway.table(&rule).telemetry("access_log = \"json\"").start()
}

fn counted(gateway: &Program, outcome: &str) -> f64 {
    let labels = format!("middleware=\"outside\",kind=\"forward_auth\",outcome=\"{outcome}\"");
    gateway.metric(&format!("wayside_middleware_total{{{labels}}}")).unwrap()
}

#[test]
fn what_the_check_lets_pass_goes_on_with_its_word_and_not_the_clients() {
    let check = Heard::saying(200, "x-user: ada\r\nx-role: a\r\nx-role: b\r\nx-other: 1\r\n", "come in");
    let shop = Heard::saying(200, "", "sold");
    let gateway = gateway(check.address, shop.address, "");
    let mut client = Raw::connect(&gateway.address);
    for _ in 0..2 {
        client.say(
            "POST /in/./a?b=c HTTP/1.1\r\nhost: shop.example\r\nauthorization: Bearer 1\r\nx-user: root\r\n\
             X_User: root\r\nx-secret: 1\r\nx-forwarded-method: GET\r\nx-forwarded-for: 9.9.9.9\r\ncontent-length: 4\r\n\
             \r\nbody",
        );
        let (head, body) = client.response();
        assert!(head.starts_with("HTTP/1.1 200") && body == "sold", "{head}");
    }
    let (asked, nothing) = check.requests().remove(1);
    assert!(asked.starts_with("get /check?v=1 http/1.1\r\n") && nothing.is_empty(), "{asked}");
    for line in [
        "host: shop.example",
        "authorization: bearer 1",
        "x-forwarded-method: post",
        "x-forwarded-uri: /in/a?b=c",
        "x-forwarded-host: shop.example",
        "x-forwarded-proto: http",
        "x-forwarded-for: 127.0.0.1",
    ] {
        assert_eq!(asked.lines().filter(|sent| *sent == line).count(), 1, "{line}: {asked}");
    }
    let (sent, body) = shop.requests().remove(1);
    for seen in ["x-secret", "root", "content-length", "9.9.9.9", "transfer-encoding"] {
        assert!(!asked.contains(seen), "{seen}: {asked}");
    }
    assert_eq!(body, "body");
    assert!(sent.contains("x-user: ada\r\n") && sent.contains("x-role: a\r\nx-role: b\r\n"), "{sent}");
    assert!(!sent.contains("root") && !sent.contains("x-other"), "{sent}");
    // Nor can one that nobody is asked about come with it, and the check counts as no request of a client's.
    get_as(&gateway.address, "a", "/out", &[("x-user", "root")]);
    assert!(!shop.requests().remove(2).0.contains("root"));
    assert_eq!(check.requests().len(), 2);
    let attempts = "wayside_upstream_attempts_total{service=\"auth\",outcome=\"2xx\"}";
    assert_eq!(gateway.metric(attempts), Some(2.0));
    assert_eq!(gateway.metric("wayside_requests_total{route=\"none\",service=\"auth\",code=\"2xx\"}"), None);
    let (lines, _) = gateway.stop();
    assert!(lines.len() == 3 && lines.iter().all(|line| line.contains("\"attempts\":1")), "{lines:?}");
}

#[test]
fn whatever_else_it_says_is_the_clients() {
    let check = Heard::answering(|head| {
        let large = "x".repeat(70_000);
        Some(match head.lines().find_map(|line| line.strip_prefix("x-forwarded-uri: /in/")).unwrap() {
            "who" => {
                response(401, "www-authenticate: Custom realm=\"a\"\r\nset-cookie: n=1\r\nx-user: eve\r\n", "who?")
            }
            "login" => response(302, "location: https://id.example/?rd=1\r\nconnection: close\r\n", ""),
            _ => response(403, "content-type: text/plain\r\nx-why: large\r\n", &large),
        })
    });
    let shop = Heard::saying(200, "", "sold");
    let gateway = gateway(check.address, shop.address, "");
    let ask = |path: &str| get_as(&gateway.address, "a", path, &[]);
    let who = ask("/in/who");
    assert!(who.starts_with("HTTP/1.1 401") && who.ends_with("\r\n\r\nwho?"), "{who}");
    assert!(who.contains("www-authenticate: Custom realm=\"a\"\r\n") && who.contains("set-cookie: n=1\r\n"), "{who}");
    let login = ask("/in/login");
    assert!(login.starts_with("HTTP/1.1 302") && login.contains("location: https://id.example/?rd=1\r\n"), "{login}");
    let large = ask("/in/large");
    assert!(large.starts_with("HTTP/1.1 403") && large.contains("x-why: large\r\n"), "{large}");
    assert!(large.ends_with("\r\n\r\n") && !large.contains("content-type"), "{large}");
    assert!(shop.requests().is_empty());
    assert_eq!(["answered", "refused", "failed"].map(|outcome| counted(&gateway, outcome)), [1.0, 2.0, 0.0]);
    let (lines, _) = gateway.stop();
    let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let statuses: Vec<_> = lines.iter().map(|line| line["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [401, 302, 403]);
    let by = |line: &Value| line["middleware"] == "outside" && line["middleware_kind"] == "forward_auth";
    assert!(lines.iter().all(by), "{lines:?}");
}

#[test]
fn a_check_that_fails_lets_nobody_in_unless_that_is_said() {
    let shop = Heard::saying(200, "", "sold");
    let (broken, silent) = (Heard::saying(500, "", "oops"), Heard::answering(|_| None));
    let nobody = nobody();
    for check in [nobody.address, broken.address, silent.address] {
        let strict = gateway(check, shop.address, ", timeout = \"300ms\"");
        let before = shop.requests().len();
        let refused = get_as(&strict.address, "a", "/in", &[]);
        assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("\"auth_unavailable\""), "{refused}");
        assert_eq!((shop.requests().len(), counted(&strict, "failed")), (before, 1.0));
        let open = gateway(check, shop.address, ", timeout = \"300ms\", on_failure = \"allow\"");
        let passed = get_as(&open.address, "a", "/in", &[("x-user", "root")]);
        assert!(passed.starts_with("HTTP/1.1 200"), "{passed}");
        assert!(!shop.requests().last().unwrap().0.contains("root"));
        assert_eq!((counted(&open, "let_through"), counted(&open, "failed")), (1.0, 0.0));
        let (lines, _) = open.stop();
        assert!(lines[0].contains("\"unchecked\":\"outside\""), "{lines:?}");
    }
}

#[test]
fn a_service_that_is_not_there_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let config =
        "[[middleware]]\nforward_auth = { service = \"auth\" }\n[[middleware]]\nmirror = { service = \"x\" }\n";
    let told = crate::support::program::launch(folder, config, &[]).failed();
    let told = told.join("\n");
    assert!(told.contains("middleware, number 1: forward_auth.service: there is no `[services.auth]`"), "{told}");
}
