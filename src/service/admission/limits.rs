//! `limits = { … }`: how much of a service may go on at a time, in this gateway.

use serde::Deserialize;
use std::num::NonZero;

/// None of them: as much as comes. What is beyond waits in the service's queue, if it has one, else it is refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Exchanges with the service at a time, from when they are let in to the last byte of the response, whatever they try.
    /// Envoy calls it `max_requests` of a cluster; HAProxy's `maxconn` of a server is [`Limits::endpoint_requests`].
    pub requests: Option<NonZero<u32>>,
    /// Requests at a time to each endpoint. One that has so many is passed over; while all have, the service has as many as
    /// it may.
    pub endpoint_requests: Option<NonZero<u32>>,
    /// Connections at a time to all endpoints, idle ones counted. Of HTTP/2, each worker has one to each endpoint that it asks
    /// whatever this says, since it can use no other's. Envoy's `max_connections`.
    pub connections: Option<NonZero<u32>>,
    /// The same to each endpoint.
    pub endpoint_connections: Option<NonZero<u32>>,
    /// Requests at a time that wait for a connection, to be opened or until one may be. Envoy's `max_pending_requests`.
    pub pending: Option<NonZero<u32>>,
    /// The same for each endpoint.
    pub endpoint_pending: Option<NonZero<u32>>,
}

impl Limits {
    /// So many requests at a time to each endpoint. Of HTTP/1, each needs a connection of its own.
    pub fn of_each(&self, http2: bool) -> Option<NonZero<u32>> {
        self.endpoint_requests.into_iter().chain(self.endpoint_connections.filter(|_| !http2)).min()
    }

    /// So many to all of that many endpoints, however many requests the service may have.
    pub fn room(&self, endpoints: impl FnOnce() -> usize, http2: bool) -> u32 {
        let of_each = self.of_each(http2).map_or(u32::MAX, |each| {
            // Without any, a request shall be told so.
            u32::try_from(endpoints().max(1)).unwrap_or(u32::MAX).saturating_mul(each.get())
        });
        self.connections.filter(|_| !http2).map_or(of_each, |all| of_each.min(all.get()))
    }

    /// Nothing is limited.
    pub fn is_none(&self) -> bool {
        *self == Limits::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_of_http1_needs_a_connection() {
        let read = |text: &str| toml::from_str::<Limits>(text).unwrap();
        assert!(read("").is_none() && read("").room(|| 3, false) == u32::MAX);
        let limits = read("connections = 5\nendpoint_connections = 2\nendpoint_requests = 4");
        assert_eq!(
            [(0, false), (2, false), (3, false), (3, true)].map(|(endpoints, http2)| limits.room(|| endpoints, http2)),
            [2, 4, 5, 12]
        );
        assert!(toml::from_str::<Limits>("requests = 0").unwrap_err().message().contains("nonzero"));
    }
}
