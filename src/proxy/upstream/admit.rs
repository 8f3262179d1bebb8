//! The way in: a request waits until its service has room for it, or is refused. Its place is its exchange's, until that is
//! over.

use super::Arrived;
use super::terms::Terms;
use crate::base::time::{process_ms, process_ms_at};
use crate::http::error::Error;
use crate::http::request::body::Upload;
use crate::http::settings::Gateway;
use crate::proxy::exchange::Exchange;
use crate::service::Service;
use crate::service::admission::{Entered, Over, Waiting};
use crate::service::decision::Forward;
use crate::service::settings::Settings;
use http::StatusCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Sends the request once its service has room for it.
///
/// # Errors
/// Why no response head came: the answer to the client.
pub async fn send(
    exchange: &mut Exchange,
    forward: &Forward,
    gateway: &Gateway,
    body: &Rc<Upload>,
) -> Result<Arrived, Error> {
    let service = &forward.service;
    let limited = service.settings.is_limited();
    if limited {
        match enter(exchange, forward) {
            Ok(None) => {}
            // Aside, so that nobody else's request grows by it.
            Ok(Some(waiting)) => Box::pin(wait(exchange, forward, gateway, waiting)).await?,
            Err(over) => return Err(refused(exchange, service, over)),
        }
    }
    let sent = super::send(exchange, forward, gateway, body).await;
    if !limited {
        return sent;
    }
    match sent {
        Ok(arrived) => {
            arrives(exchange, service, &arrived, body);
            Ok(arrived)
        }
        Err(error) => {
            exchange.place = None;
            match error {
                Error::NoEndpoint if exchange.record.attempts.is_empty() && is_full(service) => {
                    Err(refuse(exchange, service, Over::Endpoints))
                }
                Error::Overloaded => Err(refuse(exchange, service, Over::Connections)),
                error => Err(error),
            }
        }
    }
}

/// Takes a place for it. Some: it has to wait for one.
fn enter(exchange: &mut Exchange, forward: &Forward) -> Result<Option<Waiting>, Over> {
    let Forward { service, plan, .. } = forward;
    // The proxy has noted it before it decided.
    let Some(head) = &exchange.record.head else { return Ok(None) };
    let Settings { limits, queue, .. } = &*service.settings;
    let ready = service.endpoints.ready();
    let room = limits.room(ready.candidates.max(ready.line.places.len()), service.settings.http2());
    let now_ms = process_ms_at(exchange.record.decided_at());
    match service.live.admission.enter(room, queue.as_ref(), (head, plan.queue.as_ref()), now_ms) {
        Entered::Place(place) => exchange.place = Some(place),
        Entered::Waits(waiting) => return Ok(Some(waiting)),
        Entered::Refused(over) => return Err(over),
    }
    Ok(None)
}

/// Waits for a place. Its time in the queue is the request's own.
async fn wait(
    exchange: &mut Exchange,
    forward: &Forward,
    gateway: &Gateway,
    mut waiting: Waiting,
) -> Result<(), Error> {
    let service = &forward.service;
    let Some(head) = exchange.record.head.clone() else { return Err(Error::NoRoute) };
    let began = exchange.record.decided_at();
    let terms = Terms::new(&service.settings, &forward.plan, gateway, &head, exchange.record.started);
    let until = began + service.settings.queue.as_ref().map_or(Duration::ZERO, |queue| queue.wait);
    let until = terms.deadline.map_or(until, |deadline| deadline.min(until));
    let worker = Rc::clone(&exchange.worker);
    let told = worker.pools.before(Some(until), waiting.told()).await;
    let told = told.unwrap_or_else(|| waiting.ends());
    exchange.record.queued = began.elapsed();
    match told {
        Ok(place) => exchange.place = Some(place),
        Err(_) if terms.deadline.is_some_and(|deadline| Instant::now() >= deadline) => return Err(Error::Timeout),
        Err(over) => return Err(refused(exchange, service, over)),
    }
    Ok(())
}

/// The client is told that the service has no room.
fn refuse(exchange: &mut Exchange, service: &Service, over: Over) -> Error {
    service.live.admission.places.refuse(over);
    refused(exchange, service, over)
}

/// The same where it was counted already.
fn refused(exchange: &mut Exchange, service: &Service, over: Over) -> Error {
    exchange.record.over = Some(over);
    let wait = service.settings.queue.as_ref().map_or(Duration::ZERO, |queue| queue.wait);
    // Whoever is refused may come again when those who wait now are through.
    exchange.record.retry_after = Some(wait.as_millis().div_ceil(1000).try_into().unwrap_or(1).max(1));
    Error::Overloaded
}

/// There are endpoints, which have as many requests as they may.
pub(super) fn is_full(service: &Service) -> bool {
    let settings = &service.settings;
    settings.limits.of_each(settings.http2()).is_some() && !service.endpoints.ready().line.places.is_empty()
}

/// What a response's head says of how many requests its service can take: how long it took, unless it came from the second
/// attempt on, tells of trouble, or begins a stream.
fn arrives(exchange: &mut Exchange, service: &Service, arrived: &Arrived, body: &Upload) {
    let response = &arrived.response;
    let events = || response.headers.get("content-type").is_some_and(|kind| kind.starts_with(b"text/event-stream"));
    if response.status == StatusCode::SWITCHING_PROTOCOLS || events() {
        if let Some(place) = &mut exchange.place {
            place.streams();
        }
        return;
    }
    let good = response.is_good();
    let [attempt] = exchange.record.attempts.as_slice() else { return };
    if good && service.settings.adaptive.is_some() {
        let began = exchange.record.started + attempt.began;
        // The time in which the client sends is the client's.
        let had_all = body.last_piece().map_or(began, |last| last.max(began));
        let took = (began + attempt.took).saturating_duration_since(had_all);
        service.live.admission.answered(took, process_ms());
    }
}
