//! least-loaded: the two least loaded endpoints of `users`, those in the gateway's own zone first.
wit_bindgen::generate!({ path: "../../wit" });
use exports::wayside::policy::routing::{Decision, Guest};
use wayside::policy::{catalog, plan};

struct LeastLoaded;

impl Guest for LeastLoaded {
    fn init(_config: String) -> Result<(), String> {
        Ok(())
    }

    fn decide() -> Result<Decision, String> {
        let mut endpoints = catalog::endpoints("users", &[]);
        endpoints.retain(|e| e.usable);
        endpoints.sort_by_key(|e| (!e.local, e.in_flight));
        // One for the first attempt, one for a retry. Long lists: `catalog::least_loaded` lets the host look.
        for e in endpoints.iter().take(2) {
            plan::endpoint(e.id);
        }
        plan::max_attempts(2);
        plan::reason("least loaded, own zone first");
        Ok(Decision::Forward("users".into()))
    }
}
export!(LeastLoaded);
