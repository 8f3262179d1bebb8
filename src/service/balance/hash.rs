//! hash: weighted rendezvous hashing (Thaler & Ravishankar 1998; weights after Schindelhauer & Schomaker 2005). Each
//! endpoint gets a score from key and address, the highest wins: when one goes, only its own keys move, and when one
//! comes, it takes its share from all others alike.

use super::Candidates;
use crate::service::Endpoint;
use std::hash::Hasher;
use xxhash_rust::xxh64::{Xxh64, xxh64};

pub(super) fn pick(candidates: Candidates<'_>, key: &str) -> u32 {
    let key = xxh64(key.as_bytes(), 0);
    let mut best = (f64::NEG_INFINITY, 0);
    for (place, endpoint) in candidates.iter() {
        let score = score(key, endpoint);
        if score > best.0 {
            best = (score, place);
        }
    }
    best.1
}

fn score(key: u64, endpoint: &Endpoint) -> f64 {
    let mut hasher = Xxh64::new(key);
    match endpoint.address {
        std::net::SocketAddr::V4(address) => hasher.write(&address.ip().octets()),
        std::net::SocketAddr::V6(address) => hasher.write(&address.ip().octets()),
    }
    hasher.write(&endpoint.address.port().to_be_bytes());
    // 53 bits, moved off 0 and 1 so that the logarithm is finite and not 0.
    let unit = ((hasher.finish() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    -f64::from(endpoint.weight) / unit.ln()
}
