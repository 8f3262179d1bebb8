//! The servers that are followed: one, or each master of a cluster, which tells of its own keys only. How each tells of
//! changes is found out when it is connected.

use super::names::Names;
use super::read::can_read_parts;
use crate::discovery::registry::redis::{Client, Connection, Master, Pushes, Subscription};
use crate::discovery::registry::{Failure, Kind};
use redis::{Pipeline, Value};
use std::fmt;

/// A server that is followed.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) connection: Connection,
    pub(super) master: Master,
    pub(super) way: Way,
    /// The beginning of a value may be asked for.
    pub(super) parts: bool,
    /// Where changes are heard of, unless on the connection itself.
    subscription: Option<Subscription>,
}

/// How a server tells of changes, from the best on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// Client-side tracking in broadcast mode: it tells of each, at once.
    Tracking,
    /// Keyspace notifications, which are switched on; it says nothing of a flush.
    Notifications,
    /// The same, but they may be switched off: it does not say.
    MaybeNotifications,
    /// It does not: its keys are looked through again and again.
    Scan,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Way::Tracking => "client-side tracking",
            Way::Notifications => "keyspace notifications",
            Way::MaybeNotifications => "keyspace notifications, should they be on, and a scan",
            Way::Scan => "a scan",
        })
    }
}

impl Server {
    /// Connects, and asks to be told of changes, so that none is missed between now and the first list. With why it is
    /// not the best way, where it is not.
    ///
    /// # Errors
    /// Why it cannot be followed.
    pub(super) async fn connect(
        client: &Client,
        master: Master,
        names: &Names,
        pushes: &Pushes,
    ) -> Result<(Self, String), Failure> {
        let connection = client.connect(&master.address, Some(pushes)).await?;
        if client.has_sentinels() && connection.greeting.replica {
            // A master of before that nobody has told yet, or one that is about to be one.
            return Err(Failure::new(Kind::Unreachable, format!("{}: is no master", master.address)));
        }
        let parts = can_read_parts(&connection, &names.some_key()).await?;
        let (way, subscription, why) = Self::ask_for_changes(client, &connection, names, pushes).await?;
        Ok((Server { connection, master, way, parts, subscription }, why))
    }

    async fn ask_for_changes(
        client: &Client,
        connection: &Connection,
        names: &Names,
        pushes: &Pushes,
    ) -> Result<(Way, Option<Subscription>, String), Failure> {
        let mut why = "it does not speak RESP3".to_owned();
        if connection.greeting.resp3 {
            let mut track = Pipeline::new();
            track.cmd("CLIENT").arg("TRACKING").arg("ON").arg("BCAST");
            for prefix in names.tracked() {
                track.arg("PREFIX").arg(prefix);
            }
            match refusal(connection, &track).await? {
                None => return Ok((Way::Tracking, None, String::new())),
                Some(refusal) => why = refusal.problem,
            }
        }
        let mut ask = Pipeline::new();
        ask.cmd("CONFIG").arg("GET").arg("notify-keyspace-events");
        let way = match connection.ask_all(&ask).await?.first().and_then(flags) {
            Some(flags) if !tells_enough(&flags) => {
                why.push_str("; and `notify-keyspace-events` is not \"AK\"");
                return Ok((Way::Scan, None, why));
            }
            Some(_) => Way::Notifications,
            None => Way::MaybeNotifications,
        };
        let channels = names.channels(client.database());
        let refused = if connection.greeting.resp3 {
            let mut subscribe = Pipeline::new();
            subscribe.cmd("PSUBSCRIBE").arg(&channels);
            refusal(connection, &subscribe).await?
        } else {
            match client.subscribe(connection.address(), &channels, pushes).await {
                Ok(subscription) => return Ok((way, Some(subscription), why)),
                Err(failure) if matches!(failure.kind, Kind::Denied | Kind::BadAnswer) => Some(failure),
                Err(failure) => return Err(failure),
            }
        };
        Ok(match refused {
            None => (way, None, why),
            Some(refusal) => (Way::Scan, None, format!("{why}; and {}", refusal.problem)),
        })
    }

    /// Is it there, and is what it is heard on?
    ///
    /// # Errors
    /// It is not.
    pub(super) async fn ping(&mut self) -> Result<(), Failure> {
        self.connection.ping().await?;
        match &mut self.subscription {
            Some(subscription) => subscription.ping().await,
            None => Ok(()),
        }
    }

    /// One of its connections is that.
    pub(super) fn has(&self, connection: u64) -> bool {
        self.connection.id() == connection || self.subscription.as_ref().is_some_and(|one| one.id == connection)
    }
}

/// What the server has against one command, which may be answered by more than one message.
async fn refusal(connection: &Connection, command: &Pipeline) -> Result<Option<Failure>, Failure> {
    Ok(match connection.ask_all(command).await?.into_iter().next() {
        Some(Value::ServerError(error)) => Some(connection.failure(&error.into())),
        _ => None,
    })
}

/// The value in an answer to `CONFIG GET`.
fn flags(answer: &Value) -> Option<String> {
    let value = match answer {
        Value::Map(pairs) => &pairs.first()?.1,
        Value::Array(pair) => pair.get(1)?,
        _ => return None,
    };
    match value {
        Value::BulkString(flags) => Some(String::from_utf8_lossy(flags).into_owned()),
        Value::SimpleString(flags) => Some(flags.clone()),
        _ => None,
    }
}

/// Channels by key, for general commands, texts, hashes, and keys that end or are driven out.
fn tells_enough(flags: &str) -> bool {
    let has = |flag| flags.contains(flag);
    has('K') && (has('A') || ['g', '$', 'h', 'x', 'e'].into_iter().all(has))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notifications_have_to_tell_of_all_that_matters() {
        for (flags, enough) in
            [("AK", true), ("KEA", true), ("g$hxeK", true), ("", false), ("AE", false), ("Kx$", false)]
        {
            assert_eq!(tells_enough(flags), enough, "{flags}");
        }
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        assert_eq!(flags(&Value::Map(vec![(text("notify-keyspace-events"), text("AK"))])).as_deref(), Some("AK"));
        assert_eq!(flags(&Value::Array(vec![text("notify-keyspace-events"), text("")])).as_deref(), Some(""));
        assert_eq!(flags(&Value::Map(vec![])).or(flags(&Value::Array(vec![]))).or(flags(&Value::Nil)), None);
    }
}
