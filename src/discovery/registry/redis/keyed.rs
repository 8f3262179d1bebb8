//! Commands on one key each, whichever server holds it: for whoever writes. Connects when it is needed, asks anew who
//! holds what when a server says that it is another, and again after a failure.

use super::slots::Master;
use super::{Client, Connection};
use crate::discovery::registry::Failure;
use redis::{Cmd, ServerErrorKind, Value};
use std::time::Duration;
use tokio::sync::Mutex;

/// Commands on single keys. May be shared: they go out side by side.
#[derive(Debug)]
pub struct Keyed {
    client: Client,
    known: Mutex<Links>,
}

/// Who holds what, and the connections with them.
#[derive(Debug, Default)]
struct Links {
    masters: Vec<Master>,
    connections: Vec<Connection>,
}

impl Keyed {
    /// Nothing is connected yet.
    pub fn new(client: Client) -> Self {
        Keyed { client, known: Mutex::default() }
    }

    /// Writes a value that ends after `ttl`, whole milliseconds, one at least. What was there before, if anything: in the
    /// same step, so that who renews a key learns that it was gone.
    ///
    /// # Errors
    /// It is not known to have been written.
    pub async fn set(&self, key: &[u8], value: &[u8], ttl: Duration) -> Result<Option<Vec<u8>>, Failure> {
        let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX >> 1).max(1);
        let mut command = redis::cmd("SET");
        command.arg(key).arg(value).arg("PX").arg(ttl).arg("GET");
        match self.ask(key, &command).await? {
            Value::BulkString(before) => Ok(Some(before)),
            _ => Ok(None),
        }
    }

    /// Takes a key away. Was it there?
    ///
    /// # Errors
    /// It may still be there.
    pub async fn delete(&self, key: &[u8]) -> Result<bool, Failure> {
        let answer = self.ask(key, redis::cmd("DEL").arg(key)).await?;
        Ok(answer == Value::Int(1))
    }

    /// A command on this key. It is sent twice where a connection from before broke, so the server may have done it twice.
    ///
    /// # Errors
    /// The server refuses it, or does not answer.
    pub async fn ask(&self, key: &[u8], command: &Cmd) -> Result<Value, Failure> {
        let (connection, fresh) = self.connection(key).await?;
        match self.once(&connection, command).await {
            Ok(Answer::Is(value)) => Ok(value),
            Ok(Answer::Elsewhere(_)) => self.anew(key, command).await,
            Err(_) if !fresh => self.anew(key, command).await,
            Err(failure) => Err(failure),
        }
    }

    async fn anew(&self, key: &[u8], command: &Cmd) -> Result<Value, Failure> {
        let (connection, _) = self.connection(key).await?;
        match self.once(&connection, command).await? {
            Answer::Is(value) => Ok(value),
            Answer::Elsewhere(failure) => Err(failure),
        }
    }

    async fn once(&self, connection: &Connection, command: &Cmd) -> Result<Answer, Failure> {
        let mut one = redis::Pipeline::new();
        one.add_command(command.clone());
        let answer = connection.ask_all(&one).await;
        let elsewhere =
            |kind| matches!(kind, Some(ServerErrorKind::Moved | ServerErrorKind::Ask | ServerErrorKind::ReadOnly));
        match answer.map(|answers| answers.into_iter().next().unwrap_or(Value::Nil)) {
            Ok(Value::ServerError(error)) => {
                let moved = elsewhere(error.kind());
                let failure = connection.failure(&error.into());
                if moved {
                    self.forget(connection).await;
                    return Ok(Answer::Elsewhere(failure));
                }
                Err(failure)
            }
            Ok(value) => Ok(Answer::Is(value)),
            Err(failure) => {
                self.forget(connection).await;
                Err(failure)
            }
        }
    }

    /// With whoever holds the key; and whether it was made for this.
    async fn connection(&self, key: &[u8]) -> Result<(Connection, bool), Failure> {
        let mut known = self.known.lock().await;
        if known.masters.is_empty() {
            known.masters = self.client.find().await?;
        }
        let master = known.masters.iter().find(|master| master.holds(key)).or(known.masters.first());
        let address = master.map(|master| master.address.clone()).unwrap_or_default();
        if let Some(connection) = known.connections.iter().find(|connection| connection.address() == address) {
            return Ok((connection.clone(), false));
        }
        match self.client.connect(&address, None).await {
            Ok(connection) => {
                known.connections.push(connection.clone());
                Ok((connection, true))
            }
            Err(failure) => {
                // Perhaps another is there by now.
                known.masters.clear();
                Err(failure)
            }
        }
    }

    async fn forget(&self, connection: &Connection) {
        let mut known = self.known.lock().await;
        known.connections.retain(|one| one.id() != connection.id());
        known.masters.clear();
    }
}

enum Answer {
    Is(Value),
    /// Another server has it.
    Elsewhere(Failure),
}
