//! canary: `x-canary: 1` goes to users-v2, and so does the share of users (in percent) that the config names.
wit_bindgen::generate!({ path: "../../wit" });
use exports::wayside::policy::routing::{Decision, Guest};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use wayside::policy::{hashing, plan, request};

static PERCENT: AtomicU32 = AtomicU32::new(0);
struct Canary;

impl Guest for Canary {
    fn init(config: String) -> Result<(), String> {
        let percent = match config.trim() {
            "" => 0,
            text => text.parse().map_err(|e| format!("config `{text}` is no percentage: {e}"))?,
        };
        PERCENT.store(percent, Relaxed);
        Ok(())
    }

    fn decide() -> Result<Decision, String> {
        // One call for both: cheaper than one for each.
        let inputs = request::inputs("header x-canary\ncookie sid");
        let mut inputs = inputs.split('\n').map(|line| line.strip_prefix('='));
        let (asked, sid) = (inputs.next().flatten(), inputs.next().flatten());
        if asked == Some("1") {
            plan::reason("asked for by header");
            return Ok(Decision::Forward("users-v2".into()));
        }
        // The same user is always in or always out, on every gateway.
        let user = sid.map_or_else(request::client_address, String::from);
        if hashing::bucket(&["canary:", &user].concat(), 100) < PERCENT.load(Relaxed) {
            plan::reason("in the share");
            return Ok(Decision::Forward("users-v2".into()));
        }
        Ok(Decision::Next)
    }
}
export!(Canary);
