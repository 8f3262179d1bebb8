//! TLS on both sides: [`server`] answers clients' handshakes, [`client`] makes those with endpoints, and a [`Socket`] is
//! a connection with or without it.

pub mod client;
pub mod problem;
pub mod server;
mod socket;

pub use socket::Socket;

use crate::base::files;
use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

/// Files of one certificate, in PEM.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// The certificate, and those between it and the root.
    pub chain: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Pair {
    /// The same with its paths, which are relative to `folder`.
    pub fn at(self, folder: &Path) -> Self {
        Pair { chain: folder.join(self.chain), key: folder.join(self.key) }
    }
}

/// Nothing that is a certificate or a key is larger.
const FILE_BYTES: u64 = 1 << 20;

/// What computes, on both sides and in all libraries. Its first choice is X25519MLKEM768, so that what somebody records
/// today stays closed to the quantum computer of tomorrow; X25519 and the curves of before follow.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));

/// Makes it that of the process, which libraries ask for: without one, building a client of theirs panics.
pub fn install_provider() {
    // An error means that there is one already, and there is no other in the tree.
    let _ = aws_lc_rs::default_provider().install_default();
}

/// A file's bytes. Waits for it, but not for long.
pub(crate) fn read(file: &Path) -> Result<Vec<u8>, String> {
    files::read(file, FILE_BYTES).map_err(|error| format!("{}: cannot be read: {error}", file.display()))
}

/// The certificates in a file's bytes, which are at least one.
pub(crate) fn certificates(file: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |problem: String| format!("{}: no certificates in PEM: {problem}", file.display());
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let certificates = read.map_err(|error| wrong(error.to_string()))?;
    if certificates.is_empty() { Err(wrong("it has none".into())) } else { Ok(certificates) }
}

/// The private key in a file's bytes.
pub(crate) fn key(file: &Path, bytes: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(bytes).map_err(|error| format!("{}: no private key in PEM: {error}", file.display()))
}

fn does_not_go_with(pair: &Pair, error: &rustls::Error) -> String {
    match problem::of(error) {
        Some(problem) => format!("{}: {problem}", pair.chain.display()),
        None => format!("{}: does not go with {}: {error}", pair.key.display(), pair.chain.display()),
    }
}

/// Who is trusted to say who somebody is.
fn authorities(file: &Path, bytes: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for root in certificates(file, bytes)? {
        roots.add(root).map_err(|error| format!("{}: no authority's certificate: {error}", file.display()))?;
    }
    Ok(roots)
}
