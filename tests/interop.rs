//! gRPC's official interop client talks to its official server through the gateway.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

use crate::support::gateway::Gateway;
use crate::support::program::until;
use crate::support::servers;
use crate::support::servers::Process;
use std::net::TcpStream;
use std::process::Command;

/// Of <https://github.com/grpc/grpc/blob/master/doc/interop-test-descriptions.md>, those that need no account.
const CASES: [&str; 14] = [
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "timeout_on_sleeping_server",
    "cancel_after_begin",
    "cancel_after_first_response",
    "custom_metadata",
    "status_code_and_message",
    "special_status_message",
    "unimplemented_method",
    "unimplemented_service",
];

#[test]
fn every_case_passes_through_the_gateway() {
    let folder = tempfile::tempdir().unwrap();
    let [port] = servers::free_ports();
    let mut command = Command::new(servers::program("grpc-interop-server"));
    let _server = Process::start(command.arg(format!("--port={port}")), &folder.path().join("server.log"));
    until("the server listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    let gateway = Gateway::with().endpoint(format!("127.0.0.1:{port}")).service("protocol = \"h2\"").start();
    let gateway_port = gateway.address.rsplit(':').next().unwrap();
    let client = servers::program("grpc-interop-client");
    for case in CASES {
        let told = Command::new(&client)
            .args(["--server_host=127.0.0.1", &format!("--server_port={gateway_port}"), &format!("--test_case={case}")])
            .output()
            .unwrap();
        assert!(told.status.success(), "{case}: {}", String::from_utf8_lossy(&told.stderr));
    }
    assert_eq!(gateway.metric("wayside_exchanges_in_flight"), Some(0.0));
}
