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
}

impl Limits {
    /// Nothing is limited.
    pub fn is_none(&self) -> bool {
        *self == Limits::default()
    }
}
