//! One stream of bytes, read by the strict parser and by hyper: whatever the first takes for requests, the second must
//! take for the same ones.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Version};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wayside::http::h1::flow::Flow;
use wayside::http::h1::head::Parser;
use wayside::http::headers::names_in_connection;
use wayside::http::request::target::Target;

/// Bounds of the strict parser, below those of hyper.
const HEAD_BYTES: usize = 4000;
const HEADERS: usize = 50;

/// One request.
#[derive(Debug, PartialEq)]
struct Told {
    method: Method,
    target: Target,
    version: Version,
    headers: HeaderMap,
    content: Vec<u8>,
    trailers: HeaderMap,
}

/// Panics where the strict parser accepts what hyper refuses, or reads another message. Gives how many it has accepted.
pub fn compare(bytes: &[u8]) -> usize {
    let (ours, theirs) = (strict(bytes), hypers(bytes));
    for (number, told) in ours.iter().enumerate() {
        assert_eq!(theirs.get(number), Some(told), "request {number} of {}", bytes.escape_ascii());
    }
    ours.len()
}

/// Whole requests up to the first after which the connection is not used again, or speaks something else.
fn strict(bytes: &[u8]) -> Vec<Told> {
    let (mut told, mut rest) = (Vec::new(), Bytes::copy_from_slice(bytes));
    while let Ok(Some(found)) = Parser::new(HEAD_BYTES, HEADERS).read(&rest) {
        let parts = found.parts;
        let _ = rest.split_to(found.bytes);
        if parts.method == Method::CONNECT || parts.headers.has("upgrade") {
            break;
        }
        let old = parts.version == Version::HTTP_10;
        let names = |name| names_in_connection(&parts.headers, name);
        let ends = names("close") || old && !names("keep-alive");
        let (mut flow, mut content, mut trailers) = (found.body, Vec::new(), HeaderMap::new());
        let read = read_body(&mut flow, &mut rest, &mut content, &mut trailers);
        if !read || !flow.is_over() {
            break;
        }
        let (method, target, version) = (parts.method, parts.target, parts.version);
        told.push(Told { method, target, version, headers: parts.headers.to_map(), content, trailers });
        if ends {
            break;
        }
    }
    told
}

fn read_body(flow: &mut Flow, rest: &mut Bytes, content: &mut Vec<u8>, trailers: &mut HeaderMap) -> bool {
    loop {
        match flow.next(rest) {
            Ok(Some(frame)) => match frame.into_data() {
                Ok(data) => content.extend_from_slice(&data),
                Err(frame) => *trailers = frame.into_trailers().unwrap_or_default(),
            },
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

/// What a server of hyper hands to its service.
fn hypers(bytes: &[u8]) -> Vec<Told> {
    let options = tokio::runtime::LocalOptions::default();
    let runtime = tokio::runtime::Builder::new_current_thread().build_local(options).unwrap();
    let told = Rc::new(RefCell::new(Vec::new()));
    let telling = Rc::clone(&told);
    runtime.block_on(async {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        client.write_all(bytes).await.unwrap();
        client.shutdown().await.unwrap();
        let service = service_fn(move |request: Request<Incoming>| {
            let telling = Rc::clone(&telling);
            async move {
                let (parts, body) = request.into_parts();
                if let Ok(body) = body.collect().await {
                    let trailers = body.trailers().cloned().unwrap_or_default();
                    telling.borrow_mut().push(Told {
                        method: parts.method,
                        target: Target::of(&parts.uri),
                        version: parts.version,
                        headers: trimmed(&parts.headers),
                        content: body.to_bytes().to_vec(),
                        trailers: trimmed(&trailers),
                    });
                }
                Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
            }
        });
        let mut builder = hyper::server::conn::http1::Builder::new();
        let serving = builder.half_close(true).serve_connection(TokioIo::new(server), service);
        let mut answers = Vec::new();
        let _ = tokio::join!(serving, client.read_to_end(&mut answers));
    });
    Rc::into_inner(told).unwrap().into_inner()
}

/// Whitespace around a value is none of it, wherever a parser takes it off.
fn trimmed(headers: &HeaderMap) -> HeaderMap {
    let line = |(name, value): (&HeaderName, &HeaderValue)| {
        (name.clone(), HeaderValue::from_bytes(value.as_bytes().trim_ascii()).unwrap())
    };
    headers.iter().map(line).collect()
}
