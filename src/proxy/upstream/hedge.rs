//! Attempts beside each other: where one takes long, another endpoint is asked, and the first good answer counts.

use super::attempt::{Begun, Failure, Way};
use super::attempts::{Again, Attempts};
use super::download::Received;
use crate::base::time::Moment;
use crate::http::request::Head;
use crate::http::request::body::Upload;
use crate::proxy::exchange::Exchange;
use crate::service::balance::Picked;
use crate::service::breaker::State;
use smallvec::SmallVec;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::Duration;

/// What comes of an attempt.
type Outcome = Result<Received, Failure>;
/// One that is on its way.
type Running<'a> = (Begun, Pin<Box<dyn Future<Output = Outcome> + 'a>>);

/// May this request be on its way twice? It has no body, which has one reader only, and does no harm when it is done twice.
/// A client that wants to speak another protocol has one connection for it.
pub(super) fn may(head: &Head, body: &Rc<Upload>) -> bool {
    !body.is_some() && head.upgrade.is_none() && Again::of(&head.parts.method, body).is_safe()
}

/// Waits for an attempt, and makes others beside it, each after `wait` more: the first good answer counts, and the others
/// are cancelled. Without one, the first answer does, else the last failure. What came of each was told to everybody.
pub(super) async fn race(
    exchange: &mut Exchange,
    way: &Way<'_>,
    (first, wait): (Begun, Duration),
    attempts: &mut Attempts<'_>,
    tried: &mut SmallVec<[u32; 4]>,
    pick: impl Fn(&[u32], Moment) -> Option<Picked>,
) -> (Begun, Outcome, Moment) {
    let mut beside = way.hedge.map_or(0, |hedge| hedge.max);
    let mut due = Some(first.began + wait);
    let mut spare = None;
    let mut running: SmallVec<[Running<'_>; 2]> = SmallVec::new();
    // Each owns what it needs of its attempt.
    let run = |begun: Begun| -> Running<'_> {
        let (endpoint, when) = (Arc::clone(&begun.endpoint), (begun.span_id, begun.began));
        (begun, Box::pin(async move { way.attempt(&endpoint, when).await }))
    };
    running.push(run(first));
    loop {
        let ended = way.pools.before(
            due,
            poll_fn(|cx| {
                let ready =
                    running.iter_mut().enumerate().find_map(|(place, (_, attempt))| match attempt.as_mut().poll(cx) {
                        Poll::Ready(outcome) => Some((place, outcome)),
                        Poll::Pending => None,
                    });
                ready.map_or(Poll::Pending, Poll::Ready)
            }),
        );
        let ended = ended.await;
        let now = Moment::now();
        let Some((place, mut outcome)) = ended else {
            due = None;
            if beside > 0
                && has_room(way, now.ms)
                && let Some(picked) = pick(tried, now)
                && attempts.beside(now.at)
            {
                beside -= 1;
                due = (beside > 0).then(|| now.at + wait);
                tried.push(picked.endpoint.id);
                way.service.live.hedges.fetch_add(1, Relaxed);
                running.push(run(Begun::new(exchange, picked, true, now)));
            }
            continue;
        };
        let (begun, _) = running.swap_remove(place);
        begun.ended(exchange, way, &mut outcome, now);
        let is_good = |response: &Received| response.is_good() && !way.terms.retries(response.status.as_u16());
        if outcome.as_ref().is_ok_and(is_good) {
            for (begun, _) in running {
                begun.outrun(exchange, way, now.at);
            }
            return (begun, outcome, now);
        }
        let best = spare.take().unwrap_or((begun, outcome));
        if running.is_empty() {
            return (best.0, best.1, now);
        }
        spare = Some(best).filter(|(_, outcome)| outcome.is_ok());
    }
}

/// The service can do with one more: not with a breaker that is not closed, or while others wait.
fn has_room(way: &Way<'_>, now_ms: u64) -> bool {
    let live = &way.service.live;
    let closed = |of| live.breaker.state(of, now_ms) == State::Closed;
    let is_closed = || way.service.settings.breaker.as_ref().is_none_or(closed);
    live.admission.places.waiting() + live.group.lobby.waiting() == 0 && is_closed()
}
