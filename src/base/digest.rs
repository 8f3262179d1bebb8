//! Digests that people compare by eye.

use sha2::{Digest, Sha256};

/// SHA-256 as 64 hex digits.
pub fn full(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The first 12 hex digits of SHA-256.
pub fn short(bytes: &[u8]) -> String {
    let mut digest = full(bytes);
    digest.truncate(12);
    digest
}
