//! What the health endpoint answers, and what we make of it.
//!
//! - Address: `Service.Address`, and where that is empty, `Node.Address`; it must be an IP address.
//! - Weight: a tag `weight:N`, else `Service.Weights` for the state of the checks (`Passing` or `Warning`), else 1. The
//!   tag comes first because Consul fills in `Weights` by itself. A tag whose N is no number is just a tag.
//! - Healthy: no check of the service or its node is critical, which includes maintenance.
//! - Metadata: `Service.Meta`; `tags`, joined by commas, where there are any and the meta has no such key; `zone` from
//!   `Node.Meta` where the service's has none.

use crate::discovery::listing::{Listing, usable};
use crate::discovery::{Entry, Metadata, Observed};
use serde::Deserialize;
use std::collections::BTreeMap;

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
    meta: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    address: Option<String>,
    port: u16,
    tags: Option<Vec<String>>,
    meta: Option<BTreeMap<String, String>>,
    weights: Option<Weights>,
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

/// Reads an answer, whose revision is not in it. Bad entries are left out, counted and named.
///
/// # Errors
/// What is wrong with the answer as a whole.
pub(super) fn parse(body: &[u8]) -> Result<Observed, String> {
    let raw: Vec<serde_json::Value> =
        serde_json::from_slice(body).map_err(|e| format!("the answer is no JSON list ({e})"))?;
    let mut listing = Listing::default();
    for (number, value) in raw.iter().enumerate() {
        match entry(value) {
            Ok(entry) => listing.add("", Ok(entry)),
            Err(problem) => listing.add(&name(value, number), Err(problem)),
        }
    }
    Ok(listing.observed(""))
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

fn entry(value: &serde_json::Value) -> Result<Entry, String> {
    let raw = Raw::deserialize(value).map_err(|e| e.to_string())?;
    let node = raw.node.unwrap_or(Node { address: None, meta: None });
    let own = raw.service.address.filter(|address| !address.is_empty());
    let written = own.or(node.address).unwrap_or_default();
    let address = usable(&written, raw.service.port)?;
    let has = |status: &str| raw.checks.iter().flatten().any(|check| check.status == status);
    let tags = raw.service.tags.unwrap_or_default();
    let tagged = tags.iter().find_map(|tag| tag.strip_prefix("weight:")?.trim().parse().ok());
    let registered = raw.service.weights.and_then(|w| if has("warning") { w.warning } else { w.passing });
    let mut metadata: Metadata = raw.service.meta.unwrap_or_default();
    if !tags.is_empty() {
        metadata.entry("tags".to_owned()).or_insert_with(|| tags.join(","));
    }
    if let Some(zone) = node.meta.and_then(|mut meta| meta.remove("zone")) {
        metadata.entry("zone".to_owned()).or_insert(zone);
    }
    Ok(Entry { address, weight: tagged.or(registered).unwrap_or(1), healthy: !has("critical"), metadata })
}

#[cfg(test)]
mod tests;
