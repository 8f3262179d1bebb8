//! Wayside: an HTTP gateway that is scripted in WebAssembly.

pub mod balance;
pub mod cli;
pub mod config;
pub mod digest;
pub mod discovery;
pub mod duration;
pub mod metadata;
pub mod policy;
pub mod request;
pub mod route;
pub mod secret;
pub mod service;
pub mod snapshot;
pub mod time;
pub mod watch;
