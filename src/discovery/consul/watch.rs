//! The watch of one service: ask, report, wait, for ever.

use super::answer::Answer;
use super::health::{Health, Reply};
use super::{Known, key};
use crate::discovery::backoff::Backoff;
use crate::discovery::guard::Guard;
use crate::discovery::registry::Failure;
use crate::discovery::registry::consul::Index;
use crate::discovery::{Lookup, Observed, Report, Reports};
use std::sync::{Arc, PoisonError};
use tokio::time::{Instant, sleep, timeout_at};

pub(super) async fn run(health: Arc<Health>, known: Known, lookup: Lookup, reports: Reports) {
    let key = key(&lookup);
    let service = &lookup.service;
    let before = known.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
    let mut guard = Guard::new(health.settings.confirm_after, lookup.allow_empty, before);
    let (mut index, mut backoff) = (Index::default(), Backoff::seeded());
    let (mut reported, mut failed) = (None::<Observed>, None::<String>);
    loop {
        let started = Instant::now();
        let outcome = match guard.confirm_at() {
            None => health.query(&lookup, index.get()).await,
            Some(at) if at <= started => health.query(&lookup, 0).await,
            // An answer is held: changes are still followed, but no longer than until it is to be confirmed.
            Some(at) => match timeout_at(at, health.query(&lookup, index.get())).await {
                Ok(outcome) => outcome,
                Err(_) => continue,
            },
        };
        let outcome = match outcome {
            Ok(Reply { unusable: Some(failure), answer, .. }) => Err((failure, Some(answer))),
            Ok(reply) => Ok(reply),
            Err(failure) => Err((failure, None)),
        };
        let reply = match outcome {
            Ok(reply) => reply,
            Err((Failure { problem, .. }, unusable)) => {
                // Once for each new problem; control knows that the rest is silence.
                if failed.as_ref() != Some(&problem) {
                    failed = Some(problem.clone());
                    // To apply it would remove what works, but what is wrong with its entries is told.
                    if let Some(Answer { skipped, left_out, .. }) = unusable {
                        let before = known.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
                        let held = Some(problem.clone());
                        let told = Observed { skipped, left_out, held, ..before.unwrap_or_default() };
                        reported = Some(told.clone());
                        reports.send(Report::Service(Arc::clone(service), told)).await;
                    }
                    reports.send(Report::Failed(Some(Arc::clone(service)), problem)).await;
                }
                // The first answer afterwards shall come at once, whatever happened in between.
                index.reset();
                sleep(backoff.wait()).await;
                continue;
            }
        };
        backoff.reset();
        failed = None;
        index.advance(reply.index);
        let answer = Observed {
            endpoints: reply.answer.endpoints,
            revision: reply.index.to_string(),
            skipped: reply.answer.skipped,
            left_out: reply.answer.left_out,
            held: None,
        };
        let was_held = guard.confirm_at().is_some();
        let observed = guard.offer(answer, Instant::now());
        match &observed.held {
            Some(held) if !was_held => tracing::warn!(%service, %held, "the answer of Consul is held"),
            None if was_held => tracing::info!(%service, endpoints = observed.endpoints.len(), "no longer held"),
            _ => {}
        }
        if observed.held.is_none() {
            known.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), observed.clone());
        }
        // Not the index: a busy Consul raises it for nothing.
        let changed =
            reported.as_ref().is_none_or(|last| (&last.endpoints, &last.held) != (&observed.endpoints, &observed.held));
        reported = Some(observed.clone());
        reports.send(Report::Service(Arc::clone(service), observed)).await;
        sleep(index.pause(started.elapsed(), changed)).await;
    }
}
