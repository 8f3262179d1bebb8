//! The way up: attempts, one after the other, each on an endpoint of its own, within their deadlines.

pub mod admit;
mod affinity;
mod attempt;
mod attempts;
pub mod download;
pub mod forwarded;
mod hedge;
mod http1;
mod key;
pub mod limit;
mod outgoing;
mod terms;
mod websocket;

use crate::base::time::Moment;
use crate::http::error::Error;
use crate::http::grpc;
use crate::http::malformed::Malformed;
use crate::http::request::Head;
use crate::http::request::body::Upload;
use crate::http::settings::Gateway;
use crate::proxy::exchange::Exchange;
use crate::service::InFlight;
use crate::service::affinity::Held;
use crate::service::balance::Wanted;
use crate::service::decision::Forward;
use attempt::{Begun, Failure, Way};
pub use attempts::NO_RETRY;
use attempts::{After, Again, Attempts, Said};
use download::Received;
use key::key;
use limit::Limit;
use outgoing::Outgoing;
use smallvec::SmallVec;
use std::rc::Rc;
use std::time::Duration;
use terms::Terms;

/// A response's head is here, and its body can be read.
#[derive(Debug)]
pub struct Arrived {
    /// As it came.
    pub response: Received,
    /// Counts the request at its endpoint until the body is over.
    pub in_flight: InFlight,
    /// How long the body may take.
    pub limit: Limit,
}

/// Sends the request, unless the service's breaker is open.
///
/// # Errors
/// Why no response head came: the answer to the client.
async fn send(
    exchange: &mut Exchange,
    forward: &Forward,
    gateway: &Gateway,
    body: &Rc<Upload>,
    held: &Held,
) -> Result<Arrived, Error> {
    let Forward { service, plan, .. } = forward;
    exchange.record.affinity = held.standing;
    // The proxy has noted it before it decided.
    let Some(head) = exchange.record.head.clone() else { return Err(Error::NoRoute) };
    let started = exchange.record.started;
    let terms = Terms::new(&service.settings, plan, gateway, &head, started).for_session(held.is_bound());
    let mut now = Moment::at(exchange.record.decided_at());
    let Some(settings) = &service.settings.breaker else {
        return send_on(exchange, forward, gateway, (&head, &terms, held), body, &mut now).await;
    };
    let passed = service.live.breaker.pass(settings, now.ms);
    let pass = passed.map_err(|left_ms| {
        exchange.record.retry_after = Some(left_ms.div_ceil(1000));
        Error::Breaker
    })?;
    let sent = send_on(exchange, forward, gateway, (&head, &terms, held), body, &mut now).await;
    let bad = match &sent {
        Ok(Arrived { response, .. }) => !response.is_good(),
        // What is wrong with the request, or with its client's patience, says nothing of the service.
        Err(Error::Malformed(_)) => return sent,
        // Neither does it where others have taken all the room.
        Err(Error::Overloaded) => return sent,
        Err(Error::NoEndpoint) if admit::is_full(forward, held) => return sent,
        Err(Error::Timeout) if terms.is_hurried(started.elapsed()) => return sent,
        Err(_) => true,
    };
    let chance = exchange.worker.chance.borrow_mut().next_u64();
    pass.ended(bad, now.ms, chance);
    sent
}

/// Sends the request and tries again where that is safe and allowed. `now` goes on with it.
async fn send_on(
    exchange: &mut Exchange,
    forward: &Forward,
    gateway: &Gateway,
    (head, terms, held): (&Head, &Terms<'_>, &Held),
    body: &Rc<Upload>,
    now: &mut Moment,
) -> Result<Arrived, Error> {
    let worker = Rc::clone(&exchange.worker);
    let Forward { service, plan, .. } = forward;
    if body.is_too_large() {
        return Err(Error::Malformed(Malformed::BodyTooLarge));
    }
    let key = key(service, plan, head);
    let outgoing = Outgoing::new(head, forward, gateway, exchange.active.handle(), worker.recorder.counters())?;
    let outgoing = &outgoing.in_session(affinity::session(service, held));
    let hedge = service.settings.hedge.as_ref().filter(|_| hedge::may(head, body) && !held.is_bound());
    let trace = &exchange.record.trace.clone();
    let way = Way { pools: &worker.pools, service, outgoing, trace, body, terms, hedge };
    let mut tried: SmallVec<[u32; 4]> = SmallVec::new();
    let is_call = grpc::is_call(head);
    let pick = |tried: &[u32], now: Moment| {
        let wanted = Wanted { service, plan, tried, key: &key, now_ms: now.ms };
        match affinity::first(service, held, tried, now.ms) {
            None if !held.is_bound() => worker.balancer.borrow_mut().pick_with_room(wanted),
            first => first,
        }
    };
    let mut next = Ok(pick(&tried, *now).ok_or(Error::NoEndpoint)?);
    // What goes nowhere adds nothing to what retries may cost: it may be sent once more.
    let mut attempts = Attempts::new(terms, &service.live.budget, service.settings.retry_budget);
    loop {
        if terms.deadline.is_some_and(|deadline| now.at >= deadline) {
            return Err(Error::Timeout);
        }
        let picked = next?;
        tried.push(picked.endpoint.id);
        let begun = Begun::new(exchange, picked, false, *now);
        let (begun, result, ended) = match way.waits() {
            Some(wait) => hedge::race(exchange, &way, (begun, wait), &mut attempts, &mut tried, pick).await,
            None => {
                let mut result = way.attempt(&begun.endpoint, (begun.span_id, begun.began)).await;
                let ended = Moment::now();
                begun.ended(exchange, &way, &mut result, ended);
                (begun, result, ended)
            }
        };
        let again = Again::of(&head.parts.method, body);
        *now = ended;
        match result {
            Ok(mut response) => {
                let said = Said::of(response.status.as_u16(), &response.headers, is_call);
                let other = match attempts.after(Ok(said), again, now.at, &mut worker.chance.borrow_mut()) {
                    After::Better(wait) => pick(&tried, *now).map(|other| (other, wait)),
                    _ => None,
                };
                // With nobody else to ask, the client gets this response.
                if let Some((other, wait)) = other {
                    drop((response, begun));
                    *now = pause(wait, *now).await;
                    next = Ok(other);
                    continue;
                }
                no_more(exchange, &attempts, head);
                affinity::tell(exchange, service, held, (head, &begun.endpoint), &mut response);
                if outgoing.waits && !body.started() {
                    body.let_go();
                }
                body.spend();
                let limit = Limit::new(terms.whole, terms.silence, body);
                return Ok(Arrived { response, in_flight: begun.in_flight, limit });
            }
            Err(Failure { error, .. }) => {
                match body.failed() {
                    // The connection knows better why it broke off.
                    Some(Malformed::Body) => {
                        return Err(Error::Malformed(exchange.active.refused().unwrap_or(Malformed::Body)));
                    }
                    Some(bad) => return Err(Error::Malformed(bad)),
                    None => {}
                }
                drop(begun);
                let after = attempts.after(Err(error), again, now.at, &mut worker.chance.borrow_mut());
                next = match after {
                    After::Elsewhere(told, wait) => {
                        *now = pause(wait, *now).await;
                        pick(&tried, *now).ok_or(told)
                    }
                    After::GiveUp(told) => {
                        no_more(exchange, &attempts, head);
                        return Err(told);
                    }
                    // Of a response, not of a failure.
                    After::Better(_) | After::Take => return Err(Error::NoEndpoint),
                };
            }
        }
    }
}

/// Notes that no attempt follows, and whether that is due to what retries may cost.
fn no_more(exchange: &mut Exchange, attempts: &Attempts<'_>, head: &Head) {
    exchange.record.out_of_budget = attempts.out_of_budget;
    exchange.record.no_retry = (attempts.out_of_budget || attempts.told_to_stop) && head.peer_is_trusted;
}

/// Waits, with nothing in hand that others could use. Gives what time it is then.
async fn pause(wait: Duration, now: Moment) -> Moment {
    if wait.is_zero() {
        return now;
    }
    tokio::time::sleep(wait).await;
    Moment::now()
}
