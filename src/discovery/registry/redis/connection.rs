//! A connection with one server: who both are is said, and then commands go out and answers come in, many at a time.

use super::bounded::{Bounded, Meter};
use super::failure;
use super::pushes::{Pushes, key_of};
use crate::base::secret::Secret;
use crate::discovery::registry::members::{CONNECT, dial};
use crate::discovery::registry::{Failure, Kind};
use crate::http::tls::client;
use redis::aio::{MultiplexedConnection, PubSub, PubSubSink};
use redis::{AsyncConnectionConfig, Cmd, Pipeline, ProtocolVersion, PushInfo, RedisConnectionInfo, RedisError, Value};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::codegen::tokio_stream::StreamExt;

/// In which a command is answered.
const ANSWER: Duration = Duration::from_secs(3);
/// In which a ping is.
const PING: Duration = Duration::from_secs(1);

static IDS: AtomicU64 = AtomicU64::new(0);

/// How a server is spoken to.
#[derive(Debug, Clone)]
pub(super) struct Manner {
    /// User, where it is not the default one, and password.
    pub(super) login: Option<(Option<String>, Secret)>,
    pub(super) database: u32,
    pub(super) tls: Option<client::Settings>,
}

/// A connection with one server. All clones are one connection, which ends with the last of them.
#[derive(Debug, Clone)]
pub struct Connection {
    address: String,
    id: u64,
    link: MultiplexedConnection,
    meter: Meter,
    secret: Option<Secret>,
    /// What the server said of itself.
    pub greeting: Greeting,
    /// Carries the bytes.
    _driver: Arc<JoinSet<()>>,
}

/// What a server says of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Greeting {
    /// It speaks RESP3, so it can say something unasked.
    pub resp3: bool,
    /// It is one of a cluster.
    pub cluster: bool,
    /// It follows a master.
    pub replica: bool,
}

impl Greeting {
    fn read(answer: &Value) -> Self {
        let text = |value: &Value| match value {
            Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Value::SimpleString(text) => text.clone(),
            _ => String::new(),
        };
        let Value::Map(pairs) = answer else { return Greeting { resp3: true, ..Greeting::default() } };
        let says = |key: &str, said: &[&str]| {
            pairs.iter().any(|(name, value)| text(name) == key && said.contains(&text(value).as_str()))
        };
        Greeting { resp3: true, cluster: says("mode", &["cluster"]), replica: says("role", &["replica", "slave"]) }
    }
}

impl Connection {
    /// Connects and says who the gateway is: in RESP3, else in RESP2. What the server says unasked goes to `pushes`.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn open(address: &str, manner: &Manner, pushes: Option<&Pushes>) -> Result<Self, Failure> {
        let secret = manner.login.as_ref().map(|(_, secret)| secret.clone());
        let told = |error: &RedisError| failure::of(address, error, secret.as_ref());
        let (mut connection, resp3) = match Self::greet(address, manner, pushes, ProtocolVersion::RESP3).await? {
            Ok(connection) => (connection, true),
            Err(error) if failure::may_speak_resp2(&error) => {
                let greeted = Self::greet(address, manner, None, ProtocolVersion::RESP2).await?;
                (greeted.map_err(|error| told(&error))?, false)
            }
            Err(error) => return Err(told(&error)),
        };
        if resp3 {
            connection.greeting = Greeting::read(&connection.ask(&redis::cmd("HELLO")).await?);
        }
        Ok(connection)
    }

    /// A sentinel's, which may have no users, and keeps no keys.
    pub(super) async fn plain(address: &str, manner: &Manner) -> Result<Self, Failure> {
        let greeted = Self::greet(address, manner, None, ProtocolVersion::RESP2).await?;
        greeted.map_err(|error| failure::of(address, &error, manner.login.as_ref().map(|(_, secret)| secret)))
    }

    async fn greet(
        address: &str,
        manner: &Manner,
        pushes: Option<&Pushes>,
        protocol: ProtocolVersion,
    ) -> Result<Result<Self, RedisError>, Failure> {
        let (socket, meter) = Self::socket(address, manner).await?;
        let id = IDS.fetch_add(1, Relaxed);
        let mut config = AsyncConnectionConfig::new().set_response_timeout(Some(ANSWER));
        if let Some(pushes) = pushes.cloned() {
            config = config.set_push_sender(move |push: PushInfo| {
                pushes.take(id, push);
                Ok::<(), ()>(())
            });
        }
        let info = manner.info(protocol);
        let opened = timeout(CONNECT, MultiplexedConnection::new_with_config(&info, socket, config)).await;
        let opened = opened.map_err(|_| Failure::new(Kind::Silent, format!("{address}: no greeting in time")))?;
        if meter.is_over() {
            return Err(failure::too_large(address));
        }
        Ok(opened.map(|(link, driver)| {
            let mut task = JoinSet::new();
            task.spawn(driver);
            let secret = manner.login.as_ref().map(|(_, secret)| secret.clone());
            let (address, greeting) = (address.to_owned(), Greeting::default());
            Connection { address, id, link, meter, secret, greeting, _driver: Arc::new(task) }
        }))
    }

    async fn socket(address: &str, manner: &Manner) -> Result<(Bounded<crate::http::tls::Socket>, Meter), Failure> {
        let meter = Meter::default();
        let inner = dial(address, manner.tls.as_ref(), false).await?;
        Ok((Bounded { inner, meter: meter.clone() }, meter))
    }

    /// With whom, as `HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its number, which no other has.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// One command, one answer.
    ///
    /// # Errors
    /// The server refuses it, or does not answer.
    pub async fn ask(&self, command: &Cmd) -> Result<Value, Failure> {
        self.meter.start();
        let answer = self.link.clone().send_packed_command(command).await.and_then(Value::extract_error);
        answer.map_err(|error| self.failure(&error))
    }

    /// More of them at once. What the server refuses stands in the answers, as [`Value::ServerError`].
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn ask_all(&self, commands: &Pipeline) -> Result<Vec<Value>, Failure> {
        if commands.is_empty() {
            return Ok(vec![]);
        }
        self.meter.start();
        let answers = self.link.clone().send_packed_commands(commands, 0, commands.len()).await;
        answers.map_err(|error| self.failure(&error))
    }

    /// Is it there? It has a second to say so.
    ///
    /// # Errors
    /// It is not.
    pub async fn ping(&self) -> Result<(), Failure> {
        match timeout(PING, self.ask(&redis::cmd("PING"))).await {
            Ok(answer) => answer.map(drop),
            Err(_) => Err(Failure::new(Kind::Silent, format!("{}: no answer to a ping in time", self.address))),
        }
    }

    /// What a server's error means.
    pub fn failure(&self, error: &RedisError) -> Failure {
        if self.meter.is_over() {
            return failure::too_large(&self.address);
        }
        failure::of(&self.address, error, self.secret.as_ref())
    }
}

impl Manner {
    fn info(&self, protocol: ProtocolVersion) -> RedisConnectionInfo {
        let mut info = RedisConnectionInfo::default().set_protocol(protocol).set_skip_set_lib_name();
        info = info.set_db(i64::from(self.database));
        match &self.login {
            Some((Some(user), secret)) => info.set_username(user).set_password(secret.expose()),
            Some((None, secret)) => info.set_password(secret.expose()),
            None => info,
        }
    }
}

/// A connection that only listens, for servers that speak RESP2.
#[derive(Debug)]
pub struct Subscription {
    address: String,
    /// As [`Connection::id`].
    pub id: u64,
    sink: PubSubSink,
    /// Carries what is heard.
    _task: JoinSet<()>,
}

impl Subscription {
    pub(super) async fn open(address: &str, manner: &Manner, channels: &str, pushes: &Pushes) -> Result<Self, Failure> {
        let (socket, _) = Connection::socket(address, manner).await?;
        let secret = manner.login.as_ref().map(|(_, secret)| secret);
        let info = manner.info(ProtocolVersion::RESP2);
        let subscribe = async {
            let (mut sink, stream) = PubSub::new(&info, socket).await?.split();
            sink.psubscribe(channels).await?;
            Ok((sink, stream))
        };
        let subscribed = timeout(CONNECT, subscribe).await;
        let subscribed = subscribed.map_err(|_| Failure::new(Kind::Silent, format!("{address}: no answer in time")))?;
        let (sink, mut stream) = subscribed.map_err(|error: RedisError| failure::of(address, &error, secret))?;
        let (id, pushes, mut task) = (IDS.fetch_add(1, Relaxed), pushes.clone(), JoinSet::new());
        task.spawn(async move {
            while let Some(message) = stream.next().await {
                let channel = message.get_channel::<Vec<u8>>().unwrap_or_default();
                if let Some(key) = key_of(&channel) {
                    pushes.key(key.to_vec());
                }
            }
            pushes.ended(id);
        });
        Ok(Subscription { address: address.to_owned(), id, sink, _task: task })
    }

    /// As [`Connection::ping`].
    ///
    /// # Errors
    /// It is not there.
    pub async fn ping(&mut self) -> Result<(), Failure> {
        match timeout(PING, self.sink.ping::<Value>()).await {
            Ok(answer) => answer.map(drop).map_err(|error| failure::of(&self.address, &error, None)),
            Err(_) => Err(Failure::new(Kind::Silent, format!("{}: no answer to a ping in time", self.address))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_says_what_a_server_is() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let says = |mode: &str, role: &str| {
            Greeting::read(&Value::Map(vec![
                (text("proto"), Value::Int(3)),
                (text("mode"), text(mode)),
                (Value::SimpleString("role".to_owned()), text(role)),
            ]))
        };
        let plain = Greeting { resp3: true, ..Greeting::default() };
        assert_eq!(says("standalone", "master"), plain);
        assert_eq!(says("cluster", "replica"), Greeting { cluster: true, replica: true, ..plain });
        assert_eq!(Greeting::read(&Value::Okay), plain);
    }
}
