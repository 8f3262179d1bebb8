//! Sends copies of requests elsewhere, beside the requests themselves. A task of the same worker sends each, and nobody
//! waits for it.

use crate::base::trace::TraceContext;
use crate::http::headers::edit::HeaderEdit;
use crate::http::request::Head;
use crate::http::request::body::{Incoming, Upload};
use crate::proxy::exchange::Exchange;
use crate::proxy::worker::Worker;
use crate::proxy::{Request, response, upstream};
use crate::service::decision::{Edits, Forward};
use crate::service::middleware::mirror::{HEADER, Mirror};
use crate::service::middleware::{Live, Middleware, Outcome, UnderWay};
use crate::service::plan::Plan;
use crate::service::record::By;
use crate::snapshot::Snapshot;
use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Bytes of an answer that are read, so that the connection can be used again; of a longer one, it is closed.
const ANSWER: usize = 1 << 20;

/// A copy of one request.
struct Copied {
    worker: Rc<Worker>,
    by: By,
    live: Arc<Live>,
    snapshot: Arc<Snapshot>,
    head: Arc<Head>,
    trace: TraceContext,
    /// None: there is none.
    body: Option<oneshot::Receiver<Bytes>>,
    timeout: Duration,
    _under_way: UnderWay,
}

/// Begins a copy of this request, which goes to a service, if chance says so and it can be copied.
pub(super) fn begin(mirror: &Mirror, middleware: &Middleware, request: &mut Request) {
    let outer = &request.exchange;
    let mut chance = outer.worker.chance.borrow_mut();
    // Nobody can speak another protocol to two at once.
    if request.head.upgrade.is_some() || !mirror.draws(&mut chance) {
        return;
    }
    let trace = outer.record.trace.child(&mut chance);
    drop(chance);
    let Some(under_way) = middleware.live.enter(mirror.max_in_flight) else {
        return middleware.live.count(Outcome::LeftOut);
    };
    let Ok(body) = request.body.copy(mirror.max_body_bytes) else {
        return middleware.live.count(Outcome::LeftOut);
    };
    let mut head = Arc::clone(&request.head);
    if head.parts.headers.has("expect") {
        // It has the body already.
        Arc::make_mut(&mut head).parts.headers.remove("expect");
    }
    let copied = Copied {
        worker: Rc::clone(&request.exchange.worker),
        by: middleware.by(),
        live: Arc::clone(&middleware.live),
        snapshot: Arc::clone(&request.snapshot),
        head,
        trace,
        body,
        timeout: mirror.timeout,
        _under_way: under_way,
    };
    let service = mirror.service.clone();
    tokio::task::spawn_local(async move {
        let live = Arc::clone(&copied.live);
        live.count(copied.send(&service).await);
    });
}

impl Copied {
    async fn send(self, service: &str) -> Outcome {
        let Copied { worker, by, snapshot, head, trace, body, timeout, _under_way, .. } = self;
        let body = match body {
            None => Incoming::None,
            Some(body) => match tokio::time::timeout(timeout, body).await {
                Ok(Ok(body)) => Incoming::Whole(body),
                _ => return Outcome::LeftOut,
            },
        };
        let Some(service) = snapshot.service(service) else { return Outcome::Failed };
        let plan = Plan { timeout: Some(timeout), ..Plan::default() };
        let says = HeaderEdit::Set(HeaderName::from_static(HEADER), HeaderValue::from_static("1"));
        let edits = Edits { request: vec![says], ..Edits::default() };
        let forward = Forward { service: Arc::clone(service), plan, edits };
        let gateway = &snapshot.gateway;
        let mut exchange = Exchange::own(&worker, by, trace, Arc::clone(&head), gateway);
        exchange.record.service = Some(Arc::clone(service));
        let body = Upload::new(body, &head, u64::MAX, gateway);
        match upstream::admit::send(&mut exchange, &forward, gateway, &body).await {
            Ok(arrived) => {
                let response = response::from_upstream(exchange, arrived, &[]);
                match response.body.whole(ANSWER).await {
                    Ok(_) => Outcome::Mirrored,
                    Err(_) => Outcome::Failed,
                }
            }
            Err(error) => {
                exchange.record.error = Some(error);
                Outcome::Failed
            }
        }
    }
}
