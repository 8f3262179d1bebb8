//! A request of a client that belongs to an endpoint: where it goes, and what the client is told.

use crate::http::error::Error;
use crate::http::request::Head;
use crate::proxy::exchange::Exchange;
use crate::proxy::upstream::download::Received;
use crate::service::affinity::Held;
use crate::service::balance::Picked;
use crate::service::decision::Forward;
use crate::service::{Endpoint, Service};

/// What the request is held to; nothing where its service has no `sticky`.
///
/// # Errors
/// It belongs to a session that nobody has.
pub(super) fn held(exchange: &mut Exchange, forward: &Forward) -> Result<Held, Error> {
    let Some(affinity) = &forward.service.affinity else { return Ok(Held::default()) };
    let now_s = exchange.record.unix_ms() / 1000;
    // The proxy has noted it before it decided.
    let Some(head) = &exchange.record.head else { return Ok(Held::default()) };
    affinity.ask(&forward.service, &forward.plan, &head.parts.headers, now_s).map_err(|(error, standing)| {
        exchange.record.affinity = Some(standing);
        error
    })
}

/// Where it goes before the strategy is asked, if there is room for it at `now_ms`.
pub(super) fn first(service: &Service, held: &Held, tried: &[u32], now_ms: u64) -> Option<Picked> {
    Picked::held(service, held.first(tried)?, now_ms)
}

/// The header of its session, and what its endpoint calls it.
pub(super) fn session<'a>(service: &'a Service, held: &'a Held) -> Option<(&'a str, &'a [u8])> {
    Some((service.affinity.as_ref()?.header()?, held.session()?))
}

/// This endpoint has answered.
pub(super) fn tell(
    exchange: &mut Exchange,
    service: &Service,
    held: &Held,
    (head, endpoint): (&Head, &Endpoint),
    response: &mut Received,
) {
    let Some(affinity) = &service.affinity else { return };
    let good = response.is_good();
    let now_s = exchange.record.unix_ms() / 1000;
    let (asked, headers) = (&head.parts.headers, &mut response.headers);
    exchange.record.affinity = affinity.tell(held, asked, (endpoint, good), headers, now_s);
}
