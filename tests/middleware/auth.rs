//! `basic` with files that real tools write, and `api_key`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

use crate::support::gateway::Gateway;
use crate::support::program::{echo, get_as, until};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use std::process::Command;

fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{name}:{password}")))
}

/// As `openssl` writes it.
fn crypt(kind: &str, password: &str) -> String {
    let made = Command::new("openssl").args(["passwd", kind, password]).output().unwrap();
    assert!(made.status.success());
    String::from_utf8(made.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_password_of_each_kind_opens_and_the_file_is_read_again() {
    let users = format!(
        "ada:{}\nbob:{}\ncid:{}\n",
        bcrypt::hash("one", 5).unwrap().replace("$2b$", "$2y$"),
        crypt("-6", "two"),
        crypt("-5", "three")
    );
    let rule =
        "[[middleware]]\nmatch = { path_prefix = \"/in\" }\nbasic = { file = \"users\", realm = \"the shop\" }\n";
    let gateway =
        Gateway::with().endpoint(echo()).file("users", &users).table(rule).telemetry("access_log = \"json\"").start();
    let ask = |path: &str, headers: &[(&str, &str)]| get_as(&gateway.address, "a", path, headers);
    for (name, password) in [("ada", "one"), ("bob", "two"), ("cid", "three"), ("ada", "one")] {
        let seen =
            ask("/in", &[("authorization", &basic(name, password)), ("X_Auth_Subject", "root")]).to_ascii_lowercase();
        assert!(seen.starts_with("http/1.1 200") && seen.contains(&format!("x-auth-subject: {name}")), "{seen}");
        assert!(!seen.contains("authorization") && !seen.contains("root"), "{seen}");
    }
    let wrong = [basic("ada", "two"), basic("eve", "one"), basic("ada", ""), "Basic !".into(), "Bearer a".into()];
    for line in &wrong {
        let refused = ask("/in", &[("authorization", line)]);
        assert!(refused.starts_with("HTTP/1.1 401"), "{refused}");
        assert!(refused.contains("www-authenticate: Basic realm=\"the shop\", charset=\"UTF-8\""), "{refused}");
        assert!(refused.contains("\"code\":\"unauthenticated\""), "{refused}");
    }
    // Who is not asked cannot claim to be somebody.
    let outside = ask("/out", &[("x-auth-subject", "root")]);
    assert!(outside.starts_with("HTTP/1.1 200") && !outside.contains("root"), "{outside}");
    // Of a file that is wrong, the last good one stays; of a good one, who is gone stays out, though it was known.
    std::fs::write(gateway.folder().join("users"), "ada:$apr1$a$b\n").unwrap();
    until("the file is refused", || gateway.ask("/snapshot").contains("MD5 is too weak"));
    assert!(ask("/in", &[("authorization", &basic("ada", "one"))]).starts_with("HTTP/1.1 200"));
    std::fs::write(gateway.folder().join("users"), format!("bob:{}\n", crypt("-6", "two"))).unwrap();
    until("ada is gone", || ask("/in", &[("authorization", &basic("ada", "one"))]).starts_with("HTTP/1.1 401"));
    assert!(ask("/in", &[("authorization", &basic("bob", "two"))]).starts_with("HTTP/1.1 200"));
    let (lines, _) = gateway.stop();
    assert!(lines.iter().any(|line| line.contains("\"user\":\"bob\"")), "{lines:?}");
}

#[test]
fn a_key_opens_and_goes_no_further_not_even_into_the_log() {
    let rules = "[[middleware]]\nmatch = { path_prefix = \"/h\" }\napi_key = { file = \"keys\", header = \"x-api-key\" }\n\
                 [[middleware]]\nmatch = { path_prefix = \"/q\" }\napi_key = { file = \"keys\", query = \"key\" }\n";
    let keys = "shop: 0123456789abcdef\n";
    let gateway =
        Gateway::with().endpoint(echo()).file("keys", keys).table(rules).telemetry("access_log = \"json\"").start();
    let ask = |path: &str, headers: &[(&str, &str)]| get_as(&gateway.address, "a", path, headers).to_ascii_lowercase();
    let answers = [ask("/h", &[("x-api-key", "0123456789abcdef")]), ask("/q?a=1&key=0123456789abcdef&b=2", &[])];
    for seen in &answers {
        assert!(seen.starts_with("http/1.1 200") && seen.contains("x-auth-subject: shop"), "{seen}");
        assert!(!seen.contains("0123456789abcdef"), "{seen}");
    }
    assert!(answers[1].contains("get /q?a=1&b=2 http/1.1"), "{}", answers[1]);
    for refused in
        [ask("/h", &[("x-api-key", "0123456789abcdee")]), ask("/q?key=0123456789abcdee", &[]), ask("/q", &[])]
    {
        assert!(refused.starts_with("http/1.1 401") && refused.contains("www-authenticate: apikey"), "{refused}");
    }
    let (lines, _) = gateway.stop();
    let lines = lines.join("\n");
    assert!(lines.contains("\"user\":\"shop\"") && !lines.contains("0123456789abcde"), "{lines}");
}
