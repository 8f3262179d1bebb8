//! The load: so many clients, each of which sends its next request when it has the answer to the last one.

use crate::origin::{BODY, LARGE_BODY};
use crate::serve::LocalExec;
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

/// What the clients speak.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// One client a connection; asks for the answer to this path.
    Http1(&'static str),
    /// HTTP/1, a connection for each request.
    Fresh,
    /// HTTP/2 without TLS, eight clients a connection.
    H2c,
    /// HTTP/1 over TLS, a connection with a full handshake for each request.
    Handshakes,
}

/// What nearly all ask for: 200 bytes.
pub const SMALL: &str = "/api/users/42?page=2";
/// 64 KiB.
pub const LARGE: &str = "/api/users/large";

/// What the clients saw.
pub struct Seen {
    pub failed: usize,
    pub took: Duration,
    /// Of each request that was answered, in order of size.
    pub latencies: Vec<Duration>,
}

impl Seen {
    /// The latency that this share of the requests stayed below.
    pub fn quantile(&self, share: f64) -> Duration {
        let index = (self.latencies.len() as f64 * share) as usize;
        self.latencies.get(index).or(self.latencies.last()).copied().unwrap_or_default()
    }
}

/// What is left to send, and what came of the rest.
struct Run {
    left: Cell<usize>,
    /// The first failure was printed.
    told: Cell<bool>,
    latencies: RefCell<Vec<Duration>>,
}

impl Run {
    /// May another one be sent?
    fn next(&self) -> bool {
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        left > 0
    }

    fn answered(&self, began: Instant) {
        self.latencies.borrow_mut().push(began.elapsed());
    }

    /// What came was no answer; this client gives up, so what is left is on the others.
    fn failed(&self, error: &anyhow::Error) {
        if !self.told.replace(true) {
            eprintln!("a request failed: {error:#}");
        }
    }
}

/// Sends `requests` requests with `clients` clients at a time.
///
/// # Errors
/// No connection can be had.
pub async fn send(
    address: SocketAddr,
    protocol: Protocol,
    tls: &Arc<ClientConfig>,
    clients: usize,
    requests: usize,
) -> anyhow::Result<Seen> {
    let latencies = RefCell::new(Vec::with_capacity(requests));
    let run = Rc::new(Run { left: Cell::new(requests), told: Cell::new(false), latencies });
    let mut tasks: Vec<JoinHandle<()>> = Vec::new();
    let began = Instant::now();
    match protocol {
        Protocol::Http1(path) => {
            for user in 0..clients {
                let stream = TcpStream::connect(address).await?;
                let run = Rc::clone(&run);
                tasks.push(tokio::task::spawn_local(async move {
                    if let Err(error) = http1(stream, (address, path), user, &run).await {
                        run.failed(&error);
                    }
                }));
            }
        }
        Protocol::Fresh => {
            for _ in 0..clients {
                let run = Rc::clone(&run);
                tasks.push(tokio::task::spawn_local(async move {
                    if let Err(error) = fresh(address, &run).await {
                        run.failed(&error);
                    }
                }));
            }
        }
        Protocol::Handshakes => {
            for _ in 0..clients {
                let (run, tls) = (Rc::clone(&run), TlsConnector::from(Arc::clone(tls)));
                tasks.push(tokio::task::spawn_local(async move {
                    if let Err(error) = handshakes(tls, address, &run).await {
                        run.failed(&error);
                    }
                }));
            }
        }
        Protocol::H2c => {
            for connection in 0..clients.div_ceil(8) {
                let io = TokioIo::new(TcpStream::connect(address).await?);
                let (sender, driver) = hyper::client::conn::http2::handshake(LocalExec, io).await?;
                tokio::task::spawn_local(async { drop(driver.await) });
                for stream in 0..8 {
                    let (run, sender) = (Rc::clone(&run), sender.clone());
                    tasks.push(tokio::task::spawn_local(async move {
                        if let Err(error) = http2(sender, address, connection * 8 + stream, &run).await {
                            run.failed(&error);
                        }
                    }));
                }
            }
        }
    }
    for task in tasks {
        task.await?;
    }
    let took = began.elapsed();
    let mut latencies = run.latencies.take();
    latencies.sort_unstable();
    Ok(Seen { failed: requests - latencies.len(), took, latencies })
}

/// One client. The response is taken apart by hand, so that the load costs little of what is measured beside it.
async fn http1(
    mut stream: TcpStream,
    (address, path): (SocketAddr, &str),
    user: usize,
    run: &Run,
) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nuser-agent: bench/1\r\naccept: */*\r\n\
         accept-encoding: gzip, br\r\nx-tenant: acme-19\r\nx-tier: gold\r\n\
         cookie: theme=dark; sid=user-{user}\r\n\r\n"
    );
    let length = if path == LARGE { LARGE_BODY.len() } else { BODY.len() };
    let mut buffer = vec![0; 128 << 10];
    while run.next() {
        let began = Instant::now();
        stream.write_all(request.as_bytes()).await?;
        let mut filled = 0;
        let body = loop {
            let read = stream.read(&mut buffer[filled..]).await?;
            ensure!(read > 0, "the connection was closed");
            filled += read;
            if let Some(end) = buffer[..filled].windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let head = std::str::from_utf8(&buffer[..body])?.to_ascii_lowercase();
        ensure!(head.starts_with("http/1.1 200 "), "it was answered {head:?}");
        ensure!(head.contains(&format!("content-length: {length}\r\n")), "no or another length: {head:?}");
        while filled < body + length {
            let read = stream.read(&mut buffer[filled..]).await?;
            ensure!(read > 0, "the connection was closed in the middle of a body");
            filled += read;
        }
        ensure!(buffer[body..filled] == LARGE_BODY[..length], "another body");
        run.answered(began);
    }
    Ok(())
}

/// One client, which connects anew for each request.
async fn fresh(address: SocketAddr, run: &Run) -> anyhow::Result<()> {
    let request = format!("GET {SMALL} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    while run.next() {
        let began = Instant::now();
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::with_capacity(2 << 10);
        stream.read_to_end(&mut answer).await?;
        ensure!(answer.starts_with(b"HTTP/1.1 200 ") && answer.ends_with(&BODY), "another answer");
        run.answered(began);
    }
    Ok(())
}

/// The same over TLS.
async fn handshakes(tls: TlsConnector, address: SocketAddr, run: &Run) -> anyhow::Result<()> {
    let request = format!("GET /api/users/42 HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    while run.next() {
        let began = Instant::now();
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut stream = tls.connect(address.ip().into(), stream).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::with_capacity(2 << 10);
        // The lean proxy says no goodbye of TLS; by its length the answer is complete.
        let ended = stream.read_to_end(&mut answer).await;
        ensure!(ended.is_ok() || answer.ends_with(&BODY), "it broke off");
        ensure!(answer.starts_with(b"HTTP/1.1 200 ") && answer.ends_with(&BODY), "another answer");
        run.answered(began);
    }
    Ok(())
}

/// A client that trusts this certificate, and remembers no session.
///
/// # Errors
/// It is none.
pub fn trusting(certificate: CertificateDer<'static>) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate)?;
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    let mut config = builder.with_safe_default_protocol_versions()?.with_root_certificates(roots).with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

async fn http2(
    mut sender: hyper::client::conn::http2::SendRequest<Empty<Bytes>>,
    address: SocketAddr,
    user: usize,
    run: &Run,
) -> anyhow::Result<()> {
    while run.next() {
        let request = http::Request::get(format!("http://{address}/api/users/42?page=2"))
            .header("user-agent", "bench/1")
            .header("accept", "*/*")
            .header("accept-encoding", "gzip, br")
            .header("cookie", format!("theme=dark; sid=user-{user}"))
            .body(Empty::new())?;
        let began = Instant::now();
        let response = sender.send_request(request).await.context("no response")?;
        ensure!(response.status() == 200, "it was answered {}", response.status());
        let body = response.into_body().collect().await?.to_bytes();
        ensure!(body[..] == BODY, "another body");
        run.answered(began);
    }
    Ok(())
}
