//! What belongs to a policy's name and survives its versions.

use super::conduct::Conducts;
use super::limits::Limits;
use super::metrics::GuestMetrics;
use super::state::State;
use super::told::Told;
use crate::base::time::process_ms;
use crate::http::request::Head;
use crate::service::decision::Fault;

/// What belongs to a policy's name and survives its versions and reloads: there is one for each name.
#[derive(Debug)]
pub struct PolicyLive {
    /// What the policy remembers.
    pub state: State,
    /// What the policy counts.
    pub metrics: GuestMetrics,
    /// How its components behave.
    pub(super) conducts: Conducts,
    told: Told,
}

impl Default for PolicyLive {
    fn default() -> Self {
        let limits = Limits::default();
        PolicyLive {
            // Loading a version sets its own quota.
            state: State::new(limits.state_keys, limits.state_bytes),
            metrics: GuestMetrics::default(),
            conducts: Conducts::default(),
            told: Told::default(),
        }
    }
}

impl PolicyLive {
    /// Tells the log of a fault that a request came to, but not of each: what kind of request it was is told once, and
    /// then how many there were, every 10 s at most. `version` is "none" where nobody could be asked.
    pub fn tell(&self, policy: &str, version: &str, fault: &Fault, head: &Head) {
        self.told.tell(process_ms(), policy, version, fault, (head.parts.method.as_str(), &head.parts.headers));
    }
}
