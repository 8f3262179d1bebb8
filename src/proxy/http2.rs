//! A client's HTTP/2 connection: hyper speaks it, and each of its requests is carried like any other.

use super::draining::Draining;
use super::response::{Body, Broken};
use super::worker::Worker;
use crate::base::local::LocalExec;
use crate::http::downstream::clock::Clock;
use crate::http::downstream::timed::Timed;
use crate::http::downstream::untaken::{Taken, Untaken};
use crate::http::request::Peer;
use crate::http::request::body::Incoming;
use crate::http::settings::Gateway;
use bytes::Bytes;
use http::Request;
use http_body::{Frame, SizeHint};
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::sync::watch;

/// Bytes that hyper takes of a head beyond what it may have.
const TOO_LARGE: usize = 16 << 10;

/// Serves the connection to its end.
pub(super) async fn serve(
    worker: &Rc<Worker>,
    io: Timed,
    peer: &Arc<Peer>,
    clock: &Rc<Clock>,
    limits: &Gateway,
    drain: watch::Receiver<bool>,
) -> hyper::Result<()> {
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        let (worker, peer, active) = (Rc::clone(worker), Arc::clone(peer), Clock::enter(clock));
        async move {
            let by = Rc::clone(&worker);
            let (mut parts, body) = request.into_parts();
            let stream = parts.extensions.remove::<OnUpgrade>();
            let response = super::handle(worker, peer, active, parts.into(), Incoming::Http2(body), stream).await;
            let mut answer = http::Response::new(StreamBody::new(response.body, &by.untaken));
            *answer.status_mut() = response.status;
            *answer.headers_mut() = response.headers.to_map();
            Ok::<_, Infallible>(answer)
        }
    });
    let mut builder = hyper::server::conn::http2::Builder::new(LocalExec);
    builder.max_concurrent_streams(limits.max_streams);
    // What is a little too large comes through, and is refused in words; h2 has none.
    builder.max_header_list_size(u32::try_from(limits.max_head_bytes + TOO_LARGE).unwrap_or(u32::MAX));
    builder.enable_connect_protocol();
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(io), service));
    match unless_leaving(Draining::new(drain), worker, clock, connection.as_mut()).await {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}

/// What the connection comes to. None: the drain began before, or it takes no further request.
async fn unless_leaving<T>(
    mut draining: Draining,
    worker: &Worker,
    clock: &Clock,
    mut connection: Pin<&mut impl Future<Output = T>>,
) -> Option<T> {
    poll_fn(|cx| {
        if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
            return Poll::Ready(Some(ended));
        }
        let leaves = clock.is_used_up() || worker.shared.vitals.leaving() || draining.poll(cx);
        if leaves { Poll::Ready(None) } else { Poll::Pending }
    })
    .await
}

/// A response's body on a stream. hyper does not ask for its next piece while the client takes nothing of the stream, so
/// somebody else has to see that it does not hold up its endpoint for ever.
#[derive(Debug)]
struct StreamBody(Rc<Progress>);

/// How far a client has taken a body.
#[derive(Debug)]
struct Progress {
    /// None: it was let go.
    body: RefCell<Option<Body>>,
    /// Since when its next piece could have been asked for; none: it was, and has not come.
    since: Cell<Option<Instant>>,
    /// It broke off: what came before goes out first, which hyper does while it waits.
    broken: RefCell<Option<Broken>>,
}

impl StreamBody {
    fn new(body: Body, untaken: &Untaken) -> Self {
        let waits = !http_body::Body::is_end_stream(&body);
        let since = Cell::new(waits.then(Instant::now));
        let progress = Rc::new(Progress { body: RefCell::new(Some(body)), since, broken: RefCell::new(None) });
        if waits {
            let watched: Rc<dyn Taken> = Rc::<Progress>::clone(&progress);
            untaken.watch(Rc::downgrade(&watched));
        }
        StreamBody(progress)
    }
}

impl Taken for Progress {
    fn let_go(&self, then: Instant) -> bool {
        let late = self.since.get().is_some_and(|since| since < then);
        // The exchange ends here.
        late && self.body.take().is_some()
    }
}

impl http_body::Body for StreamBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let mut body = self.0.body.borrow_mut();
        let Some(body) = &mut *body else { return Poll::Ready(Some(Err(Broken::Untaken))) };
        if let Some(broken) = self.0.broken.take() {
            return Poll::Ready(Some(Err(broken)));
        }
        let polled = Pin::new(&mut *body).poll_frame(cx);
        if let Poll::Ready(Some(Err(broken))) = polled {
            self.0.broken.replace(Some(broken));
            self.0.since.set(None);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let more = polled.is_ready() && !http_body::Body::is_end_stream(body);
        self.0.since.set(more.then(Instant::now));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.0.body.borrow().as_ref().is_some_and(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.body.borrow().as_ref().map(http_body::Body::size_hint).unwrap_or_default()
    }
}
