//! What is known of one service: what its source said last, and the endpoints that were made of it. A report is a whole list;
//! what it says of an endpoint as before costs a comparison, and the endpoint stays the very same.

use crate::base::time::process_ms;
use crate::discovery::{Entry, Metadata, Observed};
use crate::service::{Endpoint, Endpoints, Live, ServiceLive};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use xxhash_rust::xxh64::{Xxh64, xxh64};

/// A service as its source reported it last.
#[derive(Debug)]
pub(super) struct Known {
    /// Who reported it.
    pub(super) source: Arc<str>,
    /// What it said.
    pub(super) observed: Arc<Observed>,
    /// Made of it, in the same order.
    pub(super) endpoints: Endpoints,
    /// Of service, source and endpoints: gateways that know the same have the same. Not of what each of them saw on its
    /// way there, like a revision.
    pub(super) digest: u64,
    /// Of each entry.
    digests: Vec<u64>,
}

/// What endpoints are made with.
pub(super) struct Maker<'a> {
    /// The service that they belong to.
    pub(super) service: &'a Arc<str>,
    /// What of that survives.
    pub(super) live: &'a ServiceLive,
    /// The gateway's own.
    pub(super) zone: Option<&'a Arc<str>>,
    /// Its metadata's `priority` counts.
    pub(super) failover: bool,
    /// Whoever comes takes no traffic before a check was good.
    pub(super) unchecked: bool,
    /// The numbers given so far; none is given twice.
    pub(super) given: &'a mut u32,
}

impl Known {
    /// What is known after this report. None: just what was known `before`.
    pub(super) fn after(
        before: Option<&Known>,
        source: &Arc<str>,
        observed: Observed,
        mut maker: Maker<'_>,
    ) -> Option<Self> {
        let nothing = Endpoints::default();
        let (old, entries, old_digests) = before.map_or((&nothing, &[][..], &[][..]), |known| {
            (&known.endpoints, known.observed.endpoints.as_slice(), known.digests.as_slice())
        });
        let mut endpoints = Vec::with_capacity(observed.endpoints.len());
        let mut digests = Vec::with_capacity(observed.endpoints.len());
        let mut same = old.len() == observed.endpoints.len();
        // Where the next one stood before: mostly behind the one before it.
        let mut next = 0;
        for (place, entry) in observed.endpoints.iter().enumerate() {
            let was = match old.get(next) {
                Some(endpoint) if endpoint.address == entry.address => Some(next),
                _ => old.place_at(entry.address).map(|place| place as usize),
            };
            next = was.map_or(next, |was| was + 1);
            same &= was == Some(place);
            let known = was.and_then(|was| Some((old.get(was)?, entries.get(was)?, *old_digests.get(was)?)));
            match known {
                Some((endpoint, before, digest)) if before == entry => {
                    endpoints.push(Arc::clone(endpoint));
                    digests.push(digest);
                }
                known => {
                    same = false;
                    endpoints.push(maker.endpoint(entry, known.map(|(endpoint, ..)| &**endpoint)));
                    digests.push(entry_digest(entry));
                }
            }
        }
        let digest = digest(maker.service, source, &digests);
        if same && before.is_some_and(|before| before.says_beside(source, &observed)) {
            return None;
        }
        let endpoints = if same { old.clone() } else { Endpoints::after(old, endpoints) };
        Some(Known { source: Arc::clone(source), observed: Arc::new(observed), endpoints, digest, digests })
    }

    /// Does this source say the same beside the endpoints?
    fn says_beside(&self, source: &Arc<str>, observed: &Observed) -> bool {
        let Observed { endpoints: _, revision, skipped, left_out, held } = &*self.observed;
        (&self.source, revision, skipped, left_out, held)
            == (source, &observed.revision, &observed.skipped, &observed.left_out, &observed.held)
    }

    /// As a gateway in this zone sees it, and with tiers or without.
    pub(super) fn seen_from(&mut self, zone: Option<&Arc<str>>, failover: bool) {
        let seen = |endpoint: &Endpoint| {
            let tier = if failover { tier(&endpoint.metadata) } else { 0 };
            (is_local(endpoint.zone.as_ref(), zone), tier)
        };
        if self.endpoints.iter().all(|endpoint| seen(endpoint) == (endpoint.local, endpoint.tier)) {
            return;
        }
        let moved = |endpoint: &Arc<Endpoint>| match seen(endpoint) {
            same if same == (endpoint.local, endpoint.tier) => Arc::clone(endpoint),
            (local, tier) => Arc::new(Endpoint {
                service: Arc::clone(&endpoint.service),
                zone: endpoint.zone.clone(),
                metadata: endpoint.metadata.clone(),
                live: Arc::clone(&endpoint.live),
                local,
                tier,
                ..**endpoint
            }),
        };
        self.endpoints = Endpoints::after(&self.endpoints, self.endpoints.iter().map(moved).collect());
    }
}

impl Maker<'_> {
    /// An endpoint as its source declares it; what lives is that of what it was before, also where it was gone for a
    /// while, else its own.
    fn endpoint(&mut self, entry: &Entry, before: Option<&Endpoint>) -> Arc<Endpoint> {
        let zone: Option<Arc<str>> = entry.metadata.get("zone").map(|zone| Arc::from(zone.as_str()));
        let left = if before.is_none() { self.live.left.comes_back(entry.address) } else { None };
        let (id, live) = match before.or(left.as_deref()) {
            Some(before) => (before.id, Arc::clone(&before.live)),
            None => {
                *self.given += 1;
                let live = Live::new(!self.unchecked, process_ms());
                live.join(&self.live.group);
                (*self.given, Arc::new(live))
            }
        };
        Arc::new(Endpoint {
            id,
            service: Arc::clone(self.service),
            address: entry.address,
            weight: entry.weight,
            local: is_local(zone.as_ref(), self.zone),
            zone,
            tier: if self.failover { tier(&entry.metadata) } else { 0 },
            metadata: entry.metadata.clone(),
            source_healthy: entry.healthy,
            live,
        })
    }
}

/// As the metadata says; the first where it says nothing, the last where it says nonsense.
fn tier(metadata: &Metadata) -> u32 {
    metadata.get("priority").map_or(0, |priority| priority.trim().parse().unwrap_or(u32::MAX))
}

/// True where either has no zone.
fn is_local(zone: Option<&Arc<str>>, own: Option<&Arc<str>>) -> bool {
    own.is_none() || zone.is_none() || own == zone
}

fn entry_digest(entry: &Entry) -> u64 {
    let mut hasher = Xxh64::new(0);
    entry.hash(&mut hasher);
    hasher.finish()
}

/// In whatever order they are listed, which two gateways may see differently.
fn digest(service: &Arc<str>, source: &Arc<str>, digests: &[u64]) -> u64 {
    let endpoints = digests.iter().fold(0u64, |sum, digest| sum.wrapping_add(*digest));
    xxh64(format!("{service:?} {source:?} {}", digests.len()).as_bytes(), endpoints)
}
