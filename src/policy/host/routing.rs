//! `routing`: what the guest answered, made into a decision or found to be none.

use super::edit::{header_name, header_value};
use crate::policy::bindings::exports::wayside::policy::routing::{Decision, Response};
use crate::policy::context::Context;
use crate::service::decision::{Answer, Forward, Outcome};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use std::sync::Arc;

/// Bytes of a body.
const BODY: usize = 64 << 10;
/// Headers of a response.
const HEADERS: usize = 64;

/// Turns a guest's answer into an outcome.
///
/// # Errors
/// Why it is a bad one.
pub(in crate::policy) fn answer(context: &mut Context, decision: Decision) -> Result<Outcome, String> {
    match decision {
        Decision::Next => Ok(Outcome::Next),
        Decision::Forward(name) => {
            let service = context.question.as_ref().and_then(|question| question.catalog.service(&name));
            let service = service.map(Arc::clone).ok_or_else(|| {
                format!("forward to `{}`, which is no known service", name.chars().take(64).collect::<String>())
            })?;
            let (plan, edits) = (std::mem::take(&mut context.call.plan), std::mem::take(&mut context.call.edits));
            Ok(Outcome::Forward(Arc::new(Forward { service, plan, edits })))
        }
        Decision::Respond(response) => Ok(Outcome::Respond(Box::new(respond(response)?))),
    }
}

fn respond(response: Response) -> Result<Answer, String> {
    let Response { status, headers, body } = response;
    let status = match StatusCode::from_u16(status) {
        Ok(code) if (200..600).contains(&status) => code,
        _ => return Err(format!("a response with status {status} (expected 200 to 599)")),
    };
    if body.len() > BODY {
        return Err(format!("a response with a body of {} bytes (at most {BODY})", body.len()));
    }
    if headers.len() > HEADERS {
        return Err(format!("a response with more than {HEADERS} headers"));
    }
    let header = |(name, value): (String, String)| Ok((header_name(&name)?, header_value(&name, value)?));
    let headers: Result<Vec<_>, String> = headers.into_iter().map(header).collect();
    let mut headers = headers.map_err(|problem| format!("a response with a bad header: {problem}"))?;
    if !body.is_empty() && !headers.iter().any(|(name, _)| name == CONTENT_TYPE) {
        headers.push((CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")));
    }
    Ok(Answer { status, headers, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16) -> Response {
        Response { status, headers: Vec::new(), body: String::new() }
    }

    #[test]
    fn responses_keep_to_the_interface() {
        for status in [0, 100, 101, 199, 600, 999, 1000] {
            assert!(respond(response(status)).is_err(), "{status}");
        }
        assert!(respond(response(200)).is_ok() && respond(response(599)).is_ok());
        let long = |bytes| Response { body: "x".repeat(bytes), ..response(200) };
        assert!(respond(long(BODY)).is_ok() && respond(long(BODY + 1)).is_err());
        let many = |n| Response { headers: vec![("x-a".into(), "b".into()); n], ..response(200) };
        assert!(respond(many(HEADERS)).is_ok() && respond(many(HEADERS + 1)).is_err());
        let bad = Response { headers: vec![("content-length".into(), "1".into())], ..response(200) };
        assert!(respond(bad).unwrap_err().contains("content-length"));
    }

    #[test]
    fn a_body_without_a_type_is_text() {
        let plain = respond(Response { body: "x".into(), ..response(200) }).unwrap();
        assert_eq!(plain.headers[0].1, "text/plain; charset=utf-8");
        let typed =
            Response { headers: vec![("Content-Type".into(), "a/b".into())], body: "x".into(), ..response(200) };
        assert_eq!(respond(typed).unwrap().headers.len(), 1);
        assert!(respond(response(204)).unwrap().headers.is_empty());
    }
}
