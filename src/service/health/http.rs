//! The check of kind `http`: `GET path`, judged by status and body.

use super::target::{Target, Unwell, beside};
use http::{Request, Response, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use memchr::memmem;

/// Bytes of an answer's body that are looked at.
const MOST_BODY: usize = 64 * 1024;

pub(super) async fn check(target: &Target<'_>) -> Result<(), Unwell> {
    let path = &target.check.path;
    let uri = if target.http2 { target.uri(path) } else { path.clone() };
    let mut request = Request::get(uri).header(header::USER_AGENT, "wayside-health");
    if !target.http2 {
        request = request.header(header::HOST, &target.host).header(header::CONNECTION, "close");
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|e| Unwell::Theirs(e.to_string()))?;
    let io = TokioIo::new(target.connect().await?);
    if target.http2 {
        let hands = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await;
        let (mut sender, connection) = hands.map_err(Unwell::broken)?;
        beside(async { judge(sender.send_request(request).await, target).await }, connection).await
    } else {
        let hands = hyper::client::conn::http1::handshake(io).await;
        let (mut sender, connection) = hands.map_err(Unwell::broken)?;
        beside(async { judge(sender.send_request(request).await, target).await }, connection).await
    }
}

async fn judge(answer: hyper::Result<Response<Incoming>>, target: &Target<'_>) -> Result<(), Unwell> {
    let answer = answer.map_err(Unwell::broken)?;
    let status = answer.status().as_u16();
    if !target.check.expects(status) {
        return Err(Unwell::Theirs(format!("status {status}")));
    }
    match &target.check.body {
        Some(text) if !contains(answer.into_body(), text.as_bytes()).await? => {
            Err(Unwell::Theirs(format!("status {status}, but its body lacks what `body` says")))
        }
        _ => Ok(()),
    }
}

/// Does the body's beginning have this text in it? No more of it is read than that takes.
async fn contains(mut body: Incoming, text: &[u8]) -> Result<bool, Unwell> {
    let finder = memmem::Finder::new(text);
    let mut read: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Unwell::Theirs(format!("its body broke off: {e}")))?;
        let Some(data) = frame.data_ref() else { continue };
        // What was looked through already may hold the text's beginning.
        let from = read.len().saturating_sub(text.len() - 1);
        let room = MOST_BODY - read.len();
        read.extend_from_slice(data.get(..room).unwrap_or(data));
        if read.get(from..).is_some_and(|new| finder.find(new).is_some()) {
            return Ok(true);
        }
        if read.len() >= MOST_BODY {
            break;
        }
    }
    Ok(false)
}
