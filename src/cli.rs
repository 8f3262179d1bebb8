//! Stub.

pub mod policy;
