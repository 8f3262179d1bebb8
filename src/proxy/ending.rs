//! A response whose head was a good one turns out bad after it: its body breaks off, or a call of gRPC ends with a status that
//! says that the server is not well. Its endpoint answers for that as if the head had said so.

use super::exchange::Exchange;
use super::upstream::limit::Limit;
use crate::base::time::{process_ms, process_ms_at};
use crate::http::grpc;
use crate::service::InFlight;
use crate::service::health::ejecting;
use http::HeaderMap;
use std::time::Instant;

/// The body has broken off.
pub(super) fn broke_off(exchange: &Exchange, in_flight: &InFlight, limit: &Limit) {
    // Where the client's own body broke, so does what answers it.
    if !limit.client_failed() {
        turned_bad(exchange, in_flight);
    }
}

/// The body has ended with these.
pub(super) fn ended_with(exchange: &Exchange, in_flight: &InFlight, trailers: &HeaderMap) {
    if grpc::is_failure_after(trailers) {
        turned_bad(exchange, in_flight);
    }
}

/// Seldom, so that it is no part of what is done for each response.
#[cold]
fn turned_bad(exchange: &Exchange, in_flight: &InFlight) {
    let record = &exchange.record;
    // Of a hedge's two, the last one need not be the one that has answered.
    let attempt = record.attempts.iter().rev().find(|attempt| in_flight.is_at(&attempt.endpoint));
    let (Some(service), Some(attempt)) = (&record.service, attempt) else { return };
    // It was counted when its head came.
    if attempt.outcome.is_ok_and(|status| status >= 500) {
        return;
    }
    let head: Instant = record.started + attempt.began + attempt.took;
    let times = (attempt.took, process_ms_at(head), process_ms());
    let mut chance = exchange.worker.chance.borrow_mut();
    ejecting::turned_bad(service, &attempt.endpoint, in_flight.failed_before(), times, &mut chance);
    if let Some(settings) = &service.settings.breaker {
        service.live.breaker.turned_bad(settings, times.1, times.2, chance.next_u64());
    }
}
