//! The guests in this repository: are the prebuilt ones fresh, do they decide what their sources say, and what does a
//! hostile one cost.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod decisions;
mod fresh;
mod hostile;
mod world;
