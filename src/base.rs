//! Words that every other wing uses: time, chance, digests, secrets, durations, places in a text, reading and watching files, lines on
//! their way out, trace context. Nothing in here knows what a gateway is.

pub mod bucket;
pub mod chance;
pub mod digest;
pub mod duration;
pub mod files;
pub mod keys;
pub mod lines;
pub mod local;
pub mod place;
pub mod secret;
pub mod seldom;
pub mod size;
pub mod time;
pub mod trace;
pub mod watch;
