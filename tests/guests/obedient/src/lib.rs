//! obedient: a policy that does what the request's headers say, for tests only. `x-answer: STATUS` answers with that status
//! and the body `answered`; `x-queue-as: KEY` and `x-weight: NUMBER` say with whom the request waits; `x-forward: SERVICE`
//! says where it goes. Without either, it is `next`.
wit_bindgen::generate!({ path: "../../../wit" });
use exports::wayside::policy::routing::{Decision, Guest, Response};
use wayside::policy::{plan, request};

struct Obedient;

impl Guest for Obedient {
    fn init(_: String) -> Result<(), String> {
        Ok(())
    }

    fn decide() -> Result<Decision, String> {
        let number = |name: &str| -> Option<u32> { request::header(name)?.parse().ok() };
        if let Some(status) = number("x-answer") {
            let status = u16::try_from(status).map_err(|_| "`x-answer` is no status")?;
            return Ok(Decision::Respond(Response { status, headers: vec![], body: "answered".into() }));
        }
        if let Some(key) = request::header("x-queue-as") {
            plan::queue_as(&key, number("x-weight").unwrap_or(1));
        }
        Ok(request::header("x-forward").map_or(Decision::Next, Decision::Forward))
    }
}
export!(Obedient);
