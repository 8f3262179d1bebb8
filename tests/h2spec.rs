//! h2spec's 145 cases (RFC 9113 and RFC 7541, in the words of RFC 7540) against the listener, with and without TLS.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

use crate::support::certificates::Authority;
use crate::support::origin::{Origin, Protocol};
use crate::support::program::Program;
use crate::support::servers;
use std::process::Command;

/// What h2spec says of a listener: the last line of its summary, and all that it printed.
fn spec(address: &str, options: &[&str]) -> (String, String) {
    let (host, port) = address.rsplit_once(':').unwrap();
    let spec = Command::new(servers::program("h2spec"))
        .args(["--host", host, "--port", port, "--timeout", "5", "--path", "/whole"])
        .args(options)
        .output()
        .unwrap();
    let told = String::from_utf8(spec.stdout).unwrap();
    let summary = told.lines().rev().find(|line| line.contains("tests, ")).expect(&told).to_owned();
    (summary, told)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_passes_where_http_2_was_agreed_on_and_all_but_one_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    Authority::new().issue(&["localhost"], folder.path(), "a");
    // Some cases take a request back whose body has not ended, and expect what RFC 9113 §5.1 says of a stream that the
    // client has closed; an origin that answered before would have let the gateway close it first.
    let origin = Origin::start(Protocol::Http2).await;
    let services = format!("[[services.shop.endpoints]]\naddress = \"{}\"\n", origin.address);
    std::fs::write(folder.path().join("services.toml"), services).unwrap();
    let tls = "{ address = \"127.0.0.1:0\", certificates = [{ chain = \"a.pem\", key = \"a.key\" }] }";
    let config = format!(
        "listen = [\"127.0.0.1:0\", {tls}]\n[sources.local]\nkind = \"file\"\npath = \"services.toml\"\n\
         [services.shop]\nsource = \"local\"\nprotocol = \"h2\"\n\
         [[routes]]\nmatch = {{ path_prefix = \"/\" }}\nservice = \"shop\"\n"
    );
    let gateway = Program::start(folder, &config, &[]);
    let (summary, told) = spec(&gateway.addresses[1], &["--tls", "--insecure"]);
    assert_eq!(summary, "145 tests, 145 passed, 0 skipped, 0 failed", "{told}");
    // Case 3.5/2 begins with what is no preface. A port that speaks both takes that for HTTP/1.1, and answers it with
    // 400 in HTTP/1.1's words (RFC 9112 §3) before it closes, where h2spec wants it closed without a word.
    let (summary, told) = spec(&gateway.addresses[0], &[]);
    assert_eq!(summary, "145 tests, 144 passed, 0 skipped, 1 failed", "{told}");
    assert!(told.contains("× 2: Sends invalid connection preface"), "{told}");
}
