//! The leanest bare hyper proxy: what any proxy built on hyper has to do, done as cheaply as it
//! goes. A thread per core, HTTP/1 connections kept for each endpoint, round robin, `x-forwarded-for`. No deadline, no
//! limit, no retry, no measuring.

use crate::serve::{HOP_BY_HOP, LocalExec, accept, listen, until_closed, worker};
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Request, Response, StatusCode, Uri, Version};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::server::conn::http1 as http1_server;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

/// Runs until standard input ends: one port for HTTP/1, one for HTTP/2, and one for HTTP/1 over TLS, with the
/// certificate in `chain` and `key`.
///
/// # Errors
/// A socket cannot be had.
pub fn run(workers: usize, chain: &str, key: &str, endpoints: &[SocketAddr]) -> anyhow::Result<()> {
    let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions()?.with_no_client_auth();
    let (chain, key) = (CertificateDer::from_pem_file(chain)?, PrivateKeyDer::from_pem_file(key)?);
    let tls = TlsAcceptor::from(Arc::new(builder.with_single_cert(vec![chain], key)?));
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut addresses = [free; 3];
    for _ in 0..workers {
        let sockets = [listen(addresses[0])?, listen(addresses[1])?, listen(addresses[2])?];
        addresses = [sockets[0].local_addr()?, sockets[1].local_addr()?, sockets[2].local_addr()?];
        let tls = tls.clone();
        let endpoints = endpoints.iter().map(|address| Endpoint { address: *address, idle: RefCell::default() });
        let endpoints: Vec<Endpoint> = endpoints.collect();
        worker(move || {
            let proxy = Rc::new(Proxy { endpoints, turn: Cell::new(0) });
            let [http1, http2, https] = sockets;
            let (other, third) = (Rc::clone(&proxy), Rc::clone(&proxy));
            accept(http1, move |io| {
                let proxy = Rc::clone(&proxy);
                async move {
                    let service = service_fn(|request| handle(Rc::clone(&proxy), request));
                    let _ = http1_server::Builder::new().serve_connection(io, service).await;
                }
            })?;
            accept(https, move |io| {
                let (proxy, tls) = (Rc::clone(&third), tls.clone());
                async move {
                    let Ok(stream) = tls.accept(io.into_inner()).await else { return };
                    let service = service_fn(|request| handle(Rc::clone(&proxy), request));
                    let _ = http1_server::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                }
            })?;
            accept(http2, move |io| {
                let proxy = Rc::clone(&other);
                async move {
                    let service = service_fn(|request| handle(Rc::clone(&proxy), request));
                    let _ = hyper::server::conn::http2::Builder::new(LocalExec).serve_connection(io, service).await;
                }
            })
        });
    }
    until_closed(&addresses);
    Ok(())
}

struct Proxy {
    endpoints: Vec<Endpoint>,
    turn: Cell<usize>,
}

struct Endpoint {
    address: SocketAddr,
    idle: RefCell<Vec<SendRequest<Incoming>>>,
}

async fn handle(proxy: Rc<Proxy>, mut request: Request<Incoming>) -> hyper::Result<Response<Body>> {
    let turn = proxy.turn.get();
    proxy.turn.set(turn.wrapping_add(1));
    let endpoint = turn % proxy.endpoints.len();
    let authority = request.uri().authority().and_then(|a| HeaderValue::from_str(a.as_str()).ok());
    if let Some(target) = request.uri().path_and_query().cloned() {
        *request.uri_mut() = Uri::from(target);
    }
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
    if let Some(authority) = authority {
        headers.insert(header::HOST, authority);
    }
    headers.insert("x-forwarded-for", HeaderValue::from_static("127.0.0.1"));
    let Some(mut sender) = proxy.endpoints[endpoint].connection().await else {
        let mut response = Response::new(Body { incoming: None, lease: None });
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        return Ok(response);
    };
    let mut response = sender.send_request(request).await?;
    response.headers_mut().remove(header::CONNECTION);
    response.headers_mut().remove("keep-alive");
    Ok(response.map(|incoming| Body { incoming: Some(incoming), lease: Some((proxy, endpoint, sender)) }))
}

impl Endpoint {
    /// One that waits, or a new one.
    async fn connection(&self) -> Option<SendRequest<Incoming>> {
        while let Some(sender) = self.idle.borrow_mut().pop() {
            if sender.is_ready() {
                return Some(sender);
            }
        }
        let stream = TcpStream::connect(self.address).await.ok()?;
        let _ = stream.set_nodelay(true);
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
        tokio::task::spawn_local(async { drop(connection.await) });
        Some(sender)
    }
}

/// A response's body; when it is over, its connection is given back.
struct Body {
    incoming: Option<Incoming>,
    lease: Option<(Rc<Proxy>, usize, SendRequest<Incoming>)>,
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        match &mut self.incoming {
            Some(incoming) => Pin::new(incoming).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or(SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let over = self.is_end_stream();
        let Some((proxy, endpoint, mut sender)) = self.lease.take() else { return };
        if sender.is_ready() {
            proxy.endpoints[endpoint].idle.borrow_mut().push(sender);
        } else if over {
            tokio::task::spawn_local(async move {
                if sender.ready().await.is_ok() {
                    proxy.endpoints[endpoint].idle.borrow_mut().push(sender);
                }
            });
        }
    }
}
