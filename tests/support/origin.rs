//! Origins that speak real HTTP/1 and HTTP/2 through hyper, and do by the path what a test needs.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "for tests, each of which uses some of it"
)]

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};

/// HTTP/1.1 or HTTP/2 without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

pub type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// A server for one test.
pub struct Origin {
    pub address: SocketAddr,
    /// Requests that it was sent.
    pub served: Arc<AtomicUsize>,
    /// Lets one request to `/held` go on.
    pub release: Arc<Notify>,
    /// Told when a request to `/held` has come.
    pub holding: Arc<Notify>,
}

impl Origin {
    pub async fn start(protocol: Protocol) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (served, release, holding) = <(Arc<AtomicUsize>, Arc<Notify>, Arc<Notify>)>::default();
        let (count, go, came) = (Arc::clone(&served), Arc::clone(&release), Arc::clone(&holding));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (count, go, came) = (Arc::clone(&count), Arc::clone(&go), Arc::clone(&came));
                let service = service_fn(move |request| {
                    count.fetch_add(1, Relaxed);
                    answer(request, Arc::clone(&go), Arc::clone(&came))
                });
                tokio::spawn(async move {
                    let io = TokioIo::new(stream);
                    let _ = match protocol {
                        Protocol::Http1 => {
                            hyper::server::conn::http1::Builder::new().serve_connection(io, service).await
                        }
                        Protocol::Http2 => {
                            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                                .serve_connection(io, service)
                                .await
                        }
                    };
                });
            }
        });
        Origin { address, served, release, holding }
    }
}

async fn answer(
    request: Request<Incoming>,
    release: Arc<Notify>,
    holding: Arc<Notify>,
) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let body = match path.as_str() {
        // What was sent, frame by frame, trailers included.
        "/echo" => return Ok(echo(request)),
        // Nothing is said before the request is over. hyper would send a body to HEAD as well.
        "/whole" => {
            let is_head = request.method() == http::Method::HEAD;
            drop(request.into_body().collect().await);
            if is_head { empty() } else { full("the request is over") }
        }
        "/silent" => std::future::pending().await,
        "/held" => {
            holding.notify_one();
            release.notified().await;
            full("let go")
        }
        "/busy" => {
            let mut response = Response::new(full("busy"));
            *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
            return Ok(response);
        }
        // A beginning without an end.
        "/endless" => {
            let first = futures_util::stream::iter([Ok(Frame::data(Bytes::from_static(b"first")))]);
            StreamBody::new(futures_util::StreamExt::chain(first, futures_util::stream::pending())).boxed_unsync()
        }
        _ => full(&path),
    };
    Ok(Response::new(body))
}

fn echo(request: Request<Incoming>) -> Response<Body> {
    let declared = request.headers().get(http::header::TRAILER).cloned();
    let mut response = Response::new(request.into_body().boxed_unsync());
    if let Some(declared) = declared {
        response.headers_mut().insert(http::header::TRAILER, declared);
    }
    response
}

pub fn full(text: &str) -> Body {
    Full::new(Bytes::copy_from_slice(text.as_bytes())).map_err(|never| match never {}).boxed_unsync()
}

pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body that a test sends piece by piece; it ends when the sender is dropped.
pub fn streamed() -> (mpsc::Sender<Frame<Bytes>>, Body) {
    let (to, mut from) = mpsc::channel::<Frame<Bytes>>(1);
    let stream = futures_util::stream::poll_fn(move |cx| from.poll_recv(cx).map(|frame| frame.map(Ok)));
    (to, StreamBody::new(stream).boxed_unsync())
}

/// A connection to the gateway.
pub enum Client {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Client {
    pub async fn connect(address: &str, protocol: Protocol) -> Self {
        let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
        match protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(io).await.unwrap();
                tokio::spawn(async { drop(connection.await) });
                Client::Http1(sender)
            }
            Protocol::Http2 => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
                tokio::spawn(async { drop(connection.await) });
                Client::Http2(sender)
            }
        }
    }

    /// Sends a request to `http://shop.example` with this path; the response's head.
    pub async fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: Body) -> Response<Incoming> {
        self.try_send(method, path, headers, body).await.unwrap()
    }

    pub async fn try_send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> hyper::Result<Response<Incoming>> {
        let mut request = Request::builder().method(method);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        match self {
            Client::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request.uri(path).header("host", "shop.example").body(body).unwrap()).await
            }
            Client::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request.uri(format!("http://shop.example{path}")).body(body).unwrap()).await
            }
        }
    }

    /// The other side has closed it, or said that it takes no more.
    pub async fn closed(&mut self) {
        loop {
            let closed = match self {
                Client::Http1(sender) => sender.is_closed(),
                Client::Http2(sender) => sender.is_closed(),
            };
            if closed {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}

/// A whole body as text, and its trailers.
pub async fn whole(response: Response<Incoming>) -> (String, Option<HeaderMap>) {
    let body = response.into_body().collect().await.unwrap();
    let trailers = body.trailers().cloned();
    (String::from_utf8(body.to_bytes().to_vec()).unwrap(), trailers)
}
