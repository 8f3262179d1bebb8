//! The request's body on its way up. It streams from the client; its first bytes are kept until a response is here, so
//! that another attempt can send them again.

mod copied;
pub(crate) mod gate;
mod kept;

use crate::base::time::Alarm;
use crate::http::downstream::http1;
use crate::http::grpc;
use crate::http::malformed::Malformed;
use crate::http::request::Head;
use crate::http::settings::Gateway;
use bytes::Bytes;
use copied::Copied;
use gate::Gate;
use http::Version;
use http_body::{Body, Frame, SizeHint};
use kept::Kept;
use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// A body as its client's connection has it.
#[derive(Debug)]
pub enum Incoming {
    /// There is none.
    None,
    /// It comes on the connection itself.
    Http1(http1::Body),
    /// On a stream.
    Http2(hyper::body::Incoming),
    /// All of it is here.
    Whole(Bytes),
    /// Somebody else gets a copy.
    Copied(Box<Copied>),
}

impl Incoming {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenUpload>>> {
        match self {
            Incoming::None => Poll::Ready(None),
            Incoming::Http1(body) => body.poll_frame(cx).map_err(BrokenUpload::Http1),
            Incoming::Http2(body) => match std::task::ready!(Pin::new(&mut *body).poll_frame(cx)) {
                // A stream that is reset with `NO_ERROR` before its end looks like one that has ended.
                None if !body.is_end_stream() => Poll::Ready(Some(Err(BrokenUpload::Http2(None)))),
                frame => Poll::Ready(frame.map(|frame| frame.map_err(|error| BrokenUpload::Http2(Some(error))))),
            },
            Incoming::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Incoming::Copied(body) => body.poll_frame(cx),
        }
    }

    fn is_over(&self) -> bool {
        match self {
            Incoming::None => true,
            Incoming::Http1(body) => body.is_over(),
            Incoming::Http2(body) => body.is_end_stream(),
            Incoming::Whole(bytes) => bytes.is_empty(),
            Incoming::Copied(body) => body.incoming.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Incoming::None => SizeHint::with_exact(0),
            Incoming::Http1(body) => body.size_hint(),
            Incoming::Http2(body) => body.size_hint(),
            Incoming::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Incoming::Copied(body) => body.incoming.size_hint(),
        }
    }

    /// Where a copy of it comes once it was read to its end; never, if there is more of it than `most` bytes. None: there is
    /// no body.
    ///
    /// # Errors
    /// It says itself that there is more of it.
    pub fn copy(&mut self, most: usize) -> Result<Option<oneshot::Receiver<Bytes>>, BrokenUpload> {
        if self.is_over() {
            return Ok(None);
        }
        if self.size_hint().lower() > most as u64 {
            return Err(BrokenUpload::TooLarge);
        }
        let (copied, copy) = Copied::new(std::mem::replace(self, Incoming::None), most);
        *self = Incoming::Copied(Box::new(copied));
        Ok(Some(copy))
    }
}

/// The client's body, for all attempts of one exchange.
#[derive(Debug)]
pub struct Upload {
    /// None: there is no body, it was read to its end, or nobody wants it any more.
    incoming: RefCell<Option<Incoming>>,
    kept: RefCell<Kept>,
    /// Whoever waits until the endpoint asks for it.
    waiting: RefCell<Option<Waker>>,
    /// The attempt that may read it; those before are cut off.
    reader: Cell<u32>,
    failed: Cell<Option<Malformed>>,
    bytes: Cell<u64>,
    most: u64,
    /// There never was one: it is at its end for whoever reads it.
    none: bool,
    /// How long the client may owe a piece; none: as long as it likes.
    stall_timeout: Option<Duration>,
    /// When the last piece came; none: nothing of it was read.
    came: Cell<Option<Instant>>,
    /// Since when the client owes a piece.
    owed: Cell<Option<Instant>>,
}

/// One attempt's hold on the client's body.
#[derive(Debug)]
pub struct RequestBody {
    source: Rc<Upload>,
    reader: u32,
    gate: Option<Gate>,
    alarm: Alarm,
}

/// The body cannot be read any more.
#[derive(Debug, thiserror::Error)]
pub enum BrokenUpload {
    /// Another attempt took over.
    #[error("another attempt reads the body now")]
    TakenOver,
    /// There is more of it than the service takes.
    #[error("the client's body is larger than the service takes")]
    TooLarge,
    /// The client's connection broke, or its framing was bad.
    #[error("the client's body broke off: {0}")]
    Http1(#[source] http1::BodyError),
    /// The client's stream broke off.
    #[error("the client's body broke off")]
    Http2(#[source] Option<hyper::Error>),
    /// Nothing more of it came for too long.
    #[error("the client's body stopped")]
    Stalled,
}

impl Upload {
    /// Takes the body of the client that sent this head, of so many bytes at most.
    pub fn new(incoming: Incoming, head: &Head, most: u64, limits: &Gateway) -> Rc<Self> {
        let http2 = head.parts.version == Version::HTTP_2;
        // A call of gRPC can be a conversation in which the client is silent for long.
        let watched = !http2 || !grpc::is_call(head);
        let incoming = (!incoming.is_over()).then_some(incoming);
        let none = incoming.is_none();
        Rc::new(Upload {
            incoming: RefCell::new(incoming),
            kept: RefCell::default(),
            waiting: RefCell::default(),
            reader: Cell::new(0),
            failed: Cell::new(None),
            bytes: Cell::new(0),
            most,
            none,
            stall_timeout: watched.then_some(limits.stall_timeout),
            came: Cell::new(None),
            owed: Cell::new(None),
        })
    }

    /// The body for the next attempt, held back by `gate`.
    pub fn reader(self: &Rc<Self>, gate: Option<Gate>) -> RequestBody {
        self.reader.set(self.reader.get() + 1);
        self.owed.set(None);
        self.kept.borrow_mut().again();
        RequestBody { source: Rc::clone(self), reader: self.reader.get(), gate, alarm: Alarm::default() }
    }

    /// Since when it is not the client that is waited for; none: since the attempt began.
    pub fn waited_since(&self) -> Option<Instant> {
        if self.owed.get().is_some() { Some(Instant::now()) } else { self.came.get() }
    }

    /// When the last piece came; none: nothing of it was read.
    pub fn last_piece(&self) -> Option<Instant> {
        self.came.get()
    }

    /// There is a body, though it may be empty.
    pub fn is_some(&self) -> bool {
        self.incoming.borrow().is_some()
    }

    /// It says itself that there is more of it than may be.
    pub fn is_too_large(&self) -> bool {
        self.incoming.borrow().as_ref().is_some_and(|incoming| incoming.size_hint().lower() > self.most)
    }

    /// The endpoint has answered without having asked for it: it is not sent, and the client is not asked for it either.
    pub fn let_go(&self) {
        self.reader.set(self.reader.get() + 1);
        self.incoming.take();
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
    }

    /// The client was asked for it, and has sent some of it or has ended it.
    pub fn started(&self) -> bool {
        self.came.get().is_some()
    }

    /// Something of it was read and is not kept, so it cannot be sent again.
    pub fn spent(&self) -> bool {
        self.kept.borrow().is_spent()
    }

    /// There will be no other attempt.
    pub fn spend(&self) {
        self.kept.borrow_mut().spend();
    }

    /// Why it ended before its end, where that is the client's doing.
    pub fn failed(&self) -> Option<Malformed> {
        self.failed.get()
    }

    /// Data bytes read so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }
}

impl RequestBody {
    /// The endpoint asks for it.
    pub fn go_on(&mut self) {
        self.gate = None;
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BrokenUpload;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenUpload>>> {
        let this = &mut *self;
        let source = &this.source;
        if source.none {
            return Poll::Ready(None);
        }
        if source.reader.get() != this.reader {
            return Poll::Ready(Some(Err(BrokenUpload::TakenOver)));
        }
        if let Some(gate) = &mut this.gate {
            source.waiting.replace(Some(cx.waker().clone()));
            std::task::ready!(gate.poll(cx));
            this.gate = None;
        }
        let mut kept = source.kept.borrow_mut();
        if let Some(piece) = kept.next() {
            source.came.set(Some(Instant::now()));
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let mut whole = source.incoming.borrow_mut();
        let Some(incoming) = &mut *whole else { return Poll::Ready(None) };
        let Poll::Ready(frame) = incoming.poll_frame(cx) else {
            let since = source.owed.get().unwrap_or_else(Instant::now);
            source.owed.set(Some(since));
            let Some(stall_timeout) = source.stall_timeout else { return Poll::Pending };
            return this.alarm.poll(cx, since + stall_timeout).map(|()| {
                source.failed.set(Some(Malformed::BodyTimeout));
                Some(Err(BrokenUpload::Stalled))
            });
        };
        source.owed.set(None);
        source.came.set(Some(Instant::now()));
        Poll::Ready(match frame {
            None => {
                *whole = None;
                None
            }
            Some(Ok(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    crate::http::headers::end_trailers(trailers);
                    kept.spend();
                }
                if let Some(data) = frame.data_ref() {
                    source.bytes.set(source.bytes.get() + data.len() as u64);
                    kept.add(data);
                }
                if source.bytes.get() > source.most {
                    source.failed.set(Some(Malformed::BodyTooLarge));
                    return Poll::Ready(Some(Err(BrokenUpload::TooLarge)));
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                source.failed.set(Some(Malformed::Body));
                Some(Err(error))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        let source = &self.source;
        let ended = || source.incoming.borrow().as_ref().is_none_or(Incoming::is_over);
        source.none || source.reader.get() == self.reader && source.kept.borrow().left() == 0 && ended()
    }

    fn size_hint(&self) -> SizeHint {
        let (left, incoming) = (self.source.kept.borrow().left(), self.source.incoming.borrow());
        let Some(incoming) = &*incoming else { return SizeHint::with_exact(left) };
        let mut hint = incoming.size_hint();
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(left));
        }
        hint.set_lower(hint.lower().saturating_add(left));
        hint
    }
}
