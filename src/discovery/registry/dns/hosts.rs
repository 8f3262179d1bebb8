//! The addresses of names: of one, or of many at once.

use super::{Answer, Client};
use crate::discovery::registry::Failure;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// So many names are looked up at once.
const AT_ONCE: usize = 16;

/// Which addresses count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// All.
    #[default]
    Both,
    /// Of IPv4: AAAA records are not asked for.
    Ipv4,
    /// Of IPv6: A records are not asked for.
    Ipv6,
}

impl Family {
    /// Do addresses in records of this kind count?
    pub fn counts(self, kind: RecordType) -> bool {
        match self {
            Family::Both => true,
            Family::Ipv4 => kind == RecordType::A,
            Family::Ipv6 => kind == RecordType::AAAA,
        }
    }
}

/// What a name has, and for how many seconds.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Host {
    /// None: so DNS says.
    pub ips: BTreeSet<IpAddr>,
    /// How long that holds, seconds.
    pub ttl: u32,
}

/// The address in a record that has one.
pub fn ip(record: &Record) -> Option<IpAddr> {
    match &record.data {
        RData::A(address) => Some(address.0.into()),
        RData::AAAA(address) => Some(address.0.into()),
        _ => None,
    }
}

/// The addresses of a name.
///
/// # Errors
/// Why nobody knows all of them.
pub async fn host(client: &Client, family: Family, name: &Name, until: Instant) -> Result<Host, Failure> {
    let ask = async |kind| match family.counts(kind) {
        true => client.ask(name, kind, until).await,
        false => Ok(Answer { records: vec![], additionals: vec![], ttl: u32::MAX }),
    };
    // Not the failure that comes first, but always the same.
    let (four, six) = tokio::join!(ask(RecordType::A), ask(RecordType::AAAA));
    let (four, six) = (four?, six?);
    let ips = four.records.iter().chain(&six.records).filter_map(ip).collect();
    Ok(Host { ips, ttl: four.ttl.min(six.ttl) })
}

/// The same for many names, some of them at once.
pub async fn hosts(
    client: &Arc<Client>,
    family: Family,
    names: BTreeSet<Name>,
    until: Instant,
) -> BTreeMap<Name, Result<Host, Failure>> {
    let (mut found, mut asked, mut names) = (BTreeMap::new(), JoinSet::new(), names.into_iter());
    loop {
        while asked.len() < AT_ONCE
            && let Some(name) = names.next()
        {
            let client = Arc::clone(client);
            asked.spawn(async move { (host(&client, family, &name, until).await, name) });
        }
        match asked.join_next().await {
            None => return found,
            Some(Ok((host, name))) => drop(found.insert(name, host)),
            // It was not cancelled, and does not panic; were it so, the name would have no address.
            Some(Err(_)) => {}
        }
    }
}
