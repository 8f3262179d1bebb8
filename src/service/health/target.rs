//! Whom a check asks, on which terms, and what it may find.

use super::settings::HealthCheck;
use crate::http::tls::Socket;
use crate::http::tls::client::{self, Connector};
use crate::service::{Service, Settings};
use std::net::SocketAddr;
use std::sync::Arc;

/// How endpoints of a service are asked.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    pub(super) settings: Arc<Settings>,
    pub(super) tls: Option<Arc<Connector>>,
}

impl Terms {
    pub(super) fn of(service: &Service) -> Self {
        Terms { settings: Arc::clone(&service.settings), tls: service.tls.clone() }
    }
}

/// A check on the one terms is a check on the others.
impl PartialEq for Terms {
    fn eq(&self, other: &Self) -> bool {
        let (one, two) = (&self.settings, &other.settings);
        one.health == two.health && one.protocol == two.protocol && one.host == two.host && self.tls == other.tls
    }
}

/// Whom one check asks.
#[derive(Debug)]
pub(super) struct Target<'a> {
    pub(super) check: &'a HealthCheck,
    address: SocketAddr,
    tls: Option<&'a Connector>,
    /// The service's endpoints speak HTTP/2.
    pub(super) http2: bool,
    /// What `Host` says.
    pub(super) host: String,
}

/// Why a check was not good.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unwell {
    /// The gateway could not ask.
    Ours(String),
    /// The endpoint did not answer, or not well.
    Theirs(String),
}

impl Unwell {
    /// It gave no answer.
    pub(super) fn broken(error: impl std::fmt::Display) -> Self {
        Unwell::Theirs(format!("no response: {error}"))
    }
}

impl<'a> Target<'a> {
    /// The endpoint at this address.
    pub(super) fn new(address: SocketAddr, terms: &'a Terms, check: &'a HealthCheck) -> Self {
        let Terms { settings, tls } = terms;
        let host = || settings.host.as_ref().and_then(|host| host.to_str().ok()).map(str::to_owned);
        let host = check.host.clone().or_else(host).unwrap_or_else(|| address.to_string());
        let port = check.port.map_or(address.port(), Into::into);
        let address = SocketAddr::new(address.ip(), port);
        Target { check, address, tls: tls.as_deref(), http2: settings.http2(), host }
    }

    /// A path on it as an absolute URI, which HTTP/2 wants.
    pub(super) fn uri(&self, path: &str) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.host)
    }

    /// A connection with it.
    pub(super) async fn connect(&self) -> Result<Socket, Unwell> {
        client::connect(self.address, self.tls).await.map_err(|error| match client::out_of_sockets(&error) {
            true => Unwell::Ours(error.to_string()),
            false => Unwell::Theirs(format!("connect: {error}")),
        })
    }
}

/// What `asking` comes to, while `connection` is driven beside it, so that nothing of it outlives the check.
pub(super) async fn beside<T>(asking: impl Future<Output = T>, connection: impl Future) -> T {
    let (mut asking, mut connection) = (std::pin::pin!(asking), Box::pin(connection));
    tokio::select! {
        found = &mut asking => return found,
        _ = &mut connection => {}
    }
    // A request that it has not taken over waits until it is gone.
    drop(connection);
    asking.await
}
