//! The origin: three ports that answer each request with the same body, and a fourth that takes in what is exported
//! with OTLP over gRPC and throws it away.

use crate::serve::{LocalExec, accept, listen, until_closed, worker};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use std::convert::Infallible;
use std::net::SocketAddr;

/// What a response carries.
pub static BODY: [u8; 200] = [b'w'; 200];
/// The same of one to a path that ends in `/large`.
pub static LARGE_BODY: [u8; 64 << 10] = [b'w'; 64 << 10];

/// Runs until standard input ends.
///
/// # Errors
/// A socket cannot be had.
pub fn run() -> anyhow::Result<()> {
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut sockets = (0..4).map(|_| listen(free)).collect::<std::io::Result<Vec<_>>>()?;
    let addresses = sockets.iter().map(std::net::TcpListener::local_addr).collect::<std::io::Result<Vec<_>>>()?;
    worker(move || {
        if let Some(sink) = sockets.pop() {
            accept(sink, |io| async move {
                let connection = hyper::server::conn::http2::Builder::new(LocalExec);
                let _ = connection.serve_connection(io, service_fn(swallow)).await;
            })?;
        }
        for socket in sockets {
            accept(socket, |io| async move {
                let answer = |request: Request<Incoming>| {
                    let large = request.uri().path().ends_with("/large");
                    let body = if large { Bytes::from_static(&LARGE_BODY) } else { Bytes::from_static(&BODY) };
                    async { Ok::<_, Infallible>(Response::new(Full::new(body))) }
                };
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service_fn(answer)).await;
            })?;
        }
        Ok(())
    });
    until_closed(&addresses);
    Ok(())
}

/// An OTLP collector that is content with everything.
async fn swallow(
    request: Request<Incoming>,
) -> hyper::Result<Response<impl hyper::body::Body<Data = Bytes, Error = Infallible>>> {
    request.into_body().collect().await?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    // One message of length 0: an answer in which every field has its default.
    let body = Full::new(Bytes::from_static(&[0; 5])).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(body);
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    Ok(response)
}
