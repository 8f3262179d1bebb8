//! HTTP/2's streams that end before their end: what each side is told of it, and that nothing looks complete that is not.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

use crate::support::origin::Protocol::{Http1, Http2};
use crate::support::origin::{Client, empty, full, streamed, whole};
use crate::support::program::Program;
use crate::support::raw::Raw;
use bytes::Bytes;
use h2::Reason;
use h2::server::SendResponse;
use http::{Request, Response};
use http_body_util::BodyExt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::sync::Notify;

/// An HTTP/2 origin: what it does with each request, by its number. It reads none of their bodies.
async fn origin(answer: impl Fn(usize, SendResponse<Bytes>) + Send + Sync + 'static) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (answer, number) = (Arc::new(answer), Arc::<AtomicUsize>::default());
    tokio::spawn(async move {
        loop {
            let stream = listener.accept().await.unwrap().0;
            let (answer, number) = (Arc::clone(&answer), Arc::clone(&number));
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_, respond))) = connection.accept().await {
                    answer(number.fetch_add(1, Relaxed), respond);
                }
            });
        }
    });
    address
}

fn ok() -> Response<()> {
    Response::new(())
}

#[tokio::test]
async fn what_an_endpoint_says_it_has_not_looked_at_is_sent_again() {
    // RFC 9113 §8.7: also what may do harm when it is done twice.
    for (reason, expected) in [(Reason::REFUSED_STREAM, 200), (Reason::INTERNAL_ERROR, 502), (Reason::CANCEL, 502)] {
        let origin = origin(move |number, mut respond| match number {
            0 => respond.send_reset(reason),
            _ => drop(respond.send_response(ok(), true).unwrap()),
        });
        let gateway = Program::before(origin.await, "", "protocol = \"h2\"\nmax_attempts = 1");
        let mut client = Client::connect(&gateway.address, Http1).await;
        assert_eq!(client.send("POST", "/", &[], full("order")).await.status(), expected, "{reason:?}");
    }
}

#[tokio::test]
async fn who_cancels_is_not_taken_for_one_that_broke() {
    // "gRPC over HTTP2", Errors: CANCEL is CANCELLED.
    for (reason, code, status) in
        [(Reason::CANCEL, "upstream_cancelled", "1"), (Reason::INTERNAL_ERROR, "upstream_reset", "14")]
    {
        let origin = origin(move |_, mut respond| respond.send_reset(reason)).await;
        let gateway = Program::before(origin, "", "protocol = \"h2\"");
        let mut client = Client::connect(&gateway.address, Http2).await;
        let call = client.send("POST", "/", &[("content-type", "application/grpc")], empty()).await;
        assert_eq!((call.status().as_u16(), call.headers()["grpc-status"].to_str().unwrap()), (200, status));
        let plain = client.send("POST", "/", &[], empty()).await;
        assert_eq!(plain.status(), 502);
        let body = whole(plain).await.0;
        assert!(body.contains(&format!("\"{code}\"")), "{body}");
    }
}

#[tokio::test]
async fn a_large_head_and_large_trailers_pass() {
    let origin = origin(move |_, mut respond| {
        let large = |bytes| http::HeaderValue::try_from("x".repeat(bytes)).unwrap();
        let mut head = ok();
        head.headers_mut().insert("x-head", large(20 << 10));
        head.headers_mut().insert("trailer", "x-sum".parse().unwrap());
        let mut body = respond.send_response(head, false).unwrap();
        body.send_trailers([(http::HeaderName::from_static("x-sum"), large(48 << 10))].into_iter().collect()).unwrap();
    });
    let gateway = Program::before(origin.await, "", "protocol = \"h2\"");
    let answer = tokio::task::spawn_blocking(move || {
        let mut client = Raw::connect(&gateway.address);
        client.say("GET / HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: close\r\n\r\n");
        client.rest().unwrap()
    });
    let answer = answer.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.len() > 68 << 10 && answer.contains("\r\nx-sum: x"));
}

#[tokio::test]
async fn half_a_response_never_looks_whole() {
    // RFC 9113 §8.1: NO_ERROR says nothing against a response that has ended, but does not end it either.
    for reason in [Reason::NO_ERROR, Reason::CANCEL, Reason::INTERNAL_ERROR] {
        let seen = Arc::<Notify>::default();
        let half_seen = Arc::clone(&seen);
        let origin = origin(move |_, mut respond| {
            let half_seen = Arc::clone(&half_seen);
            tokio::spawn(async move {
                let mut body = respond.send_response(ok(), false).unwrap();
                body.send_data("half".into(), false).unwrap();
                half_seen.notified().await;
                body.send_reset(reason);
            });
        });
        let gateway = Program::before(origin.await, "", "protocol = \"h2\"");
        for protocol in [Http1, Http2] {
            let mut client = Client::connect(&gateway.address, protocol).await;
            let mut body = client.send("GET", "/", &[], empty()).await.into_body();
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
            seen.notify_one();
            let rest = body.collect().await;
            assert!(rest.is_err(), "{reason:?} to {protocol:?}: {rest:?}");
        }
    }
}

#[tokio::test]
async fn a_whole_response_is_whole_though_its_endpoint_wants_no_more_of_the_request() {
    // RFC 9113 §8.1: when this origin has answered it lets go of a stream whose request has not ended, with NO_ERROR.
    let origin = origin(|_, mut respond| {
        let mut body = respond.send_response(ok(), false).unwrap();
        body.send_data("enough".into(), true).unwrap();
    });
    let gateway = Program::before(origin.await, "", "protocol = \"h2\"");
    for protocol in [Http1, Http2] {
        let mut client = Client::connect(&gateway.address, protocol).await;
        let (_more, upload) = streamed();
        assert_eq!(whole(client.send("POST", "/", &[], upload).await).await.0, "enough");
    }
}

#[tokio::test]
async fn half_a_request_never_looks_whole() {
    let origin = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = Program::before(origin.local_addr().unwrap(), "", "");
    let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let cases = [Reason::NO_ERROR, Reason::CANCEL].into_iter().flat_map(|reason| [(reason, ""), (reason, answer)]);
    for (reason, answer) in cases {
        let stream = tokio::net::TcpStream::connect(&gateway.address).await.unwrap();
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let request = Request::post("http://shop.example/").body(()).unwrap();
        let (response, mut upload) = client.ready().await.unwrap().send_request(request, false).unwrap();
        upload.send_data(Bytes::from_static(b"half"), false).unwrap();
        let listener = origin.try_clone().unwrap();
        let mut upstream = tokio::task::spawn_blocking(move || {
            let mut upstream = Raw::accept(&listener);
            upstream.head();
            assert_eq!(upstream.bytes(9), "4\r\nhalf\r\n");
            upstream.say(answer);
            upstream
        })
        .await
        .unwrap();
        let response = if answer.is_empty() { Err(response) } else { Ok(response.await.unwrap()) };
        upload.send_reset(reason);
        let rest = tokio::task::spawn_blocking(move || upstream.rest()).await.unwrap();
        assert!(matches!(rest.as_deref(), Ok("") | Err(_)), "{reason:?}, {answer:?}: {rest:?}");
        drop(response);
    }
}
