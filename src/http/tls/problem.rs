//! What is wrong with a certificate, in words that say what to do: the library's own are for whoever wrote it.

use rustls::{CertificateError, Error};
use std::io;
use x509_cert::TbsCertificate;
use x509_cert::certificate::Version;
use x509_cert::der::Decode;
use x509_cert::der::asn1::ObjectIdentifier;

/// `subjectAltName` (RFC 5280 §4.2.1.6).
const ALTERNATIVE_NAMES: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");
const NO_NAMES: &str = "the certificate has no subjectAltName, and a common name (CN) is not looked at: \
                        make one with a subjectAltName";
const OLD_VERSION: &str = "the certificate is of X.509 version 1 or 2: make one of version 3, with a subjectAltName";

/// What went wrong in a handshake.
pub fn in_words(error: &io::Error) -> String {
    let error = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()).ok_or(error);
    match error {
        Ok(error) => {
            of(error).map_or_else(|| error.to_string(), |problem| format!("invalid peer certificate: {problem}"))
        }
        Err(error) => error.to_string(),
    }
}

/// What is wrong with a certificate, if that is the error.
pub(super) fn of(error: &Error) -> Option<String> {
    let Error::InvalidCertificate(wrong) = error else { return None };
    Some(match wrong {
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => NO_NAMES.to_owned(),
        CertificateError::NotValidForNameContext { expected, presented } => {
            let presented: Vec<&str> = presented.iter().map(|name| name_of(name)).collect();
            format!("the certificate is for {}, not for `{}`", presented.join(", "), expected.to_str())
        }
        CertificateError::UnknownIssuer => {
            "the certificate was signed by none of the authorities that are trusted".to_owned()
        }
        CertificateError::BadSignature => {
            "the certificate was signed by none of the authorities that are trusted; one of the same name has another key"
                .to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "the certificate has expired".to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the certificate is not valid yet".to_owned()
        }
        CertificateError::Other(other) => match other.0.downcast_ref::<webpki::Error>() {
            Some(webpki::Error::UnsupportedCertVersion) => OLD_VERSION.to_owned(),
            Some(webpki::Error::CaUsedAsEndEntity) => {
                "the certificate is an authority's own; make one for the server that it signs".to_owned()
            }
            _ => return None,
        },
        _ => return None,
    })
}

/// A name as the library shows it: `DnsName("a")`.
fn name_of(shown: &str) -> &str {
    shown.split_once("(\"").and_then(|(_, rest)| rest.strip_suffix("\")")).unwrap_or(shown)
}

/// What clients or endpoints will say against a certificate that was read, as far as it shows.
pub(super) fn foreseen(certificate: &[u8]) -> Option<&'static str> {
    let read = x509_cert::Certificate::from_der(certificate).ok()?;
    let read: &TbsCertificate = read.tbs_certificate();
    if read.version() != Version::V3 {
        return Some(OLD_VERSION);
    }
    let mut extensions = read.extensions().into_iter().flatten();
    (!extensions.any(|extension| extension.extn_id == ALTERNATIVE_NAMES)).then_some(NO_NAMES)
}

#[cfg(test)]
mod tests {
    use super::super::{PROVIDER, Pair, certificates, client, server};
    use super::*;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use std::path::Path;
    use std::sync::Arc;

    /// `openssl x509 -req` without extensions: version 1, for 100 years. With its key.
    const OLD: &str = "-----BEGIN CERTIFICATE-----
MIIBJzCBzwIUGeNVklhnRxQxpgxOPJediNaoMe8wCgYIKoZIzj0EAwIwFjEUMBIG
A1UEAwwLb2xkLmV4YW1wbGUwIBcNMjYxMTI4MTY0NTA4WhgPMjEyNjExMDQxNjQ1
MDhaMBYxFDASBgNVBAMMC29sZC5leGFtcGxlMFkwEwYHKoZIzj0CAQYIKoZIzj0D
AQcDQgAE8sPTY9amEYNHHXBnZazAQGw2x9iYyTIU6Uxq/6Do2M38sFObvuGegBac
3PqgHJgTfJnbLrd9G7+p+RWgEwP5HjAKBggqhkjOPQQDAgNHADBEAiBMI9AAyefy
RXj/cI8e5YPfvQ2ErFP6eKv0Rb9gncAwAwIgaVbpum+kj1EiUyIzIfXq5OKQspni
lhL5M0MduqAX6Sc=
-----END CERTIFICATE-----
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgUoZCFnsBWOqjPp0k
UalYM86anN+Il5cH/4q45BZSAtahRANCAATyw9Nj1qYRg0cdcGdlrMBAbDbH2JjJ
MhTpTGr/oOjYzfywU5u+4Z6AFpzc+qAcmBN8mdsut30bv6n5FaATA/ke
-----END PRIVATE KEY-----
";

    /// A certificate with these names, signed by an authority of its own, and that authority.
    fn issued(names: &[&str]) -> (CertificateDer<'static>, CertificateDer<'static>) {
        let mut authority = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = rcgen::CertifiedIssuer::self_signed(authority, rcgen::KeyPair::generate().unwrap()).unwrap();
        let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let params = rcgen::CertificateParams::new(names).unwrap();
        let certificate = params.signed_by(&rcgen::KeyPair::generate().unwrap(), &authority).unwrap();
        (certificate.der().clone(), authority.der().clone())
    }

    fn old() -> CertificateDer<'static> {
        certificates(Path::new("old.pem"), OLD.as_bytes()).unwrap().remove(0)
    }

    /// What is told of a certificate that an endpoint shows.
    fn told(certificate: &CertificateDer<'_>, authority: CertificateDer<'static>, name: &str) -> String {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority).unwrap();
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&PROVIDER));
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let verified = verifier.build().unwrap().verify_server_cert(certificate, &[], &name, &[], UnixTime::now());
        in_words(&io::Error::other(verified.unwrap_err()))
    }

    #[test]
    fn what_an_endpoint_shows_is_told_in_words() {
        let (nameless, authority) = issued(&[]);
        let (named, other) = issued(&["a.example", "10.0.0.1"]);
        let cases = [
            (told(&nameless, authority.clone(), "shop.example"), "no subjectAltName"),
            (told(&nameless, authority.clone(), "10.0.0.9"), "no subjectAltName"),
            (told(&named, other.clone(), "shop.example"), "not for `shop.example`"),
            (told(&named, authority, "a.example"), "none of the authorities that are trusted"),
            (told(&old(), other, "old.example"), "X.509 version 1 or 2"),
        ];
        for (told, expected) in cases {
            assert!(told.starts_with("invalid peer certificate: ") && told.contains(expected), "{told}");
        }
        // What is no certificate's fault is told as it is.
        assert_eq!(
            in_words(&io::ErrorKind::UnexpectedEof.into()),
            io::Error::from(io::ErrorKind::UnexpectedEof).to_string()
        );
    }

    #[test]
    fn what_a_listener_or_the_gateway_would_show_is_told_before_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("old.pem");
        std::fs::write(&file, OLD).unwrap();
        let pair = Pair { chain: file.clone(), key: file.clone() };
        let settings = server::Settings { certificates: vec![pair.clone()], client_ca: None, client_required: false };
        let client = client::Settings { server_name: None, ca: Some(file.clone()), certificate: Some(pair) };
        let problems =
            [server::Acceptor::new(&settings).unwrap_err(), client::Connector::new(&client, false).unwrap_err()];
        for problem in problems {
            assert_eq!(problem, format!("{}: {OLD_VERSION}", file.display()));
        }
        assert_eq!(foreseen(&issued(&[]).0), Some(NO_NAMES));
        assert_eq!(foreseen(&issued(&["a.example"]).0), None);
        assert_eq!(foreseen(b"no certificate"), None);
    }
}
