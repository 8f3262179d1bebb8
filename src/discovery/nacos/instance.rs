//! An instance as Nacos lists it, and what the gateway makes of a list of them.

use super::super::listing::{self, Listing};
use super::super::{Entry, Metadata, Observed};
use serde::Deserialize;
use std::collections::BTreeMap;

/// So much of an instance's metadata is taken.
const MOST_METADATA: usize = 64;
/// The cluster of an instance that names none.
const NO_CLUSTER: &str = "DEFAULT";
/// Weights that are fractions are taken as hundredths.
const HUNDREDTHS: f64 = 100.0;

/// One instance. `alibaba/nacos`: `api/.../naming/pojo/Instance.java`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Instance {
    ip: String,
    port: u16,
    #[serde(default = "one")]
    weight: f64,
    #[serde(default = "yes")]
    healthy: bool,
    #[serde(default = "yes")]
    enabled: bool,
    #[serde(default)]
    cluster_name: Option<String>,
    #[serde(default)]
    metadata: Option<BTreeMap<String, String>>,
}

fn one() -> f64 {
    1.0
}
fn yes() -> bool {
    true
}

/// A service's list of those that have all these tags, and are of one of these clusters, where any are named.
pub(super) fn observed(hosts: &[serde_json::Value], clusters: &[String], tags: &[String], revision: i64) -> Observed {
    let read = |host: &serde_json::Value| Instance::deserialize(host).map_err(|error| error.to_string());
    let instances: Vec<Result<Instance, String>> = hosts.iter().map(read).collect();
    let whole = |instance: &Instance| instance.weight.fract() == 0.0;
    let scale = if instances.iter().flatten().all(whole) { 1.0 } else { HUNDREDTHS };
    let mut listing = Listing::default();
    for (host, instance) in hosts.iter().zip(instances) {
        let says = |key: &str| host.get(key).map_or_else(|| "?".to_owned(), plain);
        let name = format!("{}:{}", says("ip"), says("port"));
        let of = |instance: &Instance| {
            clusters.is_empty() || instance.cluster_name.as_ref().is_some_and(|name| clusters.contains(name))
        };
        if instance.as_ref().is_ok_and(|instance| !of(instance)) {
            continue;
        }
        let entry = instance.and_then(|instance| entry(instance, scale));
        if !entry.as_ref().is_ok_and(|entry| !listing::has_tags(entry, tags)) {
            listing.add(&name, entry);
        }
    }
    listing.observed(revision.to_string())
}

fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn entry(instance: Instance, scale: f64) -> Result<Entry, String> {
    let Instance { ip, port, weight, healthy, enabled, cluster_name, metadata } = instance;
    let address = listing::usable(&ip, port)?;
    if !weight.is_finite() || weight < 0.0 {
        return Err(format!("weight {weight}"));
    }
    // What is small gets little, not nothing. The cast keeps to what a weight can be.
    let scaled = (weight * scale).round() as u32;
    let weight = if weight > 0.0 { scaled.max(1) } else { 0 };
    let mut metadata: Metadata = metadata.unwrap_or_default().into_iter().take(MOST_METADATA).collect();
    if let Some(cluster) = cluster_name.filter(|name| !name.is_empty()) {
        if cluster != NO_CLUSTER {
            metadata.entry("zone".to_owned()).or_insert_with(|| cluster.clone());
        }
        metadata.entry("cluster".to_owned()).or_insert(cluster);
    }
    // Who is disabled is there, and takes nothing.
    Ok(Entry { address, weight, healthy: healthy && enabled, metadata })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn weights(given: &[f64]) -> Vec<u32> {
        let host = |(port, weight): (usize, &f64)| json!({"ip": "10.0.0.1", "port": port + 1, "weight": weight});
        let hosts: Vec<_> = given.iter().enumerate().map(host).collect();
        observed(&hosts, &[], &[], 1).endpoints.iter().map(|entry| entry.weight).collect()
    }

    #[test]
    fn weights_are_whole_or_all_are_scaled() {
        assert_eq!(weights(&[1.0, 7.0, 0.0]), [1, 7, 0]);
        assert_eq!(weights(&[1.0, 0.5, 0.0, 0.001, 2.345]), [100, 50, 0, 1, 235]);
        assert_eq!(weights(&[1e300]), [u32::MAX]);
        assert_eq!(weights(&[-1.0, 1.0]), [1]);
    }

    #[test]
    fn what_an_instance_says_is_read() {
        let hosts = [
            json!({"ip": "10.0.0.1", "port": 80, "weight": 2.0, "healthy": true, "enabled": true, "ephemeral": true,
                "clusterName": "a", "metadata": {"version": "v2"}, "instanceIdGenerator": "simple"}),
            json!({"ip": "10.0.0.2", "port": 80, "enabled": false, "clusterName": "b", "metadata": {"zone": "c"}}),
            json!({"ip": "::1", "port": 80, "healthy": false, "clusterName": "DEFAULT", "metadata": null}),
            json!({"ip": "db.local", "port": 80}),
            json!({"ip": "10.0.0.4", "port": 70000}),
            json!(7),
        ];
        let seen = observed(&hosts, &[], &[], 9);
        let told = |entry: &Entry| (entry.address.to_string(), entry.healthy, format!("{:?}", entry.metadata));
        let expected = [
            ("10.0.0.1:80", true, r#"{"cluster": "a", "version": "v2", "zone": "a"}"#),
            ("10.0.0.2:80", false, r#"{"cluster": "b", "zone": "c"}"#),
            ("[::1]:80", false, r#"{"cluster": "DEFAULT"}"#),
        ];
        let expected = expected.map(|(address, healthy, metadata)| (address.to_owned(), healthy, metadata.to_owned()));
        assert_eq!(seen.endpoints.iter().map(told).collect::<Vec<_>>(), expected);
        let names: Vec<&str> = seen.left_out.iter().map(|left_out| left_out.entry.as_str()).collect();
        assert_eq!((seen.skipped, names), (3, vec!["db.local:80", "10.0.0.4:70000", "?:?"]));
        let of_a = observed(&hosts, &["a".to_owned()], &[], 9);
        assert_eq!((of_a.endpoints.len(), of_a.skipped), (1, 2));
    }

    proptest::proptest! {
        #[test]
        fn no_list_makes_it_panic(text in r#"\[(\{("(ip|port|weight|healthy|enabled|clusterName|metadata)":("[0-9.:]{0,12}"|-?[0-9]{1,11}(\.[0-9]{1,3})?|1e308|true|null|\{\}|\[\]),?){0,5}\},?){0,3}\]"#) {
            if let Ok(hosts) = serde_json::from_str::<Vec<serde_json::Value>>(&text) {
                let _ = observed(&hosts, &[], &["a".to_owned()], 1);
            }
        }
    }
}
