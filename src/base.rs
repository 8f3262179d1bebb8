//! Words that every other wing uses: time, chance, digests, secrets, durations, places in a text, watched files, trace
//! context. Nothing in here knows what a gateway is.

pub mod bucket;
pub mod chance;
pub mod digest;
pub mod duration;
pub mod local;
pub mod place;
pub mod secret;
pub mod time;
pub mod trace;
pub mod watch;
