//! TLS with endpoints: who they must prove to be, and who the gateway says that it is.

use super::{PROVIDER, Pair, Socket, problem};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How a service's endpoints are spoken to over TLS. They always have to prove who they are: there is no way to go
/// without, since a `ca` of one's own is one line.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Whose certificate they show, and what SNI says; none: their address.
    pub server_name: Option<String>,
    /// Authorities that are trusted; none: those of the system.
    pub ca: Option<PathBuf>,
    /// What the gateway proves itself with.
    pub certificate: Option<Pair>,
}

impl Settings {
    /// The same with its paths, which are relative to `folder`.
    pub fn at(self, folder: &Path) -> Self {
        let ca = self.ca.map(|file| folder.join(file));
        Settings { ca, certificate: self.certificate.map(|pair| pair.at(folder)), ..self }
    }
}

/// Makes handshakes with a service's endpoints. Equal to another one if both would do just the same.
#[derive(Debug)]
pub struct Connector {
    /// Of its settings and its files' content: 12 hex digits.
    pub digest: String,
    /// All that it was read from.
    pub files: Vec<PathBuf>,
    name: Option<ServerName<'static>>,
    http2: bool,
    config: Arc<ClientConfig>,
}

impl Eq for Connector {}

impl PartialEq for Connector {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Connector {
    /// Reads the files. `http2`: ALPN says `h2` rather than `http/1.1`, and an endpoint must agree.
    ///
    /// # Errors
    /// Which of the settings or files is wrong, and why.
    pub fn new(settings: &Settings, http2: bool) -> Result<Self, String> {
        let mut digested = format!("{settings:?} {http2}").into_bytes();
        let mut files = Vec::new();
        let mut read = |file: &PathBuf| {
            let bytes = super::read(file)?;
            digested.extend_from_slice(crate::base::digest::full(&bytes).as_bytes());
            files.push(file.clone());
            Ok::<_, String>(bytes)
        };
        let name = settings.server_name.as_ref().map(|name| {
            let parsed = ServerName::try_from(name.clone());
            parsed.map_err(|_| format!("server_name: `{name}` is no host name or IP address"))
        });
        let name = name.transpose()?;
        let roots = match &settings.ca {
            Some(file) => Arc::new(super::authorities(file, &read(file)?)?),
            None => system()?,
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER));
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
        let builder = builder.with_root_certificates(roots);
        let mut config = match &settings.certificate {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let chain = super::certificates(&pair.chain, &read(&pair.chain)?)?;
                let key = super::key(&pair.key, &read(&pair.key)?)?;
                builder.with_client_auth_cert(chain, key).map_err(|error| super::does_not_go_with(pair, &error))?
            }
        };
        config.alpn_protocols = vec![if http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        let digest = crate::base::digest::short(&digested);
        Ok(Connector { digest, files, name, http2, config: Arc::new(config) })
    }

    /// The same for what is not HTTP: nothing is said of a protocol.
    pub fn without_alpn(mut self) -> Self {
        Arc::make_mut(&mut self.config).alpn_protocols.clear();
        self
    }

    async fn handshake(&self, stream: TcpStream, address: SocketAddr) -> io::Result<Socket> {
        let name = self.name.clone().unwrap_or_else(|| ServerName::from(address.ip()));
        let stream = TlsConnector::from(Arc::clone(&self.config)).connect(name, stream).await?;
        // RFC 9113 §3.2: HTTP/2 over TLS is agreed on. HTTP/1.1 may go without saying.
        if self.http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(io::Error::other("the endpoint does not speak HTTP/2 over TLS: it did not agree on `h2`"));
        }
        Ok(Socket::Tls(Box::new(stream.into())))
    }
}

/// A connection with an endpoint, ready for HTTP.
///
/// # Errors
/// Why there is none.
pub async fn connect(address: SocketAddr, tls: Option<&Connector>) -> io::Result<Socket> {
    let stream = TcpStream::connect(address).await?;
    // Nagle's algorithm would hold back the last part of each head by up to 40 ms.
    let _ = stream.set_nodelay(true);
    match tls {
        None => Ok(Socket::Plain(stream)),
        Some(tls) => {
            let told = |error| io::Error::other(format!("TLS handshake: {}", problem::in_words(&error)));
            tls.handshake(stream, address).await.map_err(told)
        }
    }
}

/// The system has no more sockets, files or ports for us, which says nothing of whom we wanted to reach.
pub fn out_of_sockets(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let ours = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
    error.raw_os_error().is_some_and(|code| ours.iter().any(|errno| errno.raw_os_error() == code))
}

/// The authorities that the system trusts, read once.
fn system() -> Result<Arc<RootCertStore>, String> {
    static SYSTEM: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let roots = SYSTEM.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(roots)
    });
    if roots.is_empty() {
        return Err("this system trusts no authorities: install its ca-certificates, or name a `ca`".into());
    }
    Ok(Arc::clone(roots))
}
