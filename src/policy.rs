//! Policies: the users' code. What the rest of the gateway may know of it; wasmtime stays inside this folder.

mod aside;
mod bindings;
pub mod compile;
mod component;
mod conduct;
mod context;
mod cut;
pub mod directory;
mod engine;
mod hall;
mod host;
mod instance;
mod limits;
mod live;
mod metrics;
mod question;
mod refusal;
pub mod release;
mod rooms;
mod scope;
mod seats;
mod settings;
pub mod sidecar;
mod state;
mod suspension;
mod ticker;
mod told;
mod version;
mod wall;
mod wasi;

pub use conduct::Suspended;
pub use engine::Engine;
pub use host::read_input;
pub use limits::{Limits, MAX_MEMORY};
pub use live::PolicyLive;
pub use metrics::{BOUNDS, GuestMetrics, OWN, Series, SeriesValue};
pub use question::Question;
pub use scope::{OnFault, Scope, Scopes, Standing};
pub use settings::EngineSettings;
pub use state::{Rate, State, Taken};
pub use version::{Identity, Stats, Version};
pub use wall::{Played, Reads, Wall};

#[cfg(test)]
mod tests;
