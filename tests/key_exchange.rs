//! Key exchange on both legs: with whoever can, one that no quantum computer will undo; with all others, what there was.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

use crate::support::certificates::Authority;
use crate::support::gateway::Gateway;
use crate::support::program::{Program, echo};
use crate::support::servers;
use rustls::{ClientConfig, ClientConnection, NamedGroup, ServerConfig, ServerConnection};
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

/// What the other side takes: X25519MLKEM768 alone, X25519 alone, or either.
const GROUPS: [&[&str]; 3] = [&["4588"], &["29"], &["4588", "29"]];

/// A gateway with TLS, as shop.example.
fn gateway(authority: &Authority) -> Program {
    let gateway = Gateway::with().endpoint(echo()).file("ca.pem", authority.pem());
    authority.issue(&["shop.example"], gateway.folder(), "a");
    gateway.tls(&["a"], "").start()
}

#[test]
fn clients_of_either_are_served() {
    let gateway = gateway(&Authority::new());
    for groups in GROUPS {
        let mut client = Command::new(servers::program("tls-peer"));
        let client = client.args(["client", &gateway.address]).arg(gateway.folder().join("ca.pem")).args(groups);
        let told = client.output().unwrap();
        let (said, problem) = (String::from_utf8(told.stdout).unwrap(), String::from_utf8(told.stderr).unwrap());
        assert_eq!((said.as_str(), problem.as_str()), ("HTTP/1.1 200 OK\r\nTLS 1.3\n", ""), "{groups:?}");
    }
}

/// An endpoint by another library, gone when the value is dropped.
struct Endpoint(Child);

impl Drop for Endpoint {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn endpoints_of_either_are_reached() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    authority.issue(&["127.0.0.1"], folder.path(), "a");
    for groups in GROUPS {
        let mut endpoint = Command::new(servers::program("tls-peer"));
        endpoint.arg("server").args(["a.pem", "a.key"].map(|name| folder.path().join(name))).args(groups);
        let mut endpoint = Endpoint(endpoint.stdout(Stdio::piped()).spawn().unwrap());
        let mut address = String::new();
        BufReader::new(endpoint.0.stdout.take().unwrap()).read_line(&mut address).unwrap();
        let gateway = Gateway::with().endpoint(address.trim()).file("ca.pem", authority.pem());
        let gateway = gateway.service("tls = { ca = \"ca.pem\" }").start();
        let answer = gateway.get("/", &[]);
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("TLS 1.3"), "{groups:?}: {answer}");
    }
}

/// What was agreed on at the end of the handshake.
fn agreed(group: Option<&dyn rustls::crypto::SupportedKxGroup>) -> Option<NamedGroup> {
    group.map(rustls::crypto::SupportedKxGroup::name)
}

#[test]
fn where_both_can_the_hybrid_one_is_agreed_on() {
    let authority = Authority::new();
    let gateway = gateway(&authority);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_provider(Arc::clone(&provider));
    let client = client.with_safe_default_protocol_versions().unwrap().with_root_certificates(authority.roots());
    let name = "shop.example".try_into().unwrap();
    let mut client = ClientConnection::new(Arc::new(client.with_no_client_auth()), name).unwrap();
    let mut socket = TcpStream::connect(&gateway.address).unwrap();
    while client.is_handshaking() {
        client.complete_io(&mut socket).unwrap();
    }
    assert_eq!(agreed(client.negotiated_key_exchange_group()), Some(NamedGroup::X25519MLKEM768));

    let folder = tempfile::tempdir().unwrap();
    let (chain, key) = authority.issue(&["127.0.0.1"], folder.path(), "a");
    let server = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let server = Arc::new(server.with_no_client_auth().with_single_cert(vec![chain], key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let accepting = std::thread::spawn(move || {
        let mut socket = listener.accept().unwrap().0;
        let mut server = ServerConnection::new(server).unwrap();
        while server.is_handshaking() {
            server.complete_io(&mut socket).unwrap();
        }
        // One handshake: what the gateway offers first is what the endpoint takes.
        (agreed(server.negotiated_key_exchange_group()), server.handshake_kind())
    });
    let gateway = Gateway::with().endpoint(address).file("ca.pem", authority.pem());
    let gateway = gateway.service("tls = { ca = \"ca.pem\" }\nmax_attempts = 1").start();
    gateway.get("/", &[]);
    let full = Some(rustls::HandshakeKind::Full);
    assert_eq!(accepting.join().unwrap(), (Some(NamedGroup::X25519MLKEM768), full));
}
