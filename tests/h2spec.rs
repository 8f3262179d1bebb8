//! h2spec's 145 cases (RFC 9113 and RFC 7541, in the words of RFC 7540) against the listener, with and without TLS.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

use crate::support::certificates::Authority;
use crate::support::gateway::Gateway;
use crate::support::origin::{Origin, Protocol};
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
async fn every_case_passes_with_tls_and_without() {
    // Some cases take a request back whose body has not ended, and expect what RFC 9113 §5.1 says of a stream that the
    // client has closed; an origin that answered before would have let the gateway close it first.
    let origin = Origin::start(Protocol::Http2).await;
    let gateway = Gateway::with().endpoint(origin.address).service("protocol = \"h2\"");
    Authority::new().issue(&["localhost"], gateway.folder(), "a");
    let gateway = gateway.listener("\"127.0.0.1:0\"").tls(&["a"], "").start();
    for (address, options) in gateway.addresses.iter().zip([&[][..], &["--tls", "--insecure"]]) {
        let (summary, told) = spec(address, options);
        assert_eq!(summary, "145 tests, 145 passed, 0 skipped, 0 failed", "{options:?}: {told}");
    }
}
