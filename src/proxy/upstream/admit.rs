//! The way in: a request waits until its service has room for it, or is refused. Its place is its exchange's, until that is
//! over.

use super::terms::Terms;
use super::{Arrived, affinity};
use crate::base::time::{process_ms, process_ms_at};
use crate::http::error::Error;
use crate::http::request::body::Upload;
use crate::http::settings::Gateway;
use crate::proxy::exchange::Exchange;
use crate::service::admission::{Entered, Over, Waiting, queue};
use crate::service::affinity::Held;
use crate::service::decision::Forward;
use crate::service::record::Record;
use crate::service::settings::Settings;
use crate::service::{Endpoint, Service};
use http::StatusCode;
use std::rc::Rc;
use std::sync::Arc;
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
    // A session that nobody has is refused before it takes a place, or waits for one.
    let mut held = affinity::held(exchange, forward)?;
    if !service.settings.is_limited() {
        return super::send(exchange, forward, gateway, body, &held).await;
    }
    match enter(exchange, forward) {
        Ok(None) => {}
        // Aside, so that nobody else's request grows by it.
        Ok(Some(waiting)) => held = Box::pin(wait(exchange, forward, gateway, waiting)).await?,
        Err(over) => return Err(refused(exchange, service, over)),
    }
    let mut sent = super::send(exchange, forward, gateway, body, &held).await;
    if is_crowded(exchange, forward, &held, &sent) {
        sent = match &service.settings.queue {
            Some(queue) => Box::pin(wait_for_endpoint(exchange, forward, gateway, body, (held, queue))).await,
            None => Err(refuse(exchange, service, Over::Endpoints)),
        };
    }
    match &sent {
        Ok(arrived) if service.settings.adaptive.is_some() => arrives(exchange, service, arrived, body),
        Ok(_) => {}
        Err(error) => {
            exchange.place = None;
            if *error == Error::Overloaded && exchange.record.over.is_none() {
                return Err(refuse(exchange, service, Over::Connections));
            }
        }
    }
    sent
}

/// Takes a place for it. Some: it has to wait for one.
fn enter(exchange: &mut Exchange, forward: &Forward) -> Result<Option<Waiting>, Over> {
    let Forward { service, plan, .. } = forward;
    // The proxy has noted it before it decided.
    let Some(head) = &exchange.record.head else { return Ok(None) };
    let Settings { limits, queue, .. } = &*service.settings;
    let endpoints = || {
        let ready = service.endpoints.ready();
        ready.candidates.max(ready.line.places.len())
    };
    let room = limits.room(endpoints, service.settings.http2());
    let now_ms = process_ms_at(exchange.record.decided_at());
    match service.live.admission.enter(room, queue.as_ref(), (head, plan.queue.as_ref()), now_ms) {
        Entered::Place(place) => exchange.place = Some(place),
        Entered::Waits(waiting) => return Ok(Some(waiting)),
        Entered::Refused(over) => return Err(over),
    }
    Ok(None)
}

/// Waits for a place. Its time in the queue is the request's own. Gives what the request is held to then: endpoints come and
/// go meanwhile.
async fn wait(
    exchange: &mut Exchange,
    forward: &Forward,
    gateway: &Gateway,
    mut waiting: Waiting,
) -> Result<Held, Error> {
    let patience = Patience::of(exchange, forward, gateway);
    let worker = Rc::clone(&exchange.worker);
    let told = worker.pools.before(Some(patience.until), waiting.told()).await;
    let told = told.unwrap_or_else(|| waiting.ends());
    exchange.record.queued += patience.began.elapsed();
    match told {
        Ok(place) => {
            let held = affinity::held(exchange, forward)?;
            exchange.place = Some(place);
            Ok(held)
        }
        Err(_) if patience.is_over() => Err(Error::Timeout),
        Err(over) => Err(refused(exchange, &forward.service, over)),
    }
}

/// Waits until an endpoint that the request may go to has room, where only others of its service have. Meanwhile it has no
/// place: those are for the others.
async fn wait_for_endpoint(
    exchange: &mut Exchange,
    forward: &Forward,
    gateway: &Gateway,
    body: &Rc<Upload>,
    (mut held, queue): (Held, &queue::Settings),
) -> Result<Arrived, Error> {
    let Forward { service, plan, .. } = forward;
    let Some(head) = exchange.record.head.clone() else { return Err(Error::NoRoute) };
    let worker = Rc::clone(&exchange.worker);
    loop {
        exchange.place = None;
        let (suits, of) = (suits(forward, &held), Arc::clone(service));
        let suits = Box::new(move |id| of.endpoints.by_id(id).is_some_and(|endpoint| suits(endpoint)));
        let (who, now_ms) = ((&*head, plan.queue.as_ref()), process_ms_at(exchange.record.decided_at()));
        let mut waits = service.live.admission.wait(&service.live.group.lobby, suits, queue, who, now_ms);
        // Whoever left an endpoint before has told nobody.
        let sent = again(exchange, forward, gateway, body, &mut held).await;
        if !is_crowded(exchange, forward, &held, &sent) {
            return sent;
        }
        exchange.place = None;
        let patience = Patience::of(exchange, forward, gateway);
        let told = worker.pools.before(Some(patience.until), waits.told()).await;
        let told = told.unwrap_or_else(|| waits.ends());
        exchange.record.queued += patience.began.elapsed();
        let room = match told {
            Ok(room) => room,
            Err(_) if patience.is_over() => return Err(Error::Timeout),
            Err(over) => return Err(refuse(exchange, service, over)),
        };
        let sent = again(exchange, forward, gateway, body, &mut held).await;
        let crowded = is_crowded(exchange, forward, &held, &sent);
        // Who could not even look for it leaves it to the next one.
        if crowded || !exchange.record.attempts.is_empty() {
            room.is_taken();
        }
        if !crowded {
            return sent;
        }
    }
}

/// Takes a place once more, or waits for one, and sends the request.
async fn again(
    exchange: &mut Exchange,
    forward: &Forward,
    gateway: &Gateway,
    body: &Rc<Upload>,
    held: &mut Held,
) -> Result<Arrived, Error> {
    *held = match enter(exchange, forward) {
        Ok(None) => affinity::held(exchange, forward)?,
        Ok(Some(waiting)) => wait(exchange, forward, gateway, waiting).await?,
        Err(over) => return Err(refused(exchange, &forward.service, over)),
    };
    super::send(exchange, forward, gateway, body, held).await
}

/// How long a request that waits goes on to do so.
struct Patience {
    began: Instant,
    until: Instant,
    deadline: Option<Instant>,
}

impl Patience {
    /// From now on, whatever it has waited so far.
    fn of(exchange: &Exchange, forward: &Forward, gateway: &Gateway) -> Self {
        let Record { head, started, queued, .. } = &exchange.record;
        let settings = &forward.service.settings;
        let deadline = |head| Terms::new(settings, &forward.plan, gateway, head, *started).deadline;
        let deadline = head.as_deref().and_then(deadline);
        let began = exchange.record.decided_at();
        let wait = settings.queue.as_ref().map_or(Duration::ZERO, |queue| queue.wait);
        let until = began + wait.saturating_sub(*queued);
        Patience { began, until: deadline.map_or(until, |deadline| deadline.min(until)), deadline }
    }

    /// The time of the whole request is.
    fn is_over(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
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

/// It went nowhere, since each endpoint that it may go to has as many requests as it may.
fn is_crowded(exchange: &Exchange, forward: &Forward, held: &Held, sent: &Result<Arrived, Error>) -> bool {
    matches!(sent, Err(Error::NoEndpoint)) && exchange.record.attempts.is_empty() && is_full(forward, held)
}

/// There are endpoints that a request may go to, which have as many requests as they may, if it found none.
pub(super) fn is_full(forward: &Forward, held: &Held) -> bool {
    let Forward { service, .. } = forward;
    let (settings, suits) = (&service.settings, suits(forward, held));
    let any = || {
        let panic = service.endpoints.ready().panic;
        // What a session is bound to was seen to be there.
        let there = |endpoint: &Endpoint| endpoint.usable() || panic || held.is_bound();
        service.endpoints.iter().any(|endpoint| there(endpoint) && suits(endpoint))
    };
    settings.limits.of_each(settings.http2()).is_some() && any()
}

/// May a request go to an endpoint, as its session, its plan and its service say?
fn suits(forward: &Forward, held: &Held) -> impl Fn(&Endpoint) -> bool + Send + 'static {
    let (service, bound) = (Arc::clone(&forward.service), held.bound_to());
    let (subset, named) = (forward.plan.subset.clone(), forward.plan.endpoints.clone());
    move |endpoint| match bound {
        Some(id) => endpoint.id == id,
        None => named.contains(&endpoint.id) || endpoint.weight > 0 && service.fits(&subset, endpoint),
    }
}

/// What a response's head says of how many requests its service can take, where that is asked: how long it took, unless it
/// came from the second attempt on, tells of trouble, or begins a stream.
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
    if good {
        let began = exchange.record.started + attempt.began;
        // The time in which the client sends is the client's.
        let had_all = body.last_piece().map_or(began, |last| last.max(began));
        let took = (began + attempt.took).saturating_duration_since(had_all);
        service.live.admission.answered(took, process_ms());
    }
}
