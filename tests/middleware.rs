//! `[[middleware]]` before a real gateway's endpoints, each kind in a file of its own.

mod auth;
mod compress;
mod edges;
mod forward_auth;
mod jwks;
mod jwt;
mod mirror;
mod seen;
