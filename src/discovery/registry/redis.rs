//! Redis' and Valkey's client: where the servers are that hold the keys (one, a cluster's masters, or the master that
//! sentinels name), and connections with them. What a key means is the job of who asks.

mod bounded;
mod connection;
mod failure;
mod keyed;
mod pushes;
mod settings;
mod slots;

pub use connection::{Connection, Greeting, Subscription};
pub use keyed::Keyed;
pub use pushes::{News, Pushes};
pub use settings::Settings;
pub use slots::Master;

use super::{Failure, Kind};
use connection::Manner;
use redis::Value;
use std::sync::{Mutex, PoisonError};

/// Finds servers and connects with them.
#[derive(Debug)]
pub struct Client {
    settings: Settings,
    /// The addresses, that of whom answered last first; then what else of a cluster was seen.
    seeds: Mutex<Vec<String>>,
}

impl Client {
    /// It connects when it is asked for something.
    pub fn new(settings: Settings) -> Self {
        let seeds = Mutex::new(settings.address.clone());
        Client { settings, seeds }
    }

    /// The database's number.
    pub fn database(&self) -> u32 {
        self.settings.database
    }

    /// Sentinels say who the master is.
    pub fn has_sentinels(&self) -> bool {
        self.settings.sentinel.is_some()
    }

    /// A connection with a server.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn connect(&self, address: &str, pushes: Option<&Pushes>) -> Result<Connection, Failure> {
        Connection::open(address, &self.manner().await?, pushes).await
    }

    /// A second connection with a server that speaks RESP2, on which it is heard.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn subscribe(&self, address: &str, channels: &str, pushes: &Pushes) -> Result<Subscription, Failure> {
        Subscription::open(address, &self.manner().await?, channels, pushes).await
    }

    /// The servers that hold the keys. All addresses are asked, one after the other, until one knows; one at least is
    /// known then.
    ///
    /// # Errors
    /// What the last of them said.
    pub async fn find(&self) -> Result<Vec<Master>, Failure> {
        let seeds = self.seeds.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut last = Failure::new(Kind::Unreachable, "no address is known");
        for seed in seeds {
            match self.ask_one(&seed).await {
                Ok(masters) => {
                    self.remember(seed, &masters);
                    return Ok(masters);
                }
                Err(failure) => last = failure,
            }
        }
        Err(last)
    }

    fn remember(&self, answered: String, masters: &[Master]) {
        let mut seeds = vec![answered];
        let of_cluster = masters.iter().filter(|master| !master.slots.is_empty()).map(|master| &master.address);
        for address in self.settings.address.iter().chain(of_cluster) {
            if !seeds.contains(address) {
                seeds.push(address.clone());
            }
        }
        *self.seeds.lock().unwrap_or_else(PoisonError::into_inner) = seeds;
    }

    async fn ask_one(&self, address: &str) -> Result<Vec<Master>, Failure> {
        if let Some(master) = &self.settings.sentinel {
            return Ok(vec![Master::alone(self.ask_sentinel(address, master).await?)]);
        }
        let connection = self.connect(address, None).await?;
        match self.settings.cluster.unwrap_or(connection.greeting.cluster) {
            true => self.masters(&connection).await,
            false => Ok(vec![Master::alone(address)]),
        }
    }

    /// A cluster's masters, as one of its servers knows them.
    ///
    /// # Errors
    /// It refuses to say, or knows none.
    pub async fn masters(&self, connection: &Connection) -> Result<Vec<Master>, Failure> {
        let answer = connection.ask(redis::cmd("CLUSTER").arg("SLOTS")).await?;
        let masters = slots::masters(&answer, connection.address());
        if masters.is_empty() {
            let problem = format!("{}: the cluster has no masters yet", connection.address());
            return Err(Failure::new(Kind::Unreachable, problem));
        }
        Ok(masters)
    }

    async fn ask_sentinel(&self, address: &str, master: &str) -> Result<String, Failure> {
        let mut command = redis::cmd("SENTINEL");
        command.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
        // They seldom have users of their own; to log in where there are none is an error.
        let mut manner = self.manner().await?;
        manner.database = 0;
        let login = manner.login.take();
        let mut answer = Connection::plain(address, &manner).await?.ask(&command).await;
        if login.is_some() && answer.as_ref().is_err_and(|failure| failure.kind == Kind::Denied) {
            manner.login = login;
            answer = Connection::plain(address, &manner).await?.ask(&command).await;
        }
        let bad = |problem: &str| Failure::new(Kind::BadAnswer, format!("{address}: {problem}"));
        let (host, port) = match answer? {
            Value::Array(pair) => match <[Value; 2]>::try_from(pair) {
                Ok([Value::BulkString(host), Value::BulkString(port)]) => (host, port),
                _ => return Err(bad("what it says of the master is no address")),
            },
            Value::Nil => {
                return Err(bad(&format!("`{master}` is no master that this sentinel watches: check `sentinel`")));
            }
            _ => return Err(bad("it is no sentinel")),
        };
        let port = std::str::from_utf8(&port).ok().and_then(|port| port.parse().ok());
        let member = std::str::from_utf8(&host).ok().zip(port).and_then(|(host, port)| settings::member(host, port));
        member.ok_or_else(|| bad("what it says of the master is no address"))
    }

    /// The password is read anew for each connection, so a new one needs no restart.
    async fn manner(&self) -> Result<Manner, Failure> {
        let Settings { username, password, database, tls, .. } = &self.settings;
        let login = match password {
            None => None,
            Some(password) => {
                let secret = password.read().await.map_err(|problem| Failure::new(Kind::Denied, problem))?;
                Some((username.clone(), secret))
            }
        };
        Ok(Manner { login, database: *database, tls: tls.clone() })
    }
}
