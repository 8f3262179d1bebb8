//! What an endpoint says before its response: 100, upon which a body goes that was held back, and 103, which is counted
//! and dropped, since hyper cannot send it on.

use crate::http::request::body::gate::Gate;
use crate::telemetry::{Counter, Counters};
use http::{HeaderMap, Request, StatusCode, Version, header};
use std::sync::Arc;

/// Listens for what comes before the response to this request.
pub(super) fn listen<B>(request: &mut Request<B>, gate: Option<&Gate>, counters: &Arc<Counters>) {
    let (asked, counters) = (gate.map(Gate::asked), Arc::clone(counters));
    hyper::ext::on_informational(request, move |response| match (response.status(), &asked) {
        (StatusCode::CONTINUE, Some(asked)) => asked.go_on(),
        (StatusCode::EARLY_HINTS, _) => counters.count(Counter::EarlyHint),
        _ => {}
    });
}

/// The client waits with its body until it is asked for it. HTTP/1.0 does not know that (RFC 9110 §10.1.1), and hyper
/// does not ask in HTTP/2.
pub(super) fn waits(version: Version, headers: &HeaderMap) -> bool {
    let expect = headers.get(header::EXPECT);
    version == Version::HTTP_11 && expect.is_some_and(|expect| expect.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}
