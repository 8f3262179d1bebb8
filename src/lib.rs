//! Wayside: an HTTP gateway that is scripted in WebAssembly. This is the map, in reading order.
//!
//! **A request**: [`listener`] → [`proxy::handle`] → one [`snapshot`] → [`exchange`] (span, clock) → [`request`] →
//! [`policy`] decides → else the declared [`route`]s → [`service`] → [`balance`] picks an endpoint → [`upstream`]
//! attempts → [`response`] → the exchange finishes, exactly once.
//!
//! **A change**: a source ([`discovery`]), the configuration or the watched directory ([`policy`]) reports its whole
//! state → [`control`], the only writer → build aside → publish one immutable snapshot.
//!
//! **Where new things go.** A registry: a file in `discovery/` and a case of [`discovery::SourceSettings`]. A strategy:
//! a file in `balance/` and a case of [`balance::Strategy`]. A host function: `wit/policy.wit` and its interface's file in
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

// The composition root.
pub mod cli;
pub mod config;
pub mod gateway;
pub mod worker;

// The data path, in order.
pub mod balance;
pub mod error;
pub mod exchange;
pub mod grpc;
pub mod headers;
pub mod listener;
pub mod malformed;
pub mod policy;
pub mod proxy;
pub mod request;
pub mod response;
pub mod route;
pub mod service;
pub mod telemetry;
pub mod tls;
pub mod upgrade;
pub mod upstream;

// The control path, in order.
pub mod admin;
pub mod control;
pub mod discovery;
pub mod snapshot;
pub mod watch;

// Small words that all use.
pub mod digest;
pub mod duration;
pub mod metadata;
pub mod place;
pub mod secret;
pub mod time;
