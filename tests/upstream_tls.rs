//! TLS with endpoints: who they must prove to be, who the gateway proves to be, and files that are swapped. The endpoint
//! is a gateway itself, with TLS on its listener.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

use crate::support::certificates::Authority;
use crate::support::gateway::Gateway;
use crate::support::program::{Program, echo, until};
use std::net::TcpListener;
use std::sync::Arc;

/// Shows 127.0.0.1's certificate, or shop.example's to whom asks for it.
fn endpoint(authority: &Authority, listener: &str) -> Program {
    let endpoint = Gateway::with().endpoint(echo()).file("ca.pem", authority.pem()).telemetry("access_log = \"json\"");
    authority.issue(&["127.0.0.1"], endpoint.folder(), "address");
    authority.issue(&["shop.example"], endpoint.folder(), "name");
    endpoint.tls(&["address", "name"], listener).start()
}

/// Goes there on these terms; `ca.pem` holds the authority, `gateway.pem` the gateway's own certificate.
fn gateway(endpoint: &str, authority: &Authority, service: &str, environment: &[(&str, &str)]) -> Program {
    let gateway = Gateway::with().endpoint(endpoint).service(service).file("ca.pem", authority.pem());
    authority.client(gateway.folder(), "gateway");
    gateway.telemetry("access_log = \"json\"").environment(environment).start()
}

fn status(gateway: &Program) -> String {
    gateway.get("/", &[]).split(' ').nth(1).unwrap().to_owned()
}

#[test]
fn the_endpoint_proves_who_it_is_by_its_name_or_its_address() {
    let authority = Authority::new();
    let endpoint = endpoint(&authority, "");
    for (service, expected) in [
        ("tls = { ca = \"ca.pem\" }", "200"),
        ("tls = { ca = \"ca.pem\", server_name = \"shop.example\" }", "200"),
        ("host = \"shop.example:8443\"\ntls = { ca = \"ca.pem\" }", "200"),
        ("tls = { ca = \"ca.pem\", server_name = \"else.example\" }", "502"),
        // Nobody trusts it.
        ("tls = {}", "502"),
        // No TLS at all: the endpoint says so itself.
        ("", "400"),
    ] {
        let gateway = gateway(&endpoint.address, &authority, service, &[]);
        let answer = gateway.get("/", &[]);
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{service}: {answer}");
        if expected == "502" {
            assert!(answer.contains("\"connect_failed\""), "{answer}");
            assert!(gateway.logged("cannot connect").contains("TLS handshake: invalid peer certificate"));
        }
    }
}

#[test]
fn without_an_authority_of_its_own_the_system_decides() {
    let authority = Authority::new();
    let endpoint = endpoint(&authority, "");
    let file = endpoint.folder().join("ca.pem");
    let gateway = gateway(&endpoint.address, &authority, "tls = {}", &[("SSL_CERT_FILE", file.to_str().unwrap())]);
    assert_eq!(status(&gateway), "200");
}

#[test]
fn the_gateway_proves_who_it_is_and_speaks_either_http() {
    let authority = Authority::new();
    let endpoint = endpoint(&authority, "client_ca = \"ca.pem\"");
    let certificate = "certificate = { chain = \"gateway.pem\", key = \"gateway.key\" }";
    for protocol in ["http1", "h2"] {
        let service = format!("protocol = \"{protocol}\"\ntls = {{ ca = \"ca.pem\", {certificate} }}");
        let gateway = gateway(&endpoint.address, &authority, &service, &[]);
        let answer = gateway.get("/", &[]);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    let anonymous = gateway(&endpoint.address, &authority, "tls = { ca = \"ca.pem\" }", &[]);
    assert_eq!(status(&anonymous), "502");
    let (output, _) = endpoint.stop();
    let [first, second] = &output[..] else { panic!("{output:?}") };
    assert!(first.contains("\"tls_subject\":\"CN=gateway,") && first.contains("\"protocol\":\"1.1\""), "{first}");
    assert!(second.contains("\"tls_subject\":\"CN=gateway,") && second.contains("\"protocol\":\"2\""), "{second}");
}

#[test]
fn http2_over_tls_is_agreed_on_or_there_is_no_connection() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let (chain, key) = authority.issue(&["127.0.0.1"], folder.path(), "a");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let builder = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    // No ALPN: it takes any handshake and agrees on nothing.
    let config = Arc::new(builder.with_single_cert(vec![chain], key).unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut tls = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let _ = tls.complete_io(&mut stream.unwrap());
        }
    });
    let gateway = gateway(&address, &authority, "protocol = \"h2\"\ntls = { ca = \"ca.pem\" }", &[]);
    assert_eq!(status(&gateway), "502");
    assert!(gateway.logged("cannot connect").contains("did not agree on `h2`"));
}

#[test]
fn files_are_swapped_and_a_bad_one_changes_nothing() {
    let authority = Authority::new();
    let endpoint = endpoint(&authority, "");
    let gateway = gateway(&endpoint.address, &Authority::new(), "tls = { ca = \"ca.pem\" }", &[]);
    let file = gateway.folder().join("ca.pem");
    assert_eq!(status(&gateway), "502");
    std::fs::write(&file, authority.pem()).unwrap();
    until("it is trusted", || status(&gateway) == "200");

    std::fs::write(&file, "nonsense").unwrap();
    let told = gateway.logged("the configuration stays as it is");
    assert!(told.contains("services.shop.tls: ") && told.contains("ca.pem: no certificates in PEM"), "{told}");
    assert_eq!(status(&gateway), "200");

    // Whom nobody trusts any more is not asked on a connection that was kept either.
    std::fs::write(&file, Authority::new().pem()).unwrap();
    until("it is not trusted", || status(&gateway) == "502");

    // A file that comes after the configuration that names it.
    let config = gateway.folder().join("wayside.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("\"ca.pem\"", "\"late.pem\"")).unwrap();
    let told = gateway.logged("late.pem");
    assert!(told.contains("the configuration stays as it is") && told.contains("No such file"), "{told}");
    std::fs::write(gateway.folder().join("late.pem"), authority.pem()).unwrap();
    until("it is read", || status(&gateway) == "200");
}

#[test]
fn health_is_checked_the_same_way() {
    let authority = Authority::new();
    let endpoint = endpoint(&authority, "");
    let health = "health = { path = \"/\", interval = \"20ms\" }";
    let good = gateway(&endpoint.address, &authority, &format!("{health}\ntls = {{ ca = \"ca.pem\" }}"), &[]);
    let bad = gateway(&endpoint.address, &authority, &format!("{health}\ntls = {{}}"), &[]);
    assert!(bad.logged("unhealthy").contains("TLS handshake: invalid peer certificate"));
    assert!(good.ask("/services").contains("\"healthy\":true"));
    assert!(bad.ask("/services").contains("\"healthy\":false"));
}

#[test]
fn an_endpoint_whose_certificate_has_no_names_is_told_in_words() {
    let (endpoint, authority) = (Gateway::with(), Authority::new());
    authority.issue(&[], endpoint.folder(), "a");
    let endpoint = endpoint.tls(&["a"], "").start();
    let gateway = gateway(&endpoint.address, &authority, "tls = { ca = \"ca.pem\" }", &[]);
    assert_eq!(status(&gateway), "502");
    let told = gateway.logged("cannot connect");
    assert!(told.contains("TLS handshake: invalid peer certificate: the certificate has no subjectAltName"), "{told}");
}
