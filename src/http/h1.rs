//! HTTP/1 of our own (RFC 9112): what stands in the bytes, whoever reads or writes them. Nothing in here waits.

pub mod chunks;
pub mod reply;
pub mod write;
