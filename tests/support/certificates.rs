//! An authority that issues certificates into files.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "for tests, each of which uses some of it")]

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;

/// An authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority for tests");
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Its own certificate.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Whoever has these trusts it.
    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }

    /// A server's certificate, in `name.pem` and `name.key`, the key first.
    pub fn issue(
        &self,
        names: &[&str],
        folder: &Path,
        name: &str,
    ) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        self.sign(CertificateParams::new(names).unwrap(), folder, name)
    }

    /// A client's certificate and key, also in `name.pem` and `name.key`.
    pub fn client(&self, folder: &Path, name: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Wayside, tests");
        params.distinguished_name.push(DnType::CommonName, name);
        self.sign(params, folder, name)
    }

    fn sign(
        &self,
        params: CertificateParams,
        folder: &Path,
        name: &str,
    ) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
        std::fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
        (certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }
}
