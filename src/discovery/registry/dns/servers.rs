//! The servers that are asked: those that are named, or the system's resolvers, which are looked up again and again.

use crate::base::files;
use crate::discovery::registry::members::OneOrMore;
use crate::discovery::registry::{Failure, Kind};
use hickory_resolver::config::{NameServerConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::system_conf::parse_resolv_conf;
use hickory_resolver::{NameServerPool, PoolContext, TlsConfig};
use serde::Deserialize;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long one server is waited for, before another is asked, or the same once more: one that has come back in between
/// has never heard of the question.
const PATIENCE: Duration = Duration::from_millis(500);
/// Questions at once on one connection.
const AT_ONCE: usize = 1024;
/// Where DNS listens, if nobody says so.
const PORT: u16 = 53;
/// Where the system's resolvers stand, how much of it is read, bytes, and for how long it is believed.
const SYSTEM: &str = "/etc/resolv.conf";
const MOST: u64 = 64 << 10;
const BELIEVED: Duration = Duration::from_secs(30);

/// Whom to ask, and how long.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Raw")]
pub struct Settings {
    /// In the order in which they are asked; none: the system's resolvers.
    pub server: Vec<SocketAddr>,
    /// For all that belongs to one lookup: 100 ms to 60 s.
    pub timeout: Duration,
}

impl Settings {
    /// Servers as they are written under another key.
    ///
    /// # Errors
    /// Which of them is none, or that there is none.
    pub fn named(key: &str, written: OneOrMore) -> Result<Self, String> {
        Ok(Settings { server: addresses(key, written)?, ..Settings::default() })
    }
}

impl Default for Settings {
    fn default() -> Self {
        Settings { server: Vec::new(), timeout: timeout() }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    server: Option<OneOrMore>,
    #[serde(default = "timeout", with = "crate::base::duration")]
    timeout: Duration,
}

fn timeout() -> Duration {
    Duration::from_secs(2)
}

impl TryFrom<Raw> for Settings {
    type Error = String;

    fn try_from(raw: Raw) -> Result<Self, String> {
        let server = match raw.server {
            None => Vec::new(),
            Some(written) => addresses("server", written)?,
        };
        if !(Duration::from_millis(100)..=Duration::from_secs(60)).contains(&raw.timeout) {
            let given = humantime::format_duration(raw.timeout);
            return Err(format!("`timeout`: {given} is not between 100ms and 60s"));
        }
        Ok(Settings { server, timeout: raw.timeout })
    }
}

/// Servers as they are written under this key: `IP:PORT` each, or `IP`.
///
/// # Errors
/// Which of them is none, or that there is none.
fn addresses(key: &str, written: OneOrMore) -> Result<Vec<SocketAddr>, String> {
    let written = Vec::from(written);
    if written.is_empty() {
        return Err(format!("`{key}`: names no server; leave it out to ask the system's resolvers"));
    }
    let address = |text: &String| {
        let address = text.parse().or_else(|_| text.parse().map(|ip: IpAddr| SocketAddr::new(ip, PORT)));
        address.ok().filter(|address| address.port() > 0 && !address.ip().is_unspecified())
    };
    let read = |text| address(text).ok_or_else(|| format!("`{key}`: `{text}` is not IP:PORT, like `10.0.0.10:53`"));
    written.iter().map(read).collect()
}

/// One server.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) pool: NameServerPool<TokioRuntimeProvider>,
}

impl Server {
    fn new(address: SocketAddr) -> Result<Self, String> {
        let mut config = NameServerConfig::udp_and_tcp(address.ip());
        config.connections.iter_mut().for_each(|connection| connection.port = address.port());
        let mut options = ResolverOpts::default();
        options.timeout = PATIENCE;
        options.max_active_requests = AT_ONCE;
        let tls = TlsConfig::new().map_err(|error| error.to_string())?;
        let context = Arc::new(PoolContext::new(options, tls));
        Ok(Server { address, pool: NameServerPool::from_config([config], context, TokioRuntimeProvider::new()) })
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)
    }
}

/// Servers with the one that answered last.
#[derive(Debug)]
pub(super) struct Group {
    servers: Vec<Server>,
    first: AtomicUsize,
}

impl Group {
    fn new(addresses: &[SocketAddr]) -> Result<Self, String> {
        let servers = addresses.iter().map(|address| Server::new(*address)).collect::<Result<_, _>>()?;
        Ok(Group { servers, first: AtomicUsize::new(0) })
    }

    /// All of them, with their places: first the one that is preferred, and so on from there.
    pub(super) fn in_turn(&self) -> impl Iterator<Item = (usize, &Server)> {
        let all = self.servers.iter().enumerate();
        all.cycle().skip(self.first.load(Relaxed)).take(self.servers.len())
    }

    /// This one has answered.
    pub(super) fn prefer(&self, place: usize) {
        self.first.store(place, Relaxed);
    }
}

/// Whom to ask now.
#[derive(Debug)]
pub(super) struct Servers {
    named: Vec<SocketAddr>,
    now: Mutex<Option<(Instant, Arc<Group>)>>,
}

impl Servers {
    pub(super) fn new(settings: Settings) -> Self {
        Servers { named: settings.server, now: Mutex::new(None) }
    }

    /// Those to ask; no more than one group at a time is kept, with its connections.
    ///
    /// # Errors
    /// The system names none.
    pub(super) async fn get(&self) -> Result<Arc<Group>, Failure> {
        let known = self.now.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((read, group)) = &known
            && (!self.named.is_empty() || read.elapsed() < BELIEVED)
        {
            return Ok(Arc::clone(group));
        }
        let addresses = if self.named.is_empty() { system().await } else { Ok(self.named.clone()) };
        let same = |group: &Arc<Group>| {
            let known = group.servers.iter().map(|server| server.address);
            addresses.as_ref().is_ok_and(|addresses| known.eq(addresses.iter().copied()))
        };
        let group = match known.map(|(_, group)| group).filter(same) {
            Some(group) => Ok(group),
            None => addresses.and_then(|addresses| Group::new(&addresses)).map(Arc::new),
        };
        let group = group.map_err(|problem| Failure::new(Kind::Unreachable, problem))?;
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), Arc::clone(&group)));
        Ok(group)
    }
}

/// The system's resolvers.
async fn system() -> Result<Vec<SocketAddr>, String> {
    let text = files::read_text_beside(Path::new(SYSTEM), MOST).await;
    let text = text.map_err(|error| format!("{SYSTEM}: cannot be read: {error}"))?;
    let (config, _) = parse_resolv_conf(text).map_err(|error| format!("{SYSTEM}: {error}"))?;
    Ok(config.name_servers().iter().map(|server| SocketAddr::new(server.ip, PORT)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings, String> {
        toml::from_str(text).map_err(|error: toml::de::Error| error.message().to_owned())
    }

    #[test]
    fn servers_are_read() {
        assert_eq!(read("").unwrap(), Settings::default());
        let settings = read("server = ['10.0.0.10', '[::1]:5353', '::1']\ntimeout = '1s'").unwrap();
        let shown: Vec<String> = settings.server.iter().map(SocketAddr::to_string).collect();
        assert_eq!(shown, ["10.0.0.10:53", "[::1]:5353", "[::1]:53"]);
        for (text, problem) in [
            ("server = 'dns.internal:53'", "`server`: `dns.internal:53` is not IP:PORT, like `10.0.0.10:53`"),
            ("server = '10.0.0.10:0'", "is not IP:PORT"),
            ("server = '0.0.0.0'", "is not IP:PORT"),
            ("server = []", "names no server"),
            ("timeout = '5ms'", "`timeout`: 5ms is not between 100ms and 60s"),
            ("retries = 1", "unknown field `retries`"),
        ] {
            let told = read(text).unwrap_err();
            assert!(told.contains(problem), "{text} gave {told}");
        }
    }

    #[tokio::test]
    async fn the_systems_resolvers_are_kept_or_their_file_is_named() {
        let servers = Servers::new(Settings::default());
        match (servers.get().await, servers.get().await) {
            (Ok(first), Ok(second)) => assert!(Arc::ptr_eq(&first, &second)),
            (Err(failure), _) | (_, Err(failure)) => assert!(failure.problem.starts_with(SYSTEM), "{failure}"),
        }
    }

    #[tokio::test]
    async fn whoever_answered_is_asked_first() {
        let group =
            Group::new(&["10.0.0.1:53", "10.0.0.2:53", "10.0.0.3:53"].map(|text| text.parse().unwrap())).unwrap();
        let order = || group.in_turn().map(|(place, _)| place).collect::<Vec<_>>();
        assert_eq!(order(), [0, 1, 2]);
        group.prefer(2);
        assert_eq!(order(), [2, 0, 1]);
    }
}
