//! A client's connection: how it begins, what it may send, how long it may take, how it ends.

pub mod clients;
pub mod clock;
mod flood;
mod frames;
pub mod http1;
mod linger;
pub mod opening;
pub mod spread;
pub mod timed;
pub mod untaken;
