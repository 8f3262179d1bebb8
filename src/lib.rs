//! Wayside: an HTTP gateway that is scripted in WebAssembly. This is the map, in reading order.
//!
//! **A request**: [`proxy::listener`] → [`proxy::handle`] → one [`snapshot`] → [`proxy::exchange`] (span, clock) →
//! [`http::request`] → [`policy`] decides → else the declared [`service::route`]s → [`service`] → [`service::balance`]
//! picks an endpoint → [`proxy::upstream`] attempts → [`proxy::response`] → the exchange finishes, exactly once.
//!
//! **A change**: a source ([`discovery`]), the configuration or the watched directory ([`policy`]) reports its whole
//! state → [`control`], the only writer → build aside → publish one immutable snapshot.
//!
//! **Where new things go.** A registry: a file in `discovery/` and a case of [`discovery::SourceSettings`]. A strategy:
//! a file in `service/balance/` and a case of [`service::plan::Strategy`]. A host function: `wit/policy.wit` and its interface's file in
//! `policy/host/`.
//!
//! **What always holds**
//! 1. A request loads the snapshot once and never looks again.
//! 2. One place publishes, and nothing that was not validated.
//! 3. Live state (in flight, latency, health, what policies count) belongs to an endpoint's or a policy's identity and
//!    survives snapshots, reloads and new versions.
//! 4. The data path never waits for the control path; no lock is held across an await.
//! 5. A guest has a deadline and a memory limit; its fault is a value and costs one request at most.
//! 6. No task outlives the shutdown; the drain is a named sequence with a deadline.
//! 7. wasmtime's types stay inside `policy/`; a registry's JSON stays inside its file of `discovery/`.

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
