//! Wayside: an HTTP gateway that is scripted in WebAssembly. This is the map, in reading order.
//!
//! **A request**: [`proxy::listener`] → its connection ([`http::h1`] is HTTP/1 of our own, hyper speaks HTTP/2) →
//! [`proxy::handle`] → one [`snapshot`] → [`proxy::exchange`] (span, clock) →
//! [`http::request`] → [`proxy::decide`]: a [`policy`], else a declared [`service::route`] → [`service`] →
//! [`service::admission`] lets it in → [`service::balance`] picks an endpoint → [`proxy::upstream`] attempts →
//! [`proxy::response`] → the exchange finishes, exactly once, as a [`service::record`] that [`telemetry`] tells.
//!
//! **A change**: a source ([`discovery`]), the configuration ([`control::config`]) or the watched directory
//! ([`policy::directory`]) reports its whole state → [`control`], the only writer → build aside → publish one immutable
//! snapshot.
//!
//! **The wings** stand below in order, from the top down: each file imports from its own wing and from those below it,
//! `control` and `telemetry` not from each other, and inside a wing nothing goes round. A test reads the imports.
//!
//! **Where new things go**, with all that each touches:
//! - a registry: its client in [`discovery::registry`], its source in `discovery/`, and its row in [`discovery::kinds`];
//! - a strategy: a file in `service/balance/` with its arm in [`service::balance`], and its name in [`service::plan`];
//!   one that policies can name also `wit/policy.wit` and `policy/host/plan.rs`;
//! - a kind of health check: its file in `service/health/` with its arm in `service::health`, and its name in
//!   [`service::health::settings`];
//! - a key of a service: a field of [`service::Settings`] with its default and bounds; of the gateway:
//!   [`http::settings::Gateway`];
//! - a kind of middleware: its file in `service/middleware/` with its row in `kind.rs` and its key in `written.rs`, and what
//!   it does in `proxy/middleware/` with its arm in `proxy::middleware`;
//! - something to count: its row in [`telemetry::Counter`];
//! - a host function: `wit/policy.wit` and its interface's file in `policy/host/`; if it reads what moves, also its kind in
//!   [`service::tape`] and `policy/wall.rs`, or no replay can tell what it said;
//! - something to ask the admin: its type in [`admin::api`] and its route in [`admin`].
//!
//! **What always holds**
//! 1. A request loads the snapshot once and never looks again.
//! 2. One place publishes ([`snapshot::Publisher`]), and nothing that was not validated.
//! 3. Live state (in flight, latency, health, what policies count) belongs to an endpoint's or a policy's identity and
//!    survives snapshots, reloads and new versions.
//! 4. The data path never waits for the control path; no lock is held across an await.
//! 5. A guest has a deadline and a memory limit; its fault is a value and costs one request at most.
//! 6. No task outlives the shutdown; the drain is a named sequence with a deadline.
//! 7. wasmtime's types stay inside `policy/`; a registry's JSON stays inside its file of `discovery/`.
//! 8. The last good state stays: of the configuration, of a source, of a policy, whatever comes after it.

// Tests and benches share fixtures, which call this crate by its name.
#[cfg(test)]
extern crate self as wayside;

// The wings, from the top down: each imports from those below it alone.
pub mod cli;
pub mod gateway;
pub mod admin;
pub mod proxy;
pub mod control;
pub mod telemetry;
pub mod snapshot;
pub mod policy;
pub mod service;
pub mod discovery;
pub mod http;
pub mod base;
