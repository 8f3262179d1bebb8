//! The wire: what clients and endpoints send, checked once, and what the gateway says itself.

pub mod coding;
pub mod downstream;
pub mod error;
pub mod fields;
pub mod grpc;
pub mod h1;
pub mod headers;
pub mod malformed;
pub mod request;
pub mod settings;
pub mod tls;
