//! What the health endpoint answers, and what we make of it.
//!
//! - Address: `Service.Address`, and where that is empty, `Node.Address`; an IP address, or a name where those are resolved.
//!   With `tagged_address`, that one of the service's, with its own port, or of the node's where the service has no address
//!   of its own. An entry without it is left out: its plain address may be somebody else's from here.
//! - Weight: a tag `weight:N`, else `Service.Weights` for the state of the checks (`Passing` or `Warning`), else 1. The
//!   tag comes first because Consul fills in `Weights` by itself. A tag whose N is no number is just a tag.
//! - Healthy: no check of the service or its node is critical, which includes maintenance.
//! - Metadata: `Service.Meta`; `tags`, joined by commas, where there are any and the meta has no such key; `zone` from
//!   `Node.Meta` where the service's has none.

use super::hosts::Resolved;
use crate::discovery::listing::{Listing, usable};
use crate::discovery::{Entry, Metadata, Observed};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

// Go writes empty lists and maps as null, hence the options.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Raw {
    node: Option<Node>,
    service: Service,
    checks: Option<Vec<Check>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    address: Option<String>,
    tagged_addresses: Option<BTreeMap<String, String>>,
    meta: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    address: Option<String>,
    tagged_addresses: Option<BTreeMap<String, Tagged>>,
    port: u16,
    tags: Option<Vec<String>>,
    meta: Option<BTreeMap<String, String>>,
    weights: Option<Weights>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Tagged {
    address: String,
    port: Option<u16>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    passing: Option<u32>,
    warning: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    status: String,
}

/// An answer whose names are not resolved yet.
#[derive(Debug)]
pub(super) struct Answer(Vec<(String, Result<Found, String>)>);

/// An endpoint, but for its address.
#[derive(Debug)]
struct Found {
    at: At,
    weight: u32,
    healthy: bool,
    metadata: Metadata,
}

#[derive(Debug)]
enum At {
    Address(SocketAddr),
    Name(String, u16),
}

/// Reads an answer. `tagged`: which address counts; none: the plain one.
///
/// # Errors
/// What is wrong with the answer as a whole.
pub(super) fn parse(body: &[u8], tagged: Option<&str>) -> Result<Answer, String> {
    let raw: Vec<serde_json::Value> =
        serde_json::from_slice(body).map_err(|e| format!("the answer is no JSON list ({e})"))?;
    let named = |(number, value)| match found(value, tagged) {
        Ok(found @ Found { at: At::Address(_), .. }) => (String::new(), Ok(found)),
        other => (name(value, number), other),
    };
    Ok(Answer(raw.iter().enumerate().map(named).collect()))
}

impl Answer {
    /// The names that stand for addresses.
    pub(super) fn names(&self) -> BTreeSet<&str> {
        let found = self.0.iter().filter_map(|(_, found)| found.as_ref().ok());
        let name = found.filter_map(|found| match &found.at {
            At::Name(name, _) => Some(name.as_str()),
            At::Address(_) => None,
        });
        name.collect()
    }

    /// What counts of it, whose revision is not in it. Bad entries are left out, counted and named. `resolved`: of the
    /// names; none: names are no addresses.
    pub(super) fn observed(self, resolved: Option<&Resolved>) -> Observed {
        let mut listing = Listing::default();
        for (name, found) in self.0 {
            match found {
                Ok(found) => found.entries(resolved).into_iter().for_each(|entry| listing.add(&name, entry)),
                Err(problem) => listing.add(&name, Err(problem)),
            }
        }
        listing.observed("")
    }
}

impl Found {
    /// One for each address.
    fn entries(self, resolved: Option<&Resolved>) -> Vec<Result<Entry, String>> {
        let Found { at, weight, healthy, metadata } = self;
        let entry = |address| Entry { address, weight, healthy, metadata: metadata.clone() };
        match at {
            At::Address(address) => vec![Ok(entry(address))],
            At::Name(name, port) => match resolved.map(|resolved| resolved.get(&name)) {
                None => vec![Err(format!("`{name}` is no IP address; `resolve_hosts = true` looks names up"))],
                Some(Some(Ok(ips))) => ips.iter().map(|ip| usable(&ip.to_string(), port).map(entry)).collect(),
                Some(Some(Err(problem))) => vec![Err(problem.clone())],
                Some(None) => vec![Err(format!("`{name}` was not looked up"))],
            },
        }
    }
}

/// What a bad entry is called: its id, else its place in the list, and its address as far as there is one.
fn name(entry: &serde_json::Value, number: usize) -> String {
    let service = &entry["Service"];
    let text = |value: &serde_json::Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let id = text(&service["ID"]).unwrap_or_else(|| format!("number {}", number + 1));
    let address = text(&service["Address"]).or_else(|| text(&entry["Node"]["Address"]));
    match (address, &service["Port"]) {
        (Some(address), serde_json::Value::Null) => format!("{id} ({address})"),
        (Some(address), port) => format!("{id} ({address}:{port})"),
        (None, _) => id,
    }
}

fn found(value: &serde_json::Value, tagged: Option<&str>) -> Result<Found, String> {
    let raw = Raw::deserialize(value).map_err(|e| e.to_string())?;
    let node = raw.node.unwrap_or(Node { address: None, tagged_addresses: None, meta: None });
    let own = raw.service.address.filter(|address| !address.is_empty());
    let (written, port) = match tagged {
        None => (own.or(node.address).unwrap_or_default(), raw.service.port),
        Some(tagged) => {
            let of_service = raw.service.tagged_addresses.and_then(|mut all| all.remove(tagged));
            let of_node = node.tagged_addresses.filter(|_| own.is_none()).and_then(|mut all| all.remove(tagged));
            match (of_service, of_node) {
                (Some(Tagged { address, port }), _) => {
                    (address, port.filter(|port| *port > 0).unwrap_or(raw.service.port))
                }
                (None, Some(address)) => (address, raw.service.port),
                (None, None) => return Err(format!("has no tagged address `{tagged}`")),
            }
        }
    };
    let at = if is_name(&written) && port > 0 { At::Name(written, port) } else { At::Address(usable(&written, port)?) };
    let has = |status: &str| raw.checks.iter().flatten().any(|check| check.status == status);
    let tags = raw.service.tags.unwrap_or_default();
    let by_tag = tags.iter().find_map(|tag| tag.strip_prefix("weight:")?.trim().parse().ok());
    let registered = raw.service.weights.and_then(|w| if has("warning") { w.warning } else { w.passing });
    let mut metadata: Metadata = raw.service.meta.unwrap_or_default();
    if !tags.is_empty() {
        metadata.entry("tags".to_owned()).or_insert_with(|| tags.join(","));
    }
    if let Some(zone) = node.meta.and_then(|mut meta| meta.remove("zone")) {
        metadata.entry("zone".to_owned()).or_insert(zone);
    }
    Ok(Found { at, weight: by_tag.or(registered).unwrap_or(1), healthy: !has("critical"), metadata })
}

/// Can this be looked up?
fn is_name(text: &str) -> bool {
    let may_be = |char: char| char.is_alphanumeric() || matches!(char, '-' | '_' | '.');
    !text.is_empty() && text.chars().all(may_be) && text.parse::<IpAddr>().is_err()
}

#[cfg(test)]
mod tests;
