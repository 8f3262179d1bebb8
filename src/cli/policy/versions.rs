//! `wayside policy list`, `show`, `promote`, `rollback` and `quarantine`: the versions of a running gateway's policies,
//! through its admin.

use crate::admin::api::{CanaryState, Done, Policies, PolicyState, VersionState, Wanted};
use crate::cli::out;
use crate::cli::running::{self, Place, Proof, parse};
use std::time::Duration;

/// For one answer: a version may have to be compiled first.
const ANSWER: Duration = Duration::from_secs(60);

/// What all of these say of how versions follow each other.
pub(super) const SEMANTICS: &str = "What the directory holds is what is wanted. A rollback, or a promote of another version, \
holds that one against it, also after a restart, until something else is delivered or `promote NAME` is said. A quarantined \
component never comes back by being copied again; `quarantine NAME VERSION --lift` lets it. Versions are named by so many \
digits of their id that it is no other's.";

/// Whom to ask.
#[derive(Debug, clap::Args)]
pub struct Asked {
    #[command(flatten)]
    place: Place,
    /// The answer as JSON, as the admin gives it
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub struct Named {
    /// The policy
    name: String,
    #[command(flatten)]
    asked: Asked,
}

#[derive(Debug, clap::Args)]
pub struct Promote {
    /// The policy
    name: String,
    /// A version that is kept [default: the canary, else what the directory holds]
    version: Option<String>,
    #[command(flatten)]
    asked: Asked,
    #[command(flatten)]
    proof: Proof,
}

#[derive(Debug, clap::Args)]
pub struct Rollback {
    /// The policy
    name: String,
    #[command(flatten)]
    asked: Asked,
    #[command(flatten)]
    proof: Proof,
}

#[derive(Debug, clap::Args)]
pub struct Quarantine {
    /// The policy
    name: String,
    /// The version
    version: String,
    /// Let it come back
    #[arg(long)]
    lift: bool,
    #[command(flatten)]
    asked: Asked,
    #[command(flatten)]
    proof: Proof,
}

/// All policies, a line each.
pub(super) fn list(asked: &Asked) -> anyhow::Result<()> {
    let text = asked.get("/policies")?;
    if asked.json {
        out::say(text.trim_end());
        return Ok(());
    }
    let Policies { policies } = parse(text.as_bytes())?;
    let width = policies.iter().map(|policy| policy.name.chars().count()).max().unwrap_or(0);
    for policy in &policies {
        let version = policy.version.as_deref().unwrap_or("none");
        let held = policy.pinned.as_ref().map(|pin| format!("  held against {}: {}", pin.over, pin.why));
        let bad: Vec<&VersionState> = policy.versions.iter().filter(|one| one.quarantined.is_some()).collect();
        let error = policy.error.as_ref().map(|error| format!("  {error}"));
        let line = format!("{:width$}  {version:12}  {}", policy.name, policy.state);
        out::say(format_args!("{line}{}{}", held.unwrap_or_default(), error.unwrap_or_default()));
        if let Some(canary) = &policy.canary {
            out::say(format_args!("{:width$}  {}", "", on_its_way(canary)));
        }
        for one in bad {
            out::say(format_args!("{:width$}  {}", "", told(one)));
        }
    }
    Ok(())
}

/// One policy, a line for each version.
pub(super) fn show(named: &Named) -> anyhow::Result<()> {
    let text = named.asked.get(&format!("/policies/{}", escaped(&named.name)))?;
    if named.asked.json {
        out::say(text.trim_end());
        return Ok(());
    }
    let policy: PolicyState = parse(text.as_bytes())?;
    out::say(format_args!("{}  {}", policy.name, policy.state));
    let lines = [("error", &policy.error), ("suspended", &policy.reason), ("until", &policy.until)];
    for (what, line) in lines.into_iter().filter_map(|(what, line)| Some((what, line.as_ref()?))) {
        out::say(format_args!("  {what}: {line}"));
    }
    if let Some(pin) = &policy.pinned {
        out::say(format_args!("  held against {} since {}: {}", pin.over, pin.since, pin.why));
    }
    if let Some(canary) = &policy.canary {
        out::say(format_args!("  {}", on_its_way(canary)));
        canary.notes.iter().for_each(|note| out::say(format_args!("  note: {note}")));
    }
    policy.versions.iter().for_each(|version| out::say(format_args!("  {}", told(version))));
    Ok(())
}

/// A canary, in a line.
fn on_its_way(canary: &CanaryState) -> String {
    let CanaryState { version, step, steps, share, .. } = canary;
    let [held, hold] =
        [canary.held_ms, canary.hold_ms].map(|ms| humantime::format_duration(Duration::from_secs(ms / 1000)));
    let [live, own] = canary.requests;
    let percent = share * 100.0;
    format!(
        "{version}  canary for {percent} % of the clients, step {step} of {steps}, {held} of {hold}, {own} requests beside {live}"
    )
}

/// A version, in a line.
fn told(version: &VersionState) -> String {
    let role = version.role.as_deref().unwrap_or(if version.kept { "kept" } else { "" });
    let since = version.since.as_ref().map(|since| format!("  since {since}")).unwrap_or_default();
    let component = version.component.as_ref().map(|digits| format!("  component {digits}")).unwrap_or_default();
    let quarantined = version.quarantined.as_ref();
    let quarantined = quarantined.map(|one| format!("  quarantined since {}: {}", one.since, one.why));
    format!("{}  {role:6}{since}{component}{}", version.version, quarantined.unwrap_or_default())
}

pub(super) fn promote(Promote { name, version, asked, proof }: Promote) -> anyhow::Result<()> {
    asked.post(&name, "promote", &Wanted { version, lift: false }, &proof)
}

pub(super) fn rollback(Rollback { name, asked, proof }: Rollback) -> anyhow::Result<()> {
    asked.post(&name, "rollback", &Wanted::default(), &proof)
}

pub(super) fn quarantine(quarantine: Quarantine) -> anyhow::Result<()> {
    let Quarantine { name, version, lift, asked, proof } = quarantine;
    asked.post(&name, "quarantine", &Wanted { version: Some(version), lift }, &proof)
}

/// As a segment of a path (RFC 3986 §3.3): what is not plain is escaped.
fn escaped(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

impl Asked {
    fn get(&self, path: &str) -> anyhow::Result<String> {
        let url = self.place.url(path);
        answer(&url, |http| http.get(&url))
    }

    fn post(&self, name: &str, action: &str, wanted: &Wanted, proof: &Proof) -> anyhow::Result<()> {
        let secret = proof.secret()?;
        let url = self.place.url(&format!("/policies/{}/{action}", escaped(name)));
        let text = answer(&url, |http| http.post(&url).bearer_auth(secret.expose()).json(wanted))?;
        match self.json {
            true => out::say(text.trim_end()),
            false => out::say(parse::<Done>(text.as_bytes())?.told),
        }
        Ok(())
    }
}

/// The body of a good answer.
fn answer(url: &str, ask: impl FnOnce(&reqwest::Client) -> reqwest::RequestBuilder) -> anyhow::Result<String> {
    let http = running::client(ANSWER)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let body = runtime.block_on(async { running::body(url, running::good(url, ask(&http)).await?).await })?;
    Ok(String::from_utf8_lossy(&body).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_segment_of_a_path() {
        assert_eq!(escaped("10-canary_v2.x~"), "10-canary_v2.x~");
        assert_eq!(escaped("a b/ü?#%"), "a%20b%2F%C3%BC%3F%23%25");
    }
}
