//! Putting endpoints aside for their answers: what the request path counts, and what control does in time.

use super::outlier::{Cause, Outlier};
use crate::base::chance::Chance;
use crate::http::fields::Fields;
use crate::http::grpc;
use crate::service::endpoint::Did;
use crate::service::record::AttemptError;
use crate::service::{Endpoint, Service};
use std::time::Duration;

/// How often an ejection is tried while others change the service's health at the same time.
const TRIES: usize = 16;

/// Was an attempt's answer, of this status and with this head, a good one? None: it says nothing of the endpoint. What
/// ejection, the strategies and the breaker call a failure is this, and nothing else.
pub fn was_good(outcome: Result<(u16, &Fields), AttemptError>) -> Option<bool> {
    match outcome {
        Ok((status, head)) => Some(status < 500 && !grpc::is_failure(head)),
        Err(error) => error.blames_endpoint().then_some(false),
    }
}

/// An attempt has ended after `took`: with this answer's head, or without one. Tells the strategies, and ejection: there it
/// takes no lock, and writes nothing that was not wrong before, but where endpoints are compared. Gives whether it was
/// good; see [`was_good`].
pub fn noted(
    service: &Service,
    endpoint: &Endpoint,
    outcome: Result<(u16, &Fields), AttemptError>,
    (took, now_ms): (Duration, u64),
    chance: &mut Chance,
) -> Option<bool> {
    let good = was_good(outcome)?;
    let (load, pace) = (&endpoint.live.load, &service.live.pace);
    match good {
        true => load.answered(took, pace, now_ms),
        false => load.failed(took, pace, now_ms),
    }
    if let Some(outlier) = &service.settings.outlier {
        count(service, outlier, endpoint, good, (took, now_ms), chance);
    }
    Some(good)
}

/// An answer that was noted as a good one has turned out bad: its body broke off, or what came after it says so. It took so
/// long until its head, which came at `head_ms`; `before`: bad ones in a row when it was asked for.
pub fn turned_bad(
    service: &Service,
    endpoint: &Endpoint,
    before: u32,
    (took, head_ms, now_ms): (Duration, u64, u64),
    chance: &mut Chance,
) {
    let live = &endpoint.live;
    // Its latency was measured.
    live.load.failed(Duration::ZERO, &service.live.pace, now_ms);
    let Some(outlier) = service.settings.outlier.as_ref().filter(|_| !live.is_ejected()) else { return };
    if outlier.compares() {
        live.ejection.count_turned(took, head_ms);
        service.live.ejections.hear();
    }
    if live.ejection.turned_bad(before) >= outlier.consecutive && outlier.consecutive > 0 {
        eject(service, outlier, endpoint, Cause::Consecutive, now_ms, chance);
    }
}

fn count(
    service: &Service,
    outlier: &Outlier,
    endpoint: &Endpoint,
    good: bool,
    (took, now_ms): (Duration, u64),
    chance: &mut Chance,
) {
    let live = &endpoint.live;
    // What was on its way when it was put aside says nothing new.
    if live.is_ejected() {
        return;
    }
    if outlier.compares() {
        live.ejection.count(good, took, now_ms);
        service.live.ejections.hear();
    }
    if good {
        live.ejection.good();
    } else if live.ejection.bad() >= outlier.consecutive && outlier.consecutive > 0 {
        eject(service, outlier, endpoint, Cause::Consecutive, now_ms, chance);
    }
}

/// Compares the endpoints of a service, if anything was counted since the last time. A walk over all of them, where its
/// settings ask for that.
pub fn compare(service: &Service, now_ms: u64, chance: &mut Chance) {
    let Some(outlier) = service.settings.outlier.as_ref().filter(|outlier| outlier.compares()) else { return };
    if !service.live.ejections.heard() {
        return;
    }
    let did = |endpoint: &Endpoint| match endpoint.live.is_ejected() {
        true => Did::default(),
        false => endpoint.live.ejection.did(now_ms),
    };
    let all: Vec<Did> = service.endpoints.iter().map(|endpoint| did(endpoint)).collect();
    for (place, cause) in outlier.stand_out(&all) {
        if let Some(endpoint) = service.endpoints.get(place) {
            eject(service, outlier, endpoint, cause, now_ms, chance);
        }
    }
}

/// Gives an endpoint that is put aside for its answers another chance, if its time has come, or if its service puts none
/// aside any more. True: so it is.
pub fn comes_back(service: &Service, endpoint: &Endpoint, now_ms: u64) -> bool {
    let outlier = service.settings.outlier.as_ref();
    let due = endpoint.live.ejected_until_ms().is_some_and(|until_ms| outlier.is_none() || until_ms <= now_ms);
    if due {
        let consecutive = outlier.map_or(0, |outlier| outlier.consecutive);
        endpoint.live.comes_back(consecutive, now_ms);
        tracing::info!(service = %service.name, endpoint = %endpoint.address, "no longer ejected");
    }
    due
}

/// Puts it aside, unless that were too many, or the last one.
fn eject(
    service: &Service,
    outlier: &Outlier,
    endpoint: &Endpoint,
    cause: Cause,
    now_ms: u64,
    chance: &mut Chance,
) -> bool {
    let endpoints = &service.endpoints;
    for _ in 0..TRIES {
        let ready = endpoints.ready();
        let others = ready.candidates.saturating_sub(usize::from(endpoint.is_candidate()));
        if ready.ejected >= outlier.most(endpoints.len()) || others == 0 {
            return false;
        }
        match endpoint.live.eject_after(ready.seen) {
            Some(true) => {
                let jitter = u32::try_from(chance.below(101)).unwrap_or(0);
                let time = endpoint.live.ejection.begin((outlier.base, outlier.max), jitter, now_ms);
                service.live.ejections.count(cause);
                let (cause, time) = (cause.name(), humantime::format_duration(time));
                tracing::warn!(service = %service.name, endpoint = %endpoint.address, cause, %time, "ejected");
                return true;
            }
            Some(false) => {}
            None => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests;
