//! Connections to endpoints: each worker's own, idle ones kept for a while. HTTP/1 connections carry one request at a
//! time, the one used last is taken first; of HTTP/2 there is one connection an endpoint, shared.

mod link;
mod shared;

pub use link::Link;
pub use shared::{Multiplexed, Stream};

use crate::base::seldom::Seldom;
use crate::base::time::Alarm;
use crate::http::h1::scratch::Scratch;
use crate::http::tls::Socket;
use crate::http::tls::client::{self, Connector};
use crate::service::admission::{Both, Limits, Open};
use crate::service::{Endpoint, Service};
use rustc_hash::FxHashMap;
use shared::{Connections, Way};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// A worker's upstream connections.
#[derive(Debug)]
pub struct Pools {
    endpoints: RefCell<FxHashMap<u32, Pool>>,
    idle: Cell<usize>,
    /// Waiting for a response head takes one; those that are free are used again.
    alarms: RefCell<Vec<Alarm>>,
    /// As the last [`Pools::tidy`] saw it: near enough for idle connections, whose time is seconds.
    now: Cell<Instant>,
    /// Most idle HTTP/1 connections, all endpoints together.
    pub max_idle: Cell<usize>,
    /// What is read from HTTP/1 connections.
    pub scratch: Rc<Scratch>,
    /// Idle longer than this: closed.
    pub idle_timeout: Cell<Duration>,
    /// Open longer than this: not used again.
    pub lifetime: Cell<Duration>,
    /// Bytes of an HTTP/2 response's head, on connections that are opened from now on.
    pub max_head: Cell<usize>,
    /// How long an HTTP/2 endpoint may be silent while requests wait, and then may take to answer a PING; zero: for ever.
    pub keepalive: Cell<Duration>,
}

#[derive(Debug, Default)]
struct Pool {
    idle: Vec<Idle>,
    shared: Connections,
}

#[derive(Debug)]
struct Idle {
    link: Link,
    since: Instant,
}

/// A connection that a request can be sent on.
#[derive(Debug)]
pub enum Connection {
    /// For one request.
    Http1 {
        /// The connection.
        link: Link,
        /// It carried a request before, so the endpoint may have closed it meanwhile.
        reused: bool,
    },
    /// Shared.
    Http2(Multiplexed),
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectError {
    /// Refused, unreachable, or closed during the handshake; why.
    Failed(Arc<str>),
    /// The gateway has no socket or file left; what the system says.
    NoSocket(Arc<str>),
    /// As many are open as may be, or as many requests wait for one.
    NoRoom,
    /// Not in time.
    Timeout,
}

impl Default for Pools {
    fn default() -> Self {
        Pools {
            endpoints: RefCell::default(),
            idle: Cell::default(),
            alarms: RefCell::default(),
            now: Cell::new(Instant::now()),
            scratch: Rc::default(),
            max_idle: Cell::default(),
            idle_timeout: Cell::default(),
            lifetime: Cell::default(),
            max_head: Cell::new(16 << 10),
            keepalive: Cell::default(),
        }
    }
}

impl Pools {
    /// A connection to this endpoint: an idle one unless `fresh`, else a new one. `careful`: the request cannot be sent once
    /// more, should the endpoint have closed that a moment ago.
    ///
    /// # Errors
    /// No connection within `within`.
    pub async fn connection(
        self: &Rc<Self>,
        endpoint: &Endpoint,
        service: &Service,
        (fresh, careful): (bool, bool),
        within: Duration,
    ) -> Result<Connection, ConnectError> {
        let tls = service.tls.as_ref();
        if service.settings.http2() {
            let shared = tokio::time::timeout(within, self.shared(endpoint, service)).await;
            return shared.map_err(|_| ConnectError::Timeout)?.map(Connection::Http2);
        }
        if !fresh && let Some(link) = self.idle(endpoint.id, tls, careful) {
            return Ok(Connection::Http1 { link, reused: true });
        }
        let (both, limits) = (both(endpoint, service), &service.settings.limits);
        let _pending = both.wait(limits).ok_or(ConnectError::NoRoom)?;
        let (began, counts) = (Instant::now(), both.open(limits));
        let counts = match counts {
            Some(counts) => counts,
            // Aside, so that nobody else's request grows by it.
            None => Box::pin(self.room(&both, limits, within)).await.ok_or(ConnectError::NoRoom)?,
        };
        let within = within.saturating_sub(began.elapsed());
        let opened = tokio::time::timeout(within, open(endpoint.address, tls.map(Arc::as_ref))).await;
        let socket = opened.map_err(|_| ConnectError::Timeout)??;
        endpoint.live.connected();
        Ok(Connection::Http1 { link: Link::new(socket, tls.cloned(), counts), reused: false })
    }

    /// Waits until one more may be open. None: that is not so in time.
    async fn room(&self, both: &Both, limits: &Limits, within: Duration) -> Option<Open> {
        self.let_go(both);
        tokio::time::timeout(within, both.opens(limits)).await.ok()
    }

    /// Closes one that is idle and belongs to the same service. Others' workers do so within a second.
    fn let_go(&self, both: &Both) {
        let mut endpoints = self.endpoints.borrow_mut();
        for pool in endpoints.values_mut() {
            let same = |idle: &Idle| Arc::ptr_eq(&idle.link.counts().service, &both.service);
            if let Some(place) = pool.idle.iter().position(same) {
                pool.idle.swap_remove(place);
                return self.idle.set(self.idle.get().saturating_sub(1));
            }
        }
    }

    /// What the future comes to. None: the deadline was there first.
    pub async fn before<T>(&self, deadline: Option<Instant>, future: impl Future<Output = T>) -> Option<T> {
        let Some(deadline) = deadline else { return Some(future.await) };
        let mut alarm = self.alarms.borrow_mut().pop().unwrap_or_default();
        let result = alarm.before(deadline, future).await;
        self.alarms.borrow_mut().push(alarm);
        result
    }

    /// Takes an idle connection that can carry a request; one that was opened on other terms cannot.
    fn idle(&self, endpoint: u32, tls: Option<&Arc<Connector>>, careful: bool) -> Option<Link> {
        let mut endpoints = self.endpoints.borrow_mut();
        let pool = endpoints.get_mut(&endpoint)?;
        while let Some(Idle { link, .. }) = pool.idle.pop() {
            self.idle.set(self.idle.get().saturating_sub(1));
            if link.tls() == tls && if careful { link.is_quiet() } else { link.seems_quiet() } {
                return Some(link);
            }
        }
        None
    }

    /// Gives a connection back whose response was read to its end.
    pub fn give_back(&self, endpoint: u32, link: Link) {
        let idle = Idle { link, since: self.now.get() };
        // What becomes too old while it is here, `tidy` finds, which alone moves the time that this goes by.
        if self.idle.get() >= self.max_idle.get() || self.is_old(&idle) || idle.link.counts().is_wanted() {
            return;
        }
        self.idle.set(self.idle.get() + 1);
        self.endpoints.borrow_mut().entry(endpoint).or_default().idle.push(idle);
    }

    fn is_old(&self, idle: &Idle) -> bool {
        // What would last longer than the clock goes never ends.
        let over = |since: Instant, most| since.checked_add(most).is_some_and(|end| end <= self.now.get());
        over(idle.since, self.idle_timeout.get()) || over(idle.link.opened(), self.lifetime.get())
    }

    async fn shared(self: &Rc<Self>, endpoint: &Endpoint, service: &Service) -> Result<Multiplexed, ConnectError> {
        let (wanted, limits) = (service.tls.as_ref(), &service.settings.limits);
        let both = both(endpoint, service);
        let mut waiting = {
            let mut endpoints = self.endpoints.borrow_mut();
            let pool = endpoints.entry(endpoint.id).or_default();
            match pool.shared.way(wanted) {
                Way::Use(connection) => return Ok(connection),
                Way::Wait(opening) => opening,
                Way::Open => {
                    let counts = match pool.shared.least(wanted) {
                        None => Open::anyway(&both),
                        Some(least) => match both.open(limits) {
                            Some(counts) => counts,
                            None => return Ok(least.clone()),
                        },
                    };
                    let (done, waiting) = watch::channel(None);
                    let tls = wanted.cloned();
                    pool.shared.opening(waiting.clone(), tls.clone());
                    let (pools, id) = (Rc::clone(self), endpoint.id);
                    let (address, live) = (endpoint.address, endpoint.live.clone());
                    // On its own task: whoever asked first may give up before the others.
                    tokio::task::spawn_local(async move {
                        let opened =
                            tokio::time::timeout(CONNECT_AT_MOST, pools.open_http2(address, tls.as_deref(), counts));
                        let opened = opened.await.unwrap_or(Err(ConnectError::Timeout));
                        if opened.is_ok() {
                            live.connected();
                        }
                        if let Some(pool) = pools.endpoints.borrow_mut().get_mut(&id) {
                            pool.shared.opened(opened.as_ref().ok(), tls);
                        }
                        let _ = done.send(Some(opened));
                    });
                    waiting
                }
            }
        };
        let _pending = both.wait(limits).ok_or(ConnectError::NoRoom)?;
        // An error: the connecting task is gone, which only the end of the worker does.
        let opened = waiting.wait_for(Option::is_some).await.map_err(|_| failed("the worker ends"))?;
        opened.clone().unwrap_or_else(|| Err(failed("the worker ends")))
    }

    async fn open_http2(
        &self,
        address: std::net::SocketAddr,
        tls: Option<&Connector>,
        counts: Open,
    ) -> Result<Multiplexed, ConnectError> {
        let socket = open(address, tls).await?;
        shared::begin(address, socket, self.max_head.get(), self.keepalive.get(), counts).await.map_err(failed)
    }

    /// Closes what is idle for too long, or belongs to an endpoint that is gone.
    pub fn tidy(&self, known: impl Fn(u32) -> bool) {
        self.now.set(Instant::now());
        let mut idle = 0;
        self.endpoints.borrow_mut().retain(|id, pool| {
            if !known(*id) {
                return false;
            }
            let keeps = |idle: &Idle| !self.is_old(idle) && idle.link.seems_quiet() && !idle.link.counts().is_wanted();
            pool.idle.retain(keeps);
            idle += pool.idle.len();
            pool.shared.forget_before(self.now.get().checked_sub(self.lifetime.get()));
            // Endpoints without connections are not looked at each second.
            !pool.idle.is_empty() || !pool.shared.is_empty()
        });
        self.idle.set(idle);
    }
}

/// Where a connection to this endpoint counts.
fn both(endpoint: &Endpoint, service: &Service) -> Both {
    let (endpoint, service) = (&endpoint.live.sockets, &service.live.admission.sockets);
    Both { endpoint: Arc::clone(endpoint), service: Arc::clone(service) }
}

fn failed(cause: impl std::fmt::Display) -> ConnectError {
    ConnectError::Failed(cause.to_string().into())
}

/// A shared connection that takes longer than this is given up, whatever the services' settings say.
const CONNECT_AT_MOST: Duration = Duration::from_secs(30);

async fn open(address: std::net::SocketAddr, tls: Option<&Connector>) -> Result<Socket, ConnectError> {
    client::connect(address, tls).await.map_err(|error| {
        // With TLS it may well be the configuration's fault, which nothing else would tell.
        match tls {
            Some(_) => {
                static SAID: Seldom = Seldom::each(Duration::from_secs(1));
                if let Some(left_out) = SAID.may() {
                    tracing::warn!(endpoint = %address, %error, left_out, "cannot connect");
                }
            }
            None => tracing::debug!(endpoint = %address, %error, "cannot connect"),
        }
        match client::out_of_sockets(&error) {
            true => ConnectError::NoSocket(error.to_string().into()),
            false => failed(error),
        }
    })
}
