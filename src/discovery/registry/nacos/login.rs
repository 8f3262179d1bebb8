//! A token for a user's name and password, which Nacos gives over HTTP only: version 3 at one path, version 2 at another.

use super::super::members::dial;
use super::super::{Failure, Kind};
use crate::base::secret::Secret;
use crate::http::tls::client;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use std::time::Duration;
use tokio::time::timeout;

/// For the whole exchange, without the connection.
const ANSWER: Duration = Duration::from_secs(3);
/// No answer is larger, bytes.
const MAX_ANSWER: usize = 64 << 10;
/// Version 3 first, which has no other.
const PATHS: [&str; 2] = ["/nacos/v3/auth/user/login", "/nacos/v1/auth/login"];

/// What says that a user logged in.
#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) value: Secret,
    pub(super) lasts: Duration,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    access_token: String,
    #[serde(default)]
    token_ttl: u32,
}

/// Logs in at this member's HTTP port.
///
/// # Errors
/// Why not, without the password.
pub(super) async fn login(
    member: &str,
    tls: Option<&client::Settings>,
    username: &str,
    password: &Secret,
) -> Result<Token, Failure> {
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("username", username)
        .append_pair("password", password.expose())
        .finish();
    let mut refused = None;
    for path in PATHS {
        match timeout(ANSWER, post(member, tls, path, form.clone())).await {
            Ok(Ok(token)) => return Ok(token),
            // Of both, the one that knows the path.
            Ok(Err((Some(StatusCode::NOT_FOUND | StatusCode::GONE), failure))) => drop(refused.get_or_insert(failure)),
            Ok(Err((Some(_), failure))) => refused = Some(failure),
            Ok(Err((None, failure))) => return Err(failure),
            Err(_) => return Err(Failure::new(Kind::Silent, format!("{member}: no answer in time"))),
        }
    }
    Err(refused.unwrap_or_else(|| Failure::new(Kind::Denied, format!("{member}: login failed"))))
}

/// With a failure: the status that was answered.
async fn post(
    member: &str,
    tls: Option<&client::Settings>,
    path: &str,
    form: String,
) -> Result<Token, (Option<StatusCode>, Failure)> {
    let unreachable = |error: &dyn std::fmt::Display| {
        (None, Failure::new(Kind::Unreachable, format!("{member}: login failed: {error}")))
    };
    let socket = dial(member, tls, false).await.map_err(|failure| (None, failure))?;
    let opened = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await;
    let (mut sender, connection) = opened.map_err(|error| unreachable(&error))?;
    let request = Request::post(path)
        .header(header::HOST, member)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(header::USER_AGENT, concat!("wayside/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(Bytes::from(form)))
        .map_err(|error| unreachable(&error))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| {
            // Some 2.x answer a wrong password with the status line `HTTP/1.1 0`.
            if error.is_parse() { (Some(StatusCode::FORBIDDEN), denied(member, "")) } else { unreachable(&error) }
        })?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| unreachable(&error))?.to_bytes();
        Ok((status, body))
    };
    tokio::pin!(connection);
    let (status, body) = tokio::select! {
        biased;
        answer = exchange => answer?,
        // It carries the exchange, and may end before that has read all.
        ended = &mut connection => {
            let problem = ended.err().map_or_else(|| "the connection ended".to_owned(), |error| error.to_string());
            return Err(unreachable(&problem));
        }
    };
    match status {
        StatusCode::OK => {}
        status if status.is_server_error() => {
            return Err((Some(status), unreachable(&format!("answered {}", status.as_u16())).1));
        }
        status => return Err((Some(status), denied(member, &format!("answered {}; ", status.as_u16())))),
    }
    let answer: Answer = serde_json::from_slice(&body)
        .map_err(|_| (Some(status), denied(member, "the answer has no `accessToken`; ")))?;
    Ok(Token { value: Secret::new(answer.access_token), lasts: Duration::from_secs(answer.token_ttl.into()) })
}

fn denied(member: &str, said: &str) -> Failure {
    Failure::new(Kind::Denied, format!("{member}: login failed ({said}wrong `username` or `password`?)"))
}
