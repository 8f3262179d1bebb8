//! What belongs to a policy's name and survives its versions.

use super::limits::Limits;
use super::metrics::GuestMetrics;
use super::state::State;

/// What belongs to a policy's name and survives its versions and reloads: there is one for each name.
#[derive(Debug)]
pub struct PolicyLive {
    /// What the policy remembers.
    pub state: State,
    /// What the policy counts.
    pub metrics: GuestMetrics,
}

impl Default for PolicyLive {
    fn default() -> Self {
        let limits = Limits::default();
        // Loading a version sets its own quota.
        PolicyLive { state: State::new(limits.state_keys, limits.state_bytes), metrics: GuestMetrics::default() }
    }
}
