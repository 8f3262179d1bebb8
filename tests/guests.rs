//! The guests in this repository: are the prebuilt ones fresh, do they decide what their sources say, and what does a
//! hostile one cost.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on has failed")]

#[path = "guests/decisions.rs"]
mod decisions;
#[path = "guests/fresh.rs"]
mod fresh;
#[path = "guests/hostile.rs"]
mod hostile;
#[path = "guests/world.rs"]
mod world;
