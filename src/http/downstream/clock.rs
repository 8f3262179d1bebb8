//! What a connection is waiting for, how much it may still do, and what its exchanges tell it.

use super::flood::Flood;
use super::frames::Frames;
use crate::http::fields::Fields;
use crate::http::h1::write::{self, Framing};
use crate::http::malformed::Malformed;
use crate::http::settings::Gateway;
use bytes::Bytes;
use http::{StatusCode, Version};
use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};

/// What a connection is waiting for, and since when.
#[derive(Debug)]
pub struct Clock {
    head_timeout: Duration,
    idle_timeout: Duration,
    pub(crate) stall_timeout: Duration,
    pub(crate) http2: bool,
    pub(crate) active: Cell<u32>,
    /// Requests that it may still send.
    left: Cell<u64>,
    /// When it has been open for long enough.
    expires: Instant,
    in_head: Cell<bool>,
    /// None: since it is asked for the next time.
    since: Cell<Option<Instant>>,
    /// HTTP/2: since when a frame, other than a body's, or a header block has been coming.
    half: Cell<Option<Instant>>,
    pub(crate) flood: RefCell<Flood>,
    /// What its client did that was refused.
    refused: Cell<Option<Malformed>>,
    /// Its end must not look like that of a response.
    pub(crate) broken: Cell<bool>,
    /// HTTP/1.1: early hints that its client was not told of yet, as they are written.
    pub(crate) hints: RefCell<Vec<u8>>,
    /// The client that sent the request in progress can be told of them.
    pub(crate) hears: Cell<bool>,
    /// HTTP/1: what it becomes after this response.
    tunnel: RefCell<Option<Tunnel>>,
    /// Whoever reads without a timer, since an exchange is in progress. hyper may look for the next request before it
    /// lets go of the last body, so the end of an exchange has to make it look again.
    reader: RefCell<Option<Waker>>,
}

/// Early hints are dropped while a client has as many bytes of them to take.
const MOST_HINTS: usize = 16 << 10;

/// A connection's bytes, whatever carries them.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}

/// What is done with a connection that speaks something else from now on: it is given the connection, and what was read
/// of it already.
pub struct Tunnel(Box<Carry>);

type Carry = dyn FnOnce(Box<dyn Duplex>, Bytes) -> Pin<Box<dyn Future<Output = ()>>>;

impl Tunnel {
    /// That this is done with it.
    pub fn new<F: Future<Output = ()> + 'static>(carry: impl FnOnce(Box<dyn Duplex>, Bytes) -> F + 'static) -> Self {
        Tunnel(Box::new(move |io, read| Box::pin(carry(io, read))))
    }

    /// Does it.
    pub async fn run(self, io: impl Duplex + 'static, read: Bytes) {
        (self.0)(Box::new(io), read).await;
    }
}

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tunnel")
    }
}

/// One exchange in progress on a connection.
#[derive(Debug)]
pub struct Active {
    clock: Rc<Clock>,
    /// When its head was here.
    pub began: Instant,
}

/// A client's HTTP/1 connection, as far as an exchange may change what becomes of it.
#[derive(Debug)]
pub struct Handle(Rc<Clock>);

impl Active {
    /// No further request shall be sent on its connection.
    pub fn is_last(&self) -> bool {
        self.clock.left.get() == 0
    }

    /// What its client did for which the connection is closed.
    pub fn refused(&self) -> Option<Malformed> {
        self.clock.refused.get()
    }

    /// The connection is reset when it closes: a response to an HTTP/1.0 client that ends there looks complete, and is not.
    pub fn break_off(&self) {
        self.clock.broken.set(true);
    }

    /// Its exchange is over at `now`; `cancelled`: its client went away or took it back.
    pub fn ended(&self, cancelled: bool, now: Instant) {
        self.clock.since.set(Some(now));
        if self.clock.http2 {
            let flood = self.clock.flood.borrow_mut().exchange(cancelled, || now);
            if let Some(bad) = flood {
                self.clock.refuse(bad);
            }
        }
    }

    /// Its connection.
    pub fn handle(&self) -> Handle {
        Handle(Rc::clone(&self.clock))
    }
}

impl Handle {
    /// Tells its client of an early hint (RFC 8297). False: it cannot be told.
    pub fn hint(&self, headers: &Fields) -> bool {
        let mut hints = self.0.hints.borrow_mut();
        let tells = self.0.hears.get() && hints.len() < MOST_HINTS;
        if tells {
            write::response(&mut hints, Version::HTTP_11, StatusCode::EARLY_HINTS, headers, &Framing::Nothing);
            hints.extend_from_slice(b"\r\n");
        }
        tells
    }

    /// The connection goes on as a tunnel once the response has been sent.
    pub fn switch(&self, tunnel: Tunnel) {
        self.0.tunnel.replace(Some(tunnel));
    }
}

impl Clock {
    /// A connection that began to speak.
    pub fn new(limits: &Gateway, http2: bool, began: Instant) -> Self {
        Clock {
            head_timeout: limits.head_timeout,
            idle_timeout: limits.idle_timeout,
            stall_timeout: limits.stall_timeout,
            http2,
            active: Cell::new(0),
            left: Cell::new(limits.max_requests_per_connection),
            expires: began + limits.connection_lifetime,
            in_head: Cell::new(true),
            since: Cell::new(Some(began)),
            half: Cell::new(None),
            flood: RefCell::new(Flood::new(began)),
            refused: Cell::new(None),
            broken: Cell::new(false),
            hints: RefCell::default(),
            hears: Cell::new(false),
            tunnel: RefCell::new(None),
            reader: RefCell::new(None),
        }
    }

    /// An exchange begins: its head is here.
    pub fn enter(clock: &Rc<Clock>) -> Active {
        clock.active.set(clock.active.get() + 1);
        clock.in_head.set(false);
        let began = Instant::now();
        clock.left.set(if began >= clock.expires { 0 } else { clock.left.get().saturating_sub(1) });
        Active { clock: Rc::clone(clock), began }
    }

    /// Since when nothing is in progress on it.
    pub(crate) fn quiet_since(&self) -> Instant {
        let since = self.since.get().unwrap_or_else(Instant::now);
        self.since.set(Some(since));
        since
    }

    /// Something of it was still in progress when its exchange was over, and no longer is.
    pub(crate) fn is_quiet_now(&self) {
        self.since.set(None);
    }

    /// HTTP/2: no further request shall be sent on it.
    pub(crate) fn is_used_up(&self) -> bool {
        self.http2 && self.left.get() == 0
    }

    /// Why the connection was closed, where its client sent something that must not be forwarded.
    pub(crate) fn refused(&self) -> Option<Malformed> {
        self.refused.get()
    }

    /// What the connection becomes, where it does not end.
    pub(crate) fn tunnel(&self) -> Option<Tunnel> {
        self.tunnel.take()
    }

    /// Its client did this, so it is closed.
    pub(crate) fn refuse(&self, bad: Malformed) {
        self.refused.set(Some(bad));
    }

    /// Whoever reads is woken when no exchange is in progress any more.
    pub(crate) fn wake_when_idle(&self, cx: &Context<'_>) {
        let mut reader = self.reader.borrow_mut();
        if !reader.as_ref().is_some_and(|reader| reader.will_wake(cx.waker())) {
            *reader = Some(cx.waker().clone());
        }
    }

    /// HTTP/2: bytes have come, and `frames` has seen them; `advanced`: they began or ended a frame.
    pub(crate) fn framed(&self, frames: &mut Frames, advanced: bool) {
        let (requests, control) = frames.counted();
        if control > 0 || requests > 0 {
            let flood = self.flood.borrow_mut().frames(requests, control, Instant::now);
            if let Some(bad) = flood {
                self.refuse(bad);
            }
        }
        let half = self.half.get().filter(|_| !advanced);
        self.half.set(frames.is_inside().then(|| half.unwrap_or_else(Instant::now)));
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        let wait = if self.in_head.get() { self.head_timeout } else { self.idle_timeout };
        let quiet = (self.active.get() == 0).then(|| self.quiet_since() + wait);
        // What is half sent holds up every other exchange of the connection, so they don't excuse it.
        let half = self.half.get().map(|since| since + self.head_timeout);
        quiet.into_iter().chain(half).min()
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        let left = self.clock.active.get().saturating_sub(1);
        self.clock.active.set(left);
        if left == 0
            && let Some(reader) = self.clock.reader.take()
        {
            reader.wake();
        }
    }
}
