//! The host's side of the interface: one file per WIT interface, and what they share.
//!
//! A host function never returns an error, since that would cost the whole instance. It notes what is wrong, gives
//! something harmless, and the answer becomes a fault when the call ends.

mod catalog;
mod clock;
mod edit;
mod hashing;
mod inputs;
mod log;
mod metrics;
mod plan;
mod random;
mod request;
mod routing;
mod state;

pub(super) use inputs::Inputs;
pub use inputs::read_input;
pub(super) use routing::answer;
