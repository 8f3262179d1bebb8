//! HTTP/1 of our own (RFC 9112): what stands in the bytes, whoever reads or writes them. Nothing in here waits.

pub mod chunks;
pub mod flow;
pub mod head;
mod line;
pub mod out;
pub mod reply;
pub mod scratch;
pub mod write;
