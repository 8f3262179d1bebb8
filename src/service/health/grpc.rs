//! The check of kind `grpc`: `grpc.health.v1.Health/Check`, as grpc/doc/health-checking.md has it, in the frames of
//! "gRPC over HTTP2". `SERVING` is good, and nothing else.

use super::target::{Target, Unwell, beside};
use http::{HeaderMap, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;

const PATH: &str = "/grpc.health.v1.Health/Check";
/// Bytes of an answer, which are 7 where all is well.
const MOST_ANSWER: usize = 1024;
/// Before each message: whether it is compressed, and how long it is.
const PREFIX: usize = 5;

#[derive(PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

pub(super) async fn check(target: &Target<'_>) -> Result<(), Unwell> {
    let service = target.check.service.clone().unwrap_or_default();
    let timeout = target.check.timeout.as_millis().min(99_999_999);
    let request = Request::post(target.uri(PATH))
        .header(header::USER_AGENT, "wayside-health")
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header("grpc-timeout", format!("{timeout}m"))
        .body(Full::new(framed(&HealthCheckRequest { service })))
        .map_err(|e| Unwell::Theirs(e.to_string()))?;
    let io = TokioIo::new(target.connect().await?);
    let hands = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await;
    let (mut sender, connection) = hands.map_err(Unwell::broken)?;
    beside(async { judge(sender.send_request(request).await).await }, connection).await
}

/// A message with its prefix.
fn framed(message: &impl Message) -> Bytes {
    let message = message.encode_to_vec();
    // It holds a name of bounded length.
    let length = u32::try_from(message.len()).unwrap_or(0);
    [&[0], &length.to_be_bytes()[..], &message].concat().into()
}

async fn judge(answer: hyper::Result<Response<Incoming>>) -> Result<(), Unwell> {
    let (head, mut body) = answer.map_err(Unwell::broken)?.into_parts();
    if head.status != http::StatusCode::OK {
        return Err(Unwell::Theirs(format!("status {}", head.status.as_u16())));
    }
    let (mut read, mut ended) = (Vec::new(), status(&head.headers));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(Unwell::broken)?;
        if let Some(data) = frame.data_ref() {
            read.extend_from_slice(data);
        } else if let Some(trailers) = frame.trailers_ref() {
            ended = status(trailers).or(ended);
        }
        if read.len() > MOST_ANSWER {
            return Err(Unwell::Theirs("its answer is too long for one of grpc.health.v1".into()));
        }
    }
    match ended.as_deref() {
        Some("0") => serving(&read).map_err(|problem| Unwell::Theirs(problem.into())),
        Some("5") => Err(Unwell::Theirs("grpc-status 5: it does not know the service".into())),
        Some("12") => Err(Unwell::Theirs("grpc-status 12: it does not serve grpc.health.v1".into())),
        Some(other) => Err(Unwell::Theirs(format!("grpc-status {other}"))),
        None => Err(Unwell::Theirs("an answer without grpc-status".into())),
    }
}

/// `grpc-status`, if it is a number; an answer without a message has it in the head.
fn status(headers: &HeaderMap) -> Option<String> {
    let status = headers.get("grpc-status")?.to_str().ok()?;
    (status.len() <= 3 && status.bytes().all(|byte| byte.is_ascii_digit())).then(|| status.to_owned())
}

/// Does this message, with its prefix, say `SERVING`? Else what it says.
fn serving(answer: &[u8]) -> Result<(), &'static str> {
    let bad = "its answer is none of grpc.health.v1";
    let (prefix, message) = answer.split_first_chunk::<PREFIX>().ok_or(bad)?;
    let [compressed, length @ ..] = *prefix;
    if compressed != 0 || usize::try_from(u32::from_be_bytes(length)) != Ok(message.len()) {
        return Err(bad);
    }
    match HealthCheckResponse::decode(message).map_err(|_| bad)?.status {
        0 => Err("UNKNOWN"),
        1 => Ok(()),
        2 => Err("NOT_SERVING"),
        3 => Err("SERVICE_UNKNOWN"),
        _ => Err(bad),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_are_framed_as_grpc_frames_them() {
        let request = framed(&HealthCheckRequest { service: "shop".into() });
        assert_eq!(&*request, b"\0\0\0\0\x06\x0a\x04shop");
        assert_eq!(&*framed(&HealthCheckRequest::default()), b"\0\0\0\0\0");
    }

    #[test]
    fn only_serving_is_good() {
        let says = |status| serving(&framed(&HealthCheckResponse { status }));
        assert_eq!(says(1), Ok(()));
        assert_eq!([says(0), says(2), says(3)], [Err("UNKNOWN"), Err("NOT_SERVING"), Err("SERVICE_UNKNOWN")]);
        assert!(says(4).is_err() && says(-1).is_err());
        assert!(serving(b"\x01\0\0\0\x02\x08\x01").is_err(), "compressed");
        assert!(serving(b"\0\0\0\0\x02\x08\x01\0").is_err(), "longer than it says");
        assert!(serving(b"").is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = serving(&bytes);
            let length = (bytes.len() as u32).to_be_bytes();
            let _ = serving(&[&[0], &length[..], &bytes].concat());
        }
    }
}
