//! The bare hyper proxy as most people would write it: tokio's runtime of several threads, hyper-util's server that finds
//! out which HTTP a client speaks, hyper-util's client with its pool, bodies in boxes. Round robin, `x-forwarded-for`. No
//! deadline, no limit, no retry, no measuring.

use crate::serve::{HOP_BY_HOP, listen, until_closed};
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::uri::{PathAndQuery, Scheme};
use http::{Request, Response, StatusCode, Uri, Version};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::net::TcpListener;

struct Proxy {
    endpoints: Vec<SocketAddr>,
    turn: AtomicUsize,
    client: Client<HttpConnector, Incoming>,
}

/// Runs until standard input ends, with one port for HTTP/1 and HTTP/2.
///
/// # Errors
/// The socket cannot be had.
pub fn run(workers: usize, endpoints: &[SocketAddr]) -> anyhow::Result<()> {
    let socket = listen(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let address = socket.local_addr()?;
    let mut builder = match workers {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = builder.worker_threads(workers).enable_all().build()?;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(256).build(connector);
    let proxy = Arc::new(Proxy { endpoints: endpoints.to_vec(), turn: AtomicUsize::new(0), client });
    std::thread::spawn(move || runtime.block_on(accept(socket, proxy)));
    until_closed(&[address]);
    Ok(())
}

async fn accept(socket: std::net::TcpListener, proxy: Arc<Proxy>) -> std::io::Result<()> {
    let listener = TcpListener::from_std(socket)?;
    loop {
        let Ok((stream, peer)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let proxy = Arc::clone(&proxy);
        let peer = HeaderValue::from_str(&peer.ip().to_string()).unwrap_or(HeaderValue::from_static(""));
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let (proxy, peer) = (Arc::clone(&proxy), peer.clone());
                async move { Ok::<_, Infallible>(proxy.handle(request, peer).await) }
            });
            let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

impl Proxy {
    async fn handle(
        &self,
        mut request: Request<Incoming>,
        peer: HeaderValue,
    ) -> Response<BoxBody<Bytes, hyper::Error>> {
        let endpoint = self.endpoints[self.turn.fetch_add(1, Relaxed) % self.endpoints.len()];
        let target = request.uri().path_and_query().cloned();
        let target = target.unwrap_or_else(|| PathAndQuery::from_static("/"));
        let uri = Uri::builder().scheme(Scheme::HTTP).authority(endpoint.to_string()).path_and_query(target).build();
        *request.uri_mut() = uri.unwrap_or_default();
        *request.version_mut() = Version::HTTP_11;
        let headers = request.headers_mut();
        for name in &HOP_BY_HOP {
            headers.remove(name);
        }
        headers.insert("x-forwarded-for", peer);
        match self.client.request(request).await {
            Ok(mut response) => {
                response.headers_mut().remove(header::CONNECTION);
                response.headers_mut().remove("keep-alive");
                response.map(BodyExt::boxed)
            }
            Err(_) => {
                let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed());
                *response.status_mut() = StatusCode::BAD_GATEWAY;
                response
            }
        }
    }
}
