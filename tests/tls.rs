//! TLS with clients: certificates by name, versions, protocols, files that are swapped, and who a client proves to be.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

use crate::support::certificates::Authority;
use crate::support::gateway::Gateway;
use crate::support::program::{Program, echo, until};
use rustls::client::Resumption;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, StreamOwned, SupportedProtocolVersion};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: shop.example\r\n\r\n";

type Client = StreamOwned<ClientConnection, TcpStream>;

/// A gateway with TLS: `a` is for shop.example, `b` for *.blog.example; more keys of the listener.
fn start(authority: &Authority, listener: &str) -> Program {
    let gateway = Gateway::with().endpoint(echo()).file("ca.pem", authority.pem()).telemetry("access_log = \"json\"");
    authority.issue(&["shop.example"], gateway.folder(), "a");
    authority.issue(&["*.blog.example"], gateway.folder(), "b");
    gateway.tls(&["a", "b"], listener).start()
}

fn versions(authority: &Authority, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    let builder = builder.with_protocol_versions(versions).unwrap();
    builder.with_root_certificates(authority.roots()).with_no_client_auth()
}

fn trusting(authority: &Authority) -> ClientConfig {
    versions(authority, rustls::ALL_VERSIONS)
}

/// A connection after its handshake.
fn connect(gateway: &Program, config: ClientConfig, name: &str) -> Result<Client, String> {
    connect_with(gateway, &Arc::new(config), name)
}

fn connect_with(gateway: &Program, config: &Arc<ClientConfig>, name: &str) -> Result<Client, String> {
    let name = name.to_owned().try_into().unwrap();
    let socket = TcpStream::connect(&gateway.address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut client = StreamOwned::new(ClientConnection::new(Arc::clone(config), name).unwrap(), socket);
    while client.conn.is_handshaking() {
        client.conn.complete_io(&mut client.sock).map_err(|error| error.to_string())?;
    }
    Ok(client)
}

/// What is answered on the connection, which may be kept.
fn answer(client: &mut Client) -> Result<String, String> {
    client.write_all(REQUEST).map_err(|error| error.to_string())?;
    let mut answer = String::new();
    // The origin answers with the head that it got, which has an end of its own.
    while answer.matches("\r\n\r\n").count() < 2 {
        let mut part = [0; 4096];
        let read = client.read(&mut part).map_err(|error| error.to_string())?;
        assert!(read > 0, "{answer}");
        answer.push_str(std::str::from_utf8(&part[..read]).unwrap());
    }
    Ok(answer)
}

fn serial(client: &Client) -> Vec<u8> {
    client.conn.peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn the_certificate_is_for_the_name_that_is_asked_for() {
    let authority = Authority::new();
    let gateway = start(&authority, "");
    for name in ["shop.example", "SHOP.example", "one.blog.example"] {
        let mut client = connect(&gateway, trusting(&authority), name).unwrap();
        let answer = answer(&mut client).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("x-forwarded-proto: https"), "{answer}");
    }
    // The first one is for whoever asks for another name, or for none, and it is the client who minds.
    let problem = connect(&gateway, trusting(&authority), "else.example").unwrap_err();
    assert!(problem.contains("NotValidForName") || problem.contains("not valid for name"), "{problem}");
    let problem = connect(&gateway, trusting(&Authority::new()), "shop.example").unwrap_err();
    assert!(problem.contains("UnknownIssuer") || problem.contains("BadSignature"), "{problem}");
}

#[test]
fn both_versions_of_tls_are_spoken_and_both_of_http() {
    let authority = Authority::new();
    let gateway = start(&authority, "");
    for (version, expected) in
        [(&rustls::version::TLS12, ProtocolVersion::TLSv1_2), (&rustls::version::TLS13, ProtocolVersion::TLSv1_3)]
    {
        let mut client = connect(&gateway, versions(&authority, &[version]), "shop.example").unwrap();
        assert_eq!(client.conn.protocol_version(), Some(expected));
        assert!(answer(&mut client).is_ok());
    }
    let alpn = |protocols: &[&str]| {
        let mut config = trusting(&authority);
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        connect(&gateway, config, "shop.example").map(|client| client.conn.alpn_protocol().map(<[u8]>::to_vec))
    };
    assert_eq!(alpn(&["http/1.1", "h2"]).unwrap().unwrap(), b"h2");
    assert_eq!(alpn(&["http/1.1"]).unwrap().unwrap(), b"http/1.1");
    assert_eq!(alpn(&[]).unwrap(), None);
    // RFC 7301 §3.2: nothing in common is an end, not a guess.
    assert!(alpn(&["spdy/3"]).unwrap_err().contains("NoApplicationProtocol"));
}

/// curl, which has a TLS and an HTTP/2 of its own: the status, the version of HTTP and the body.
fn curl(gateway: &Program, options: &[&str]) -> String {
    let port = gateway.address.rsplit(':').next().unwrap();
    let folder = gateway.folder();
    let curl = Command::new("curl")
        .args(["-sS", "--noproxy", "*", "--max-time", "20", "-w", "\n%{response_code} HTTP/%{http_version}"])
        .args(["--resolve", &format!("shop.example:{port}:127.0.0.1"), "--cacert"])
        .arg(folder.join("ca.pem"))
        .args(options)
        .arg(format!("https://shop.example:{port}/curl"))
        .output()
        .expect("needs curl: install it (Debian: apt install curl)");
    format!("{}{}", String::from_utf8_lossy(&curl.stdout), String::from_utf8_lossy(&curl.stderr))
}

#[test]
fn curl_is_served() {
    let authority = Authority::new();
    let gateway = start(&authority, "");
    for (options, version) in [(["--http1.1", "--tls-max", "1.2"], "1.1"), (["--http2", "--tlsv1.3", "-4"], "2")] {
        let told = curl(&gateway, &options);
        assert!(told.contains("GET /curl HTTP/1.1") && told.ends_with(&format!("200 HTTP/{version}")), "{told}");
    }
}

#[test]
fn a_session_is_resumed() {
    let authority = Authority::new();
    let gateway = start(&authority, "");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut config = versions(&authority, &[version]);
        config.resumption = Resumption::in_memory_sessions(8);
        let config = Arc::new(config);
        let mut first = connect_with(&gateway, &config, "shop.example").unwrap();
        // With it, the tickets have come.
        answer(&mut first).unwrap();
        assert_eq!(first.conn.handshake_kind(), Some(HandshakeKind::Full));
        let mut second = connect_with(&gateway, &config, "shop.example").unwrap();
        answer(&mut second).unwrap();
        assert_eq!(second.conn.handshake_kind(), Some(HandshakeKind::Resumed), "{version:?}");
    }
}

#[test]
fn files_are_swapped_under_open_connections_and_a_bad_pair_changes_nothing() {
    let authority = Authority::new();
    let gateway = start(&authority, "");
    let fresh = || connect(&gateway, trusting(&authority), "shop.example");
    let mut open = fresh().unwrap();
    answer(&mut open).unwrap();
    let old = serial(&open);

    authority.issue(&["shop.example"], gateway.folder(), "a");
    until("the new certificate", || fresh().is_ok_and(|client| serial(&client) != old));
    let new = serial(&fresh().unwrap());
    assert!(answer(&mut open).unwrap().starts_with("HTTP/1.1 200 "));

    // A key that does not belong to it, then no key at all.
    let key = std::fs::read(gateway.folder().join("b.key")).unwrap();
    for (bad, why) in [(&key[..], "does not go with"), (b"", "no private key in PEM")] {
        std::fs::write(gateway.folder().join("a.key"), bad).unwrap();
        let told = gateway.logged("certificates not changed");
        assert!(told.contains("a.key") && told.contains(why), "{told}");
        assert_eq!(serial(&fresh().unwrap()), new);
    }
    authority.issue(&["shop.example"], gateway.folder(), "a");
    until("a good pair again", || fresh().is_ok_and(|client| serial(&client) != new));
}

/// The client's side with a certificate of its own.
fn proving(authority: &Authority, by: &Authority, folder: &Path, name: &str) -> ClientConfig {
    let (chain, key) = by.client(folder, name);
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    let builder = builder.with_protocol_versions(rustls::ALL_VERSIONS).unwrap();
    builder.with_root_certificates(authority.roots()).with_client_auth_cert(vec![chain], key).unwrap()
}

#[test]
fn clients_prove_who_they_are() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    let ada = || proving(&authority, &authority, folder.path(), "ada");
    let eve = || proving(&authority, &stranger, folder.path(), "eve");
    // With TLS 1.3 the client learns of it when it reads.
    let ask = |gateway: &Program, config| connect(gateway, config, "shop.example").and_then(|mut c| answer(&mut c));

    let gateway = start(&authority, "client_ca = \"ca.pem\"");
    assert!(ask(&gateway, ada()).unwrap().starts_with("HTTP/1.1 200 "));
    assert!(ask(&gateway, trusting(&authority)).unwrap_err().contains("CertificateRequired"));
    assert!(ask(&gateway, eve()).is_err());
    let failed = || gateway.metric("wayside_tls_handshakes_failed_total");
    until("both are counted", || failed() == Some(2.0));
    assert!(gateway.logged("TLS handshake failed").contains("peer sent no certificates"));
    let (output, _) = gateway.stop();
    let [line] = &output[..] else { panic!("{output:?}") };
    assert!(line.contains("\"tls_subject\":\"CN=ada,O=Wayside\\\\, tests\""), "{line}");

    let gateway = start(&authority, "client_ca = \"ca.pem\", client_certificates = \"optional\"");
    assert!(ask(&gateway, ada()).unwrap().starts_with("HTTP/1.1 200 "));
    assert!(ask(&gateway, trusting(&authority)).unwrap().starts_with("HTTP/1.1 200 "));
    assert!(ask(&gateway, eve()).is_err());
    let (output, _) = gateway.stop();
    assert_eq!(output.iter().map(|line| line.contains("tls_subject")).collect::<Vec<_>>(), [true, false], "{output:?}");
}

#[test]
fn whoever_speaks_without_tls_is_told() {
    let gateway = start(&Authority::new(), "");
    let answer = gateway.get("/", &[]);
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("\"plain_http\""), "{answer}");
    assert!(answer.contains("use https://"), "{answer}");
    // What is neither is closed, and nobody waits for a handshake that does not come.
    let mut client = TcpStream::connect(&gateway.address).unwrap();
    client.write_all(b"\x00\x01\x02garbage").unwrap();
    assert!(client.read_to_end(&mut Vec::new()).is_ok_and(|read| read < 16));
}

#[test]
fn files_that_cannot_be_used_are_named_before_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wayside.toml");
    let pair = "{ chain = \"a.pem\", key = \"a.key\" }";
    std::fs::write(&file, format!("[gateway]\nlisten = [{{ address = \"127.0.0.1:0\", certificates = [{pair}] }}]\n"))
        .unwrap();
    for command in ["check", "run"] {
        let told =
            Command::new(env!("CARGO_BIN_EXE_wayside")).arg(command).arg("--config").arg(&file).output().unwrap();
        let told = (told.status.code(), String::from_utf8(told.stderr).unwrap());
        assert!(told.0 != Some(0) && told.1.contains("a.pem: cannot be read: No such file"), "{told:?}");
    }
}

#[test]
fn whoever_only_looks_whether_somebody_listens_has_failed_no_handshake() {
    let authority = Authority::new();
    let gateway = start(&authority, "");
    for reset in [false, true] {
        for _ in 0..10 {
            let probe = socket2::Socket::from(TcpStream::connect(&gateway.address).unwrap());
            if reset {
                probe.set_linger(Some(std::time::Duration::ZERO)).unwrap();
            }
        }
    }
    // What is no handshake is counted, and after it nothing else is.
    TcpStream::connect(&gateway.address).unwrap().write_all(b"\x16garbage").unwrap();
    until("one is counted", || gateway.metric("wayside_tls_handshakes_failed_total") == Some(1.0));
    until("all are gone", || gateway.metric("wayside_connections") == Some(0.0));
    assert_eq!(gateway.metric("wayside_tls_handshakes_failed_total"), Some(1.0));
    let (_, log) = gateway.stop();
    assert_eq!(log.iter().filter(|line| line.contains("handshake")).count(), 1, "{log:?}");
}

#[test]
fn a_certificate_without_names_is_told_of() {
    let gateway = Gateway::with();
    Authority::new().issue(&[], gateway.folder(), "a");
    let gateway = gateway.tls(&["a"], "").start();
    let told = gateway.logged("most clients will refuse it");
    assert!(told.contains("a.pem") && told.contains("no subjectAltName"), "{told}");
    let file = gateway.folder().join("wayside.toml");
    let checked = Command::new(env!("CARGO_BIN_EXE_wayside")).arg("check").arg("--config").arg(&file).output().unwrap();
    assert!(checked.status.success());
    assert!(String::from_utf8(checked.stderr).unwrap().contains("no subjectAltName"));
}
