//! tenant: one rule a line in the config, `PREFIX TENANT TIER SERVICE`. The first one whose prefix starts the path and
//! whose two values equal the headers `x-tenant` and `x-tier` names the service.
wit_bindgen::generate!({ path: "../../wit" });
use exports::wayside::policy::routing::{Decision, Guest};
use std::sync::OnceLock;
use wayside::policy::{plan, request};

static RULES: OnceLock<Vec<[String; 4]>> = OnceLock::new();
struct Tenant;

impl Guest for Tenant {
    fn init(config: String) -> Result<(), String> {
        let rule = |line: &str| {
            let words: Vec<String> = line.split_whitespace().map(String::from).collect();
            words.try_into().map_err(|_| format!("not `PREFIX TENANT TIER SERVICE`: {line}"))
        };
        let rules = config.lines().filter(|line| !line.trim().is_empty()).map(rule).collect::<Result<_, _>>()?;
        RULES.set(rules).map_err(|_| "init called twice".into())
    }

    fn decide() -> Result<Decision, String> {
        let (Some(tenant), Some(tier)) = (request::header("x-tenant"), request::header("x-tier")) else {
            return Ok(Decision::Next);
        };
        let path = request::path();
        let fits = |r: &&[String; 4]| path.starts_with(&r[0]) && r[1] == tenant && r[2] == tier;
        let Some(rule) = RULES.get().and_then(|rules| rules.iter().find(fits)) else {
            return Ok(Decision::Next);
        };
        plan::reason(&rule.join(" "));
        Ok(Decision::Forward(rule[3].clone()))
    }
}
export!(Tenant);
