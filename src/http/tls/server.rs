//! TLS with clients: a certificate for the name that they ask for, files that are watched and swapped, and who a client
//! proved to be.

use super::{PROVIDER, Pair, Socket, problem};
use crate::base::digest;
use crate::base::watch::{self, Changes};
use arc_swap::ArcSwap;
use rustls::pki_types::ServerName;
use rustls::server::{ClientHello, ProducesTickets, ResolvesServerCert, ServerConfig, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use x509_cert::der::Decode;

/// How a listener speaks TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The first one is for clients that ask for no name, or for one that none has.
    pub certificates: Vec<Pair>,
    /// Clients may prove who they are, with a certificate that leads to one of these.
    pub client_ca: Option<PathBuf>,
    /// With `client_ca`: whoever has none is refused.
    pub client_required: bool,
}

/// Certificates that are renewed one after the other are taken over together, unless that goes on for longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was made of the files.
#[derive(Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    /// Of the files' content.
    digest: String,
}

/// What a listener answers handshakes with. All workers share it.
#[derive(Debug, Clone)]
pub struct Acceptor {
    settings: Arc<Settings>,
    loaded: Arc<ArcSwap<Loaded>>,
}

impl Acceptor {
    /// Reads the files.
    ///
    /// # Errors
    /// Which file is wrong, and why.
    pub fn new(settings: &Settings) -> Result<Self, String> {
        let tickets = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(|error| error.to_string())?;
        let loaded = load(settings, tickets)?;
        Ok(Acceptor { settings: Arc::new(settings.clone()), loaded: Arc::new(ArcSwap::from_pointee(loaded)) })
    }

    /// The handshake with one client.
    ///
    /// # Errors
    /// Why it failed.
    pub async fn accept(&self, stream: TcpStream) -> std::io::Result<Socket> {
        let stream = TlsAcceptor::from(Arc::clone(&self.loaded.load().config)).accept(stream).await?;
        Ok(Socket::Tls(Box::new(stream.into())))
    }

    /// Reads the files again whenever one of them changes, all that change together at once. Connections that are open go on
    /// as they are; what cannot be used is told, and the last good files stay. Wants a runtime around it.
    pub fn watch(&self) {
        let pairs = self.settings.certificates.iter().flat_map(|pair| [&pair.chain, &pair.key]);
        let files = pairs.chain(&self.settings.client_ca).cloned();
        tokio::spawn(self.clone().follow(watch::files(files).patient(PATIENCE)));
    }

    async fn follow(self, mut changes: Changes) {
        let mut problem = None;
        loop {
            changes.next().await;
            // Tickets outlive the certificate that they were given under, as they do the connection.
            let (settings, tickets) = (Arc::clone(&self.settings), Arc::clone(&self.loaded.load().config.ticketer));
            let loaded = tokio::task::spawn_blocking(move || load(&settings, tickets)).await;
            match loaded.unwrap_or_else(|error| Err(error.to_string())) {
                Ok(loaded) => {
                    let changed = self.loaded.load().digest != loaded.digest;
                    if changed || problem.take().is_some() {
                        self.loaded.store(Arc::new(loaded));
                        tracing::info!(certificates = self.settings.certificates.len(), "certificates read again");
                    }
                }
                Err(new) if problem.as_ref() == Some(&new) => {}
                Err(new) => {
                    tracing::warn!(problem = new, "certificates not changed");
                    problem = Some(new);
                }
            }
        }
    }
}

/// What a client is after its handshake: the subject of its certificate (RFC 4514), if it has one.
pub fn subject(stream: &tokio_rustls::TlsStream<TcpStream>) -> Option<Arc<str>> {
    let certificate = stream.get_ref().1.peer_certificates()?.first()?;
    let certificate = x509_cert::Certificate::from_der(certificate).ok()?;
    Some(certificate.tbs_certificate().subject().to_string().into())
}

fn load(settings: &Settings, tickets: Arc<dyn ProducesTickets>) -> Result<Loaded, String> {
    let mut digests = String::new();
    let mut read = |file: &PathBuf| {
        let bytes = super::read(file)?;
        digests.push_str(&digest::full(&bytes));
        Ok::<_, String>(bytes)
    };
    let keys = settings.certificates.iter().map(|pair| {
        let chain = super::certificates(&pair.chain, &read(&pair.chain)?)?;
        let key = super::key(&pair.key, &read(&pair.key)?)?;
        let foreseen = chain.first().and_then(|certificate| problem::foreseen(certificate));
        let certified = CertifiedKey::from_der(chain, key, &PROVIDER);
        let certified = certified.map_err(|error| super::does_not_go_with(pair, &error))?;
        if let Some(problem) = foreseen {
            tracing::warn!(file = %pair.chain.display(), problem, "most clients will refuse it");
        }
        Ok(Arc::new(certified))
    });
    let keys = keys.collect::<Result<Vec<_>, String>>()?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&PROVIDER));
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    let builder = match &settings.client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let roots = super::authorities(file, &read(file)?)?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&PROVIDER));
            let verifier = if settings.client_required { verifier } else { verifier.allow_unauthenticated() };
            let verifier = verifier.build().map_err(|error| format!("{}: {error}", file.display()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(ByName(keys)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = tickets;
    Ok(Loaded { config: Arc::new(config), digest: digest::short(digests.as_bytes()) })
}

/// The first certificate that is for the name, and that the client can verify; else the first one.
#[derive(Debug)]
struct ByName(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let is_for = |key: &CertifiedKey| {
            let (Some(name), Some(certificate)) = (&name, key.cert.first()) else { return false };
            let certificate = webpki::EndEntityCert::try_from(certificate);
            certificate.is_ok_and(|certificate| certificate.verify_is_valid_for_subject_name(name).is_ok())
        };
        let usable = |key: &CertifiedKey| key.key.choose_scheme(hello.signature_schemes()).is_some();
        let keys = || self.0.iter().filter(|key| usable(key));
        keys().find(|key| is_for(key)).or_else(|| keys().next()).cloned()
    }
}
