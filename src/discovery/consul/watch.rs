//! The watch of one service: ask, report, wait, for ever.

use super::health::{Health, Reply};
use crate::discovery::backoff::Backoff;
use crate::discovery::keeper::{Keeper, longest_wait};
use crate::discovery::registry::consul::Index;
use std::sync::Arc;
use tokio::time::{Instant, sleep, timeout_at};

pub(super) async fn run(health: Arc<Health>, mut keeper: Keeper) {
    let (mut index, mut backoff) = (Index::default(), Backoff::seeded());
    // When the names in the last answer are to be looked up again.
    let mut names: Option<Instant> = None;
    loop {
        let started = Instant::now();
        let lookup = keeper.lookup();
        let outcome = match keeper.confirm_at().into_iter().chain(names).min() {
            None => health.query(lookup, index.get()).await,
            Some(at) if at <= started => health.query(lookup, 0).await,
            // An answer is held, or has names in it: changes are still followed, but no longer than until it is read again.
            Some(at) => match timeout_at(at, health.query(lookup, index.get())).await {
                Ok(outcome) => outcome,
                Err(_) => continue,
            },
        };
        match outcome {
            Ok(Reply { index: answered, observed, again }) => {
                names = again;
                backoff.reset();
                index.advance(answered);
                let changed = keeper.offer(observed).await;
                sleep(index.pause(started.elapsed(), changed)).await;
            }
            Err(failure) => {
                keeper.failed(&failure.problem).await;
                // The first answer afterwards shall come at once, whatever happened in between.
                index.reset();
                sleep(backoff.wait_within(longest_wait(&failure))).await;
            }
        }
    }
}
