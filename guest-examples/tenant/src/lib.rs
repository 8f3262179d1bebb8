//! tenant: one rule a line in the config, `PREFIX TENANT TIER SERVICE`. The first one whose prefix starts the path and
//! whose two values equal the headers `x-tenant` and `x-tier` names the service.
wit_bindgen::generate!({ path: "../../wit" });
use exports::wayside::policy::routing::{Decision, Guest};
use std::sync::OnceLock;
use wayside::policy::{plan, request};

struct Rule {
    prefix: String,
    tenant: String,
    tier: String,
    service: String,
    /// All four, for people.
    line: String,
}

static RULES: OnceLock<Vec<Rule>> = OnceLock::new();
struct Tenant;

impl Guest for Tenant {
    fn init(config: String) -> Result<(), String> {
        let rule = |line: &str| -> Result<Rule, String> {
            let words: Vec<String> = line.split_whitespace().map(String::from).collect();
            let line = words.join(" ");
            let [prefix, tenant, tier, service] =
                words.try_into().map_err(|_| format!("not `PREFIX TENANT TIER SERVICE`: {line}"))?;
            Ok(Rule { prefix, tenant, tier, service, line })
        };
        let rules = config.lines().filter(|line| !line.trim().is_empty()).map(rule).collect::<Result<_, _>>()?;
        RULES.set(rules).map_err(|_| "init called twice".into())
    }

    fn decide() -> Result<Decision, String> {
        // One call for all three: cheaper than one for each.
        let inputs = request::inputs("header x-tenant\nheader x-tier\npath");
        let mut inputs = inputs.split('\n').map(|line| line.strip_prefix('='));
        let mut next = || inputs.next().flatten();
        let (Some(tenant), Some(tier), Some(path)) = (next(), next(), next()) else {
            return Ok(Decision::Next);
        };
        let fits = |rule: &&Rule| rule.tenant == tenant && rule.tier == tier && path.starts_with(&rule.prefix);
        let Some(rule) = RULES.get().and_then(|rules| rules.iter().find(fits)) else {
            return Ok(Decision::Next);
        };
        plan::reason(&rule.line);
        Ok(Decision::Forward(rule.service.clone()))
    }
}
export!(Tenant);
