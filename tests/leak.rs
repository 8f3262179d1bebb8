//! Nothing is left of connections that are over, however they ended: file descriptors, tasks, exchanges and memory. `make soak`
//! does the same with ten times as many.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on must fail")]

use crate::support::certificates::Authority;
use crate::support::gateway::Gateway;
use crate::support::program::{Program, until};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;

/// At once.
const CLIENTS: usize = 100;

#[derive(Debug, Clone, Copy)]
enum Kind {
    Finished,
    FinishedHttp2,
    FinishedTls,
    Reset,
    TimedOut,
    Upgraded,
    Refused,
}

const KINDS: [Kind; 7] = [
    Kind::Finished,
    Kind::FinishedHttp2,
    Kind::FinishedTls,
    Kind::Reset,
    Kind::TimedOut,
    Kind::Upgraded,
    Kind::Refused,
];

/// Where to, without TLS and with it, and whom to trust.
#[derive(Debug, Clone)]
struct Target {
    plain: SocketAddr,
    tls: SocketAddr,
    trusting: Arc<ClientConfig>,
}

impl Kind {
    async fn one(self, target: Target, from: Ipv4Addr) {
        let stream = async |to| {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind((from, 0).into()).unwrap();
            socket.connect(to).await.unwrap()
        };
        let answer = async |bytes: &[u8]| {
            let mut stream = stream(target.plain).await;
            stream.write_all(bytes).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        match self {
            Kind::Finished => {
                let answer = answer(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
                assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
            }
            Kind::FinishedHttp2 => {
                let io = TokioIo::new(stream(target.plain).await);
                let (mut sender, connection) =
                    hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
                let driven = tokio::spawn(connection);
                let request = http::Request::get("http://a/").body(Empty::<Bytes>::new()).unwrap();
                let response = sender.send_request(request).await.unwrap();
                assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "ok");
                drop(sender);
                driven.await.unwrap().unwrap();
            }
            Kind::FinishedTls => {
                let connector = tokio_rustls::TlsConnector::from(Arc::clone(&target.trusting));
                let name = "shop.example".try_into().unwrap();
                let mut tls = connector.connect(name, stream(target.tls).await).await.unwrap();
                tls.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
                let mut answer = String::new();
                tls.read_to_string(&mut answer).await.unwrap();
                assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
            }
            Kind::Reset => {
                let mut stream = stream(target.plain).await;
                stream.write_all(b"GET /half HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
                stream.read_exact(&mut [0; 1000]).await.unwrap();
                stream.set_zero_linger().unwrap();
            }
            Kind::TimedOut => {
                let answer = answer(b"GET / HTTP/1.1\r\nhost:").await;
                assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
            }
            Kind::Upgraded => {
                let mut stream = stream(target.plain).await;
                stream
                    .write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nhello")
                    .await
                    .unwrap();
                stream.shutdown().await.unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.unwrap();
                assert!(answer.starts_with("HTTP/1.1 101 ") && answer.ends_with("hello"), "{answer}");
            }
            Kind::Refused => {
                let answer = answer(b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n").await;
                assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
            }
        }
    }

    /// So many, each of a few hundred clients with an address of its own.
    async fn all(self, target: &Target, count: usize) {
        let places = Arc::new(Semaphore::new(CLIENTS));
        // Each of these waits for the whole time for a head, which must be one in which a busy machine ends a handshake.
        let count = if matches!(self, Kind::TimedOut) { count / 5 } else { count };
        let mut clients = tokio::task::JoinSet::new();
        for number in 0..count {
            let place = Arc::clone(&places).acquire_owned().await.unwrap();
            let [.., a, b] = u32::try_from(number).unwrap().to_be_bytes();
            let (target, from) = (target.clone(), Ipv4Addr::new(127, 1 + a, b, 1));
            clients.spawn(async move {
                self.one(target, from).await;
                drop(place);
            });
        }
        while let Some(ended) = clients.join_next().await {
            ended.unwrap();
        }
    }
}

/// Answers with two bytes, with half of what it says, or by sending back what comes.
async fn origin(address: Ipv4Addr) -> SocketAddr {
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(BufReader::new(stream)));
        }
    });
    address
}

async fn serve(mut stream: BufReader<TcpStream>) -> Option<()> {
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).await.ok()? == 0 {
                return None;
            }
        }
        if head.contains("upgrade: echo") {
            let switch = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
            stream.write_all(switch).await.ok()?;
            let mut said = Vec::new();
            stream.read_to_end(&mut said).await.ok()?;
            return stream.write_all(&said).await.ok();
        }
        if head.starts_with("GET /half") {
            let half = format!("HTTP/1.1 200 OK\r\ncontent-length: 2000\r\n\r\n{}", "x".repeat(1000));
            stream.write_all(half.as_bytes()).await.ok()?;
            stream.read_to_end(&mut Vec::new()).await.ok()?;
            return None;
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.ok()?;
    }
}

/// Open file descriptors.
fn descriptors(gateway: &Program) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).unwrap().count()
}

/// The same once it does not change any more.
fn settled(gateway: &Program) -> usize {
    let (mut last, mut same) = (0, 0);
    until("file descriptors stay the same", || {
        let now = descriptors(gateway);
        same = if now == last { same + 1 } else { 0 };
        last = now;
        // Idle upstream connections are closed after a second, and looked at each second.
        same > 125
    });
    last
}

/// Resident memory in KiB.
fn resident(gateway: &Program) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_of_connections_that_are_over() {
    let count = std::env::var("WAYSIDE_SOAK").map_or(1000, |count| count.parse().expect("WAYSIDE_SOAK: a number"));
    let authority = Authority::new();
    let mut gateway = Gateway::with().keys("head_timeout = \"3s\"\nupstream_idle_timeout = \"1s\"");
    authority.issue(&["shop.example"], gateway.folder(), "a");
    // Several, since one has only so many ports for the gateway to come from.
    for last in 1..=4 {
        gateway = gateway.endpoint(origin(Ipv4Addr::new(127, 0, 0, last)).await);
    }
    let gateway = gateway.listener("\"127.0.0.1:0\"").tls(&["a"], "");
    // The allocator gives back at once, so that what is resident is what is used.
    let gateway = gateway.environment(&[("MIMALLOC_PURGE_DELAY", "0")]).start();
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let trusting = Arc::new(builder.with_root_certificates(authority.roots()).with_no_client_auth());
    let target =
        Target { plain: gateway.address.parse().unwrap(), tls: gateway.addresses[1].parse().unwrap(), trusting };

    // Every worker has begun, and has carried something of each kind.
    for kind in KINDS {
        kind.all(&target, 50).await;
    }
    let before = settled(&gateway);
    let tasks = || gateway.metric("wayside_tasks").unwrap();
    let tasks_before = tasks();
    assert!(tasks_before > 0.0);
    let mut last = f64::INFINITY;
    for round in 1..=6 {
        for kind in KINDS {
            tokio::time::timeout(Duration::from_secs(300), kind.all(&target, count)).await.expect("in time");
        }
        until("file descriptors are free again", || descriptors(&gateway) <= before);
        until("no exchange is left", || gateway.metric("wayside_exchanges_in_flight") == Some(0.0));
        until("tasks are as many as before", || tasks() <= tasks_before);
        let now = resident(&gateway);
        println!(
            "round {round}, {count} of each kind: {before} file descriptors and {tasks_before} tasks as before, {now} KiB resident"
        );
        // A leak grows with every round; what the allocator keeps does not.
        if round >= 3 && now <= last * 1.05 {
            return;
        }
        last = now;
    }
    panic!("resident memory grew by more than 5 % in each round");
}
