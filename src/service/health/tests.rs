//! Checks follow what is declared, and ask servers that do all sorts of things.

use super::target::{Target, Terms, Unwell};
use super::*;
use crate::service::Settings;
use settings::HealthCheck;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Numbers of the endpoints that are checked after each of these states of a service: its endpoints, and the path that
/// they are asked for, if they are.
#[tokio::test]
async fn checks_follow_what_changes() {
    let all: Vec<_> = (0..6).map(|id| Arc::new(Endpoint::of("users", id, ([127, 0, 0, 1], 9).into()))).collect();
    let service = |ids: &[usize], path: Option<&str>| {
        let health = path.map(|path| HealthCheck { path: path.into(), ..HealthCheck::default() });
        Arc::new(Service {
            name: "users".into(),
            settings: Arc::new(Settings { health, ..Settings::of("test") }),
            endpoints: ids.iter().map(|id| Arc::clone(&all[*id])).collect(),
            reported: Arc::default(),
            digest: 0,
            tls: None,
            affinity: None,
            live: Arc::default(),
        })
    };
    let mut checks = Checks::default();
    let name: Arc<str> = "users".into();
    let running = |checks: &Checks| {
        let mut ids: Vec<_> = checks.running.iter().map(|(id, check)| (*id, check.0.id())).collect();
        ids.sort_unstable_by_key(|(id, _)| *id);
        ids
    };
    let ids = |running: &[(u32, tokio::task::Id)]| running.iter().map(|(id, _)| *id).collect::<Vec<_>>();
    let first = service(&[0, 1, 2, 3], Some("/"));
    checks.follow(&name, Some(&first));
    let before = running(&checks);
    assert_eq!(ids(&before), [0, 1, 2, 3]);
    checks.follow(&name, Some(&first));
    assert_eq!(running(&checks), before);
    checks.follow(&name, Some(&service(&[0, 4, 3, 2], Some("/"))));
    let after = running(&checks);
    assert_eq!(ids(&after), [0, 2, 3, 4]);
    assert!(after.iter().filter(|check| before.contains(check)).count() == 3, "those that stay go on");
    checks.follow(&name, Some(&service(&[0, 4], Some("/other"))));
    let other = running(&checks);
    assert_eq!(ids(&other), [0, 4]);
    assert!(!other.iter().any(|check| after.contains(check)), "on other terms they begin anew");
    checks.follow(&name, Some(&service(&[0, 4], None)));
    assert!(running(&checks).is_empty());
    checks.follow(&name, Some(&service(&[5], Some("/"))));
    assert_eq!(ids(&running(&checks)), [5]);
    checks.follow(&name, None);
    assert!(running(&checks).is_empty());
}

/// What a check of an HTTP/1 server comes to that answers a connection with these pieces, and closes it.
async fn found(check: &HealthCheck, pieces: &'static [&'static [u8]]) -> Result<(), Unwell> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = [0; 1024];
        let read = stream.read(&mut asked).await.unwrap();
        for piece in pieces {
            // The check may have seen enough.
            if stream.write_all(piece).await.is_err() {
                break;
            }
        }
        String::from_utf8(asked[..read].to_vec()).unwrap()
    });
    let found = ask_at(address, check, false).await;
    let asked = server.await.unwrap();
    assert!(asked.starts_with(&format!("GET {} HTTP/1.1\r\n", check.path)), "{asked}");
    assert!(asked.contains("connection: close\r\n"), "{asked}");
    found
}

async fn ask_at(address: SocketAddr, check: &HealthCheck, http2: bool) -> Result<(), Unwell> {
    let protocol = if http2 { crate::service::settings::Protocol::H2 } else { Default::default() };
    let terms = Terms { settings: Arc::new(Settings { protocol, ..Settings::of("test") }), tls: None };
    let target = Target::new(address, &terms, check);
    tokio::time::timeout(Duration::from_secs(20), ask(&target)).await.unwrap()
}

fn asking(path: &str) -> HealthCheck {
    HealthCheck { path: path.into(), ..HealthCheck::default() }
}

fn parsed(text: &str) -> HealthCheck {
    toml::from_str(text).unwrap()
}

#[tokio::test]
async fn a_status_is_good_where_it_is_expected() {
    let plain = asking("/health");
    for (answer, good) in [
        (&b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"[..], true),
        (b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n", true),
        // The body does not matter.
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", true),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", true),
        (b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", false),
        (b"garbage\r\ncontent-length: 0\r\n\r\n", false),
        (b"HTTP/1.1 2", false),
        (b"", false),
    ] {
        let pieces: &'static [&'static [u8]] = Box::leak(Box::new([answer]));
        assert_eq!(found(&plain, pieces).await.is_ok(), good, "{answer:?}");
    }
    let teapot = parsed("path = '/'\nexpect = ['200-299', 418]");
    assert_eq!(found(&teapot, &[b"HTTP/1.1 418 I'm a teapot\r\n\r\n"]).await, Ok(()));
    let told = found(&teapot, &[b"HTTP/1.1 302 Found\r\n\r\n"]).await;
    assert_eq!(told, Err(Unwell::Theirs("status 302".into())));
}

#[tokio::test]
async fn a_body_must_have_the_text_in_its_beginning() {
    let check = parsed("path = '/'\nbody = 'status: ok'");
    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n";
    // As soon as it is there the rest is not waited for, wherever its pieces are cut.
    assert_eq!(found(&check, &[HEAD, b"{ sta", b"tus: ", b"ok"]).await, Ok(()));
    let lacks = "status 200, but its body lacks what `body` says";
    let short = found(&check, &[b"HTTP/1.1 200 OK\r\n\r\n", b"status: failing"]).await;
    assert_eq!(short, Err(Unwell::Theirs(lacks.into())));
    let broken = found(&check, &[HEAD, b"status: o"]).await;
    assert!(matches!(broken, Err(Unwell::Theirs(problem)) if problem.starts_with("its body broke off")));
    // What stands behind the first 64 KiB is not seen.
    const FILL: &[u8] = &[b'x'; 64 * 1024 - 5];
    assert_eq!(
        found(&check, &[b"HTTP/1.1 200 OK\r\n\r\n", FILL, b"status: ok"]).await,
        Err(Unwell::Theirs(lacks.into()))
    );
    let bad = found(&check, &[b"HTTP/1.1 500 No\r\n\r\n", b"status: ok"]).await;
    assert_eq!(bad, Err(Unwell::Theirs("status 500".into())));
}

#[tokio::test]
async fn a_port_of_its_own_and_a_host_are_what_is_asked() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answering = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = [0; 1024];
        let read = stream.read(&mut asked).await.unwrap();
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        String::from_utf8(asked[..read].to_vec()).unwrap()
    });
    let check = parsed(&format!("path = '/'\nhost = 'shop.example'\nport = {}", address.port()));
    // Nobody listens where requests go.
    let elsewhere = SocketAddr::new(address.ip(), 1);
    assert_eq!(ask_at(elsewhere, &check, false).await, Ok(()));
    assert!(answering.await.unwrap().contains("host: shop.example\r\n"));
}

#[tokio::test]
async fn a_connection_is_all_that_tcp_asks_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let check = parsed("kind = 'tcp'");
    assert_eq!(ask_at(address, &check, false).await, Ok(()));
    drop(listener);
    let refused = ask_at(address, &check, false).await;
    assert!(matches!(refused, Err(Unwell::Theirs(problem)) if problem.starts_with("connect")));
}

#[tokio::test]
async fn grpc_is_asked_for_the_service_and_serving_is_good() {
    use tonic_health::ServingStatus::{NotServing, Serving};
    let (reporter, health) = tonic_health::server::health_reporter();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    tokio::spawn(tonic::transport::Server::builder().add_service(health).serve_with_incoming(incoming));
    let (whole, shop) = (parsed("kind = 'grpc'"), parsed("kind = 'grpc'\nservice = 'shop'"));
    assert_eq!(ask_at(address, &whole, true).await, Ok(()), "the server as a whole");
    let unknown = Err(Unwell::Theirs("grpc-status 5: it does not know the service".into()));
    assert_eq!(ask_at(address, &shop, true).await, unknown);
    reporter.set_service_status("shop", Serving).await;
    assert_eq!(ask_at(address, &shop, true).await, Ok(()));
    // Whatever requests are spoken with.
    assert_eq!(ask_at(address, &shop, false).await, Ok(()));
    reporter.set_service_status("shop", NotServing).await;
    assert_eq!(ask_at(address, &shop, true).await, Err(Unwell::Theirs("NOT_SERVING".into())));
}

#[tokio::test]
async fn what_speaks_no_grpc_is_not_well() {
    let check = parsed("kind = 'grpc'");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        // HTTP/1 that knows no HTTP/2, and HTTP/2 that knows no gRPC.
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        drop(stream);
        let (stream, _) = listener.accept().await.unwrap();
        let answer = |_| async { Ok::<_, std::convert::Infallible>(::http::Response::new(String::from("hello"))) };
        let io = hyper_util::rt::TokioIo::new(stream);
        let builder = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
        let _ = builder.serve_connection(io, hyper::service::service_fn(answer)).await;
    });
    let old = ask_at(address, &check, true).await;
    assert!(matches!(old, Err(Unwell::Theirs(problem)) if problem.starts_with("no response")));
    let plain = ask_at(address, &check, true).await;
    assert_eq!(plain, Err(Unwell::Theirs("an answer without grpc-status".into())));
    server.await.unwrap();
}
