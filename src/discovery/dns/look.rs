//! One lookup of a service: all that has to be asked for it, and what is made of the answers. SRV follows RFC 2782.

use super::wanted::Wanted;
use crate::base::digest;
use crate::discovery::listing::{Listing, usable};
use crate::discovery::registry::Failure;
use crate::discovery::registry::dns::Client;
use crate::discovery::registry::dns::hosts::{Family, Host, host, hosts, ip};
use crate::discovery::{Entry, Metadata, Observed};
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What of the answers counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct How {
    pub(super) family: Family,
    /// Not only the lowest that has addresses.
    pub(super) all_priorities: bool,
}

/// A service as it is, and for how long.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) observed: Observed,
    pub(super) ttl: Duration,
}

/// Looks a service up, all of it before the client's deadline.
///
/// # Errors
/// Why it is not known how the service is.
pub(super) async fn look(client: &Arc<Client>, how: How, wanted: &Wanted) -> Result<Seen, Failure> {
    let family = how.family;
    let until = client.deadline();
    let (observed, ttl) = match wanted {
        Wanted::Host(name, port) => {
            let host = host(client, family, name, until).await?;
            let entry = |ip: &IpAddr| endpoint(name, *ip, *port, 1, Metadata::new());
            (listed(host.ips.iter().map(entry)), host.ttl)
        }
        Wanted::Service(name) => {
            let answer = client.ask(name, RecordType::SRV, until).await?;
            let mut ttl = answer.ttl;
            let mut seen = Observed::default();
            let mut groups: Vec<Vec<&SRV>> = by_priority(&answer.records).into_values().collect();
            if how.all_priorities {
                groups = vec![groups.concat()];
            }
            for targets in groups {
                let mut known = added(&answer.additionals, family);
                complete(client, family, &targets, &mut known, until).await?;
                let used = targets.iter().filter_map(|srv| known.get(&srv.target));
                ttl = used.map(|host| host.ttl).fold(ttl, u32::min);
                let group = listed(targets.iter().flat_map(|srv| entries(srv, known.get(&srv.target))));
                let skipped = seen.skipped.saturating_add(group.skipped);
                let left_out = seen.left_out.into_iter().chain(group.left_out).collect();
                seen = Observed { skipped, left_out, ..group };
                // The next ones are for when none of these is there.
                if !seen.endpoints.is_empty() {
                    break;
                }
            }
            (seen, ttl)
        }
    };
    Ok(Seen { observed, ttl: Duration::from_secs(ttl.into()) })
}

/// The targets of SRV records, the most wanted ones first. A target that is the root means that there is no service.
fn by_priority(records: &[Record]) -> BTreeMap<u16, Vec<&SRV>> {
    let mut groups: BTreeMap<u16, Vec<&SRV>> = BTreeMap::new();
    for record in records {
        if let RData::SRV(srv) = &record.data
            && !srv.target.is_root()
        {
            groups.entry(srv.priority).or_default().push(srv);
        }
    }
    groups
}

/// The addresses that came unasked.
fn added(additionals: &[Record], family: Family) -> BTreeMap<Name, Host> {
    let mut hosts: BTreeMap<Name, Host> = BTreeMap::new();
    for record in additionals.iter().filter(|record| family.counts(record.record_type())) {
        if let Some(ip) = ip(record) {
            let host = hosts.entry(record.name.clone()).or_insert(Host { ips: BTreeSet::new(), ttl: u32::MAX });
            host.ips.insert(ip);
            host.ttl = host.ttl.min(record.ttl);
        }
    }
    hosts
}

/// Asks for the addresses that are lacking.
async fn complete(
    client: &Arc<Client>,
    family: Family,
    targets: &[&SRV],
    known: &mut BTreeMap<Name, Host>,
    until: Instant,
) -> Result<(), Failure> {
    let lacking = targets.iter().map(|srv| &srv.target).filter(|name| !known.contains_key(*name)).cloned().collect();
    for (name, host) in hosts(client, family, lacking, until).await {
        known.insert(name, host?);
    }
    Ok(())
}

type Named = (String, Result<Entry, String>);

/// The endpoints of one target.
fn entries(srv: &SRV, host: Option<&Host>) -> Vec<Named> {
    let metadata: Metadata =
        [("priority", srv.priority.to_string()), ("target", srv.target.to_ascii()), ("weight", srv.weight.to_string())]
            .map(|(key, value)| (key.to_owned(), value))
            .into();
    // Weight 0 is the least there is, and what all have where nobody chooses.
    let weight = u32::from(srv.weight).max(1);
    let ips = host.map(|host| &host.ips).filter(|ips| !ips.is_empty());
    let Some(ips) = ips else {
        let problem = "the target has no address".to_owned();
        return vec![(format!("{} (port {})", srv.target.to_ascii(), srv.port), Err(problem))];
    };
    ips.iter().map(|ip| endpoint(&srv.target, *ip, srv.port, weight, metadata.clone())).collect()
}

fn endpoint(name: &Name, ip: IpAddr, port: u16, weight: u32, metadata: Metadata) -> Named {
    let entry = usable(&ip.to_string(), port).map(|address| Entry { address, weight, healthy: true, metadata });
    (format!("{} ({ip}, port {port})", name.to_ascii()), entry)
}

/// In an order of its own: servers turn theirs with every answer.
fn listed(entries: impl Iterator<Item = Named>) -> Observed {
    let mut entries: Vec<Named> = entries.collect();
    entries.sort_by_cached_key(|(name, entry)| (entry.as_ref().map(|entry| entry.address).ok(), name.clone()));
    let mut listing = Listing::default();
    entries.into_iter().for_each(|(name, entry)| listing.add(&name, entry));
    let mut observed = listing.observed("");
    let shown = observed.endpoints.iter().map(|entry| format!("{} {}\n", entry.address, entry.weight));
    observed.revision = digest::short(shown.collect::<String>().as_bytes());
    observed
}

#[cfg(test)]
mod tests;
