//! sticky: a client with a `sid` cookie stays on one endpoint of `users`; one without gets a cookie.
wit_bindgen::generate!({ path: "../../wit" });
use exports::wayside::policy::routing::{Decision, Guest};
use wayside::policy::{edit, plan, random, request};

struct Sticky;

impl Guest for Sticky {
    fn init(_config: String) -> Result<(), String> {
        Ok(())
    }

    fn decide() -> Result<Decision, String> {
        let sid = request::cookie("sid").unwrap_or_else(|| {
            let sid = format!("{:08x}{:08x}", random::below(u32::MAX), random::below(u32::MAX));
            edit::append_response_header("set-cookie", &format!("sid={sid}; Path=/; HttpOnly"));
            sid
        });
        plan::sticky(&sid);
        plan::max_attempts(2);
        plan::reason("sticky by sid");
        Ok(Decision::Forward("users".into()))
    }
}
export!(Sticky);
