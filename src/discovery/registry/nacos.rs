//! Nacos' client: one connection with one member over gRPC (its HTTP port and 1000), where lists are asked for and changes
//! are pushed. A connection is also what an ephemeral instance lives by. After the protocol of Nacos 2.x, which 3.x keeps.

mod login;
pub mod messages;

use super::grpc::Connection;
use super::members::{Members, Settings};
use super::{Failure, Kind};
use login::Token;
use messages::{Nothing, Payload, Push, Reply, ServiceInfo, Setup, Subscribe, Taken};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::codegen::tokio_stream::StreamExt;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;

/// The gRPC port is the HTTP port and this.
const GRPC: u16 = 1000;
/// For any answer but that of a health check.
const ANSWER: Duration = Duration::from_secs(3);
/// Between two health checks, and for the answer of one. HTTP/2's own pings are taken for an attack.
const BEAT: Duration = Duration::from_secs(5);
const BEAT_ANSWER: Duration = Duration::from_secs(2);
/// A connection is registered a moment after it is set up: so long, and as often, it is asked again.
const REGISTERED: Duration = Duration::from_secs(2);
const AGAIN: Duration = Duration::from_millis(20);
/// So many pushes wait until they are taken; the rest waits in the connection.
const PUSHES: usize = 64;
/// How much of what a server says is shown, characters.
const SHOWN: usize = 160;

/// The server does not know the connection (yet).
const UNREGISTERED: i32 = 301;
/// It may not be had.
const FORBIDDEN: i32 = 403;
/// The server has not started yet.
const STARTING: i32 = 300;

/// Knows the members, and who the gateway is to them.
#[derive(Debug)]
pub struct Client {
    members: Members,
    namespace: String,
}

/// A connection with a member.
#[derive(Debug)]
pub struct Session {
    member: String,
    namespace: String,
    connection: Connection,
    token: Option<Token>,
    /// When the token is half as old as it may become.
    renew: Option<Instant>,
    pushes: mpsc::Receiver<Told>,
    beat: Instant,
    /// The task that takes the pushes ends with the session.
    _task: JoinSet<()>,
}

/// What came over the stream.
#[derive(Debug)]
enum Told {
    Changed(ServiceInfo),
    Elsewhere,
    Unreadable,
    Ended(Failure),
}

/// What was heard.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// A service's instances, whole.
    Changed(ServiceInfo),
    /// The server lives.
    Beat,
    /// Nothing, in this time.
    Nothing,
}

impl Client {
    /// Speaks to one member at a time, of this namespace.
    ///
    /// # Errors
    /// A member's port leaves no room for that of gRPC.
    pub fn new(settings: Settings, namespace: &str) -> Result<Self, String> {
        for member in &settings.address {
            grpc_member(member)?;
        }
        Ok(Client { members: Members::new(settings), namespace: namespace.to_owned() })
    }

    /// Logs in, where there is a password, and connects with the member whose turn it is.
    ///
    /// # Errors
    /// Why not.
    pub async fn connect(&self) -> Result<Session, Failure> {
        let member = self.members.member().to_owned();
        let token = self.login(&member).await?;
        let tls = self.members.settings.tls.as_ref();
        let grpc = grpc_member(&member).map_err(|problem| Failure::new(Kind::BadAnswer, problem))?;
        let connection = Connection::open(&grpc, tls, None).await?;
        let (said, requests) = mpsc::channel(PUSHES);
        let (told, pushes) = mpsc::channel(PUSHES);
        let mut task = JoinSet::new();
        task.spawn(take(connection.clone(), ReceiverStream::new(requests), said.clone(), told));
        let namespace = self.namespace.clone();
        let (renew, beat) = (renew(token.as_ref()), Instant::now() + BEAT);
        let session = Session { member, namespace, connection, token, renew, pushes, beat, _task: task };
        session.ask("ServerCheckRequest", &Nothing {}, ANSWER).await?;
        let setup = Setup {
            client_version: concat!("Wayside:v", env!("CARGO_PKG_VERSION")),
            tenant: &session.namespace,
            labels: BTreeMap::from([("source", "sdk"), ("module", "naming")]),
            abilities: Nothing {},
        };
        let setup = session.payload("ConnectionSetupRequest", &setup);
        let _ = said.send(setup).await;
        Ok(session)
    }

    /// The next member is spoken to, after a failure.
    pub fn leave(&self) {
        self.members.next();
    }

    /// Logs in again where the token is old, or in any case.
    ///
    /// # Errors
    /// Why not.
    pub async fn renew(&self, session: &mut Session, any: bool) -> Result<(), Failure> {
        if any || session.renew.is_some_and(|at| at <= Instant::now()) {
            session.token = self.login(&session.member).await?;
            session.renew = renew(session.token.as_ref());
        }
        Ok(())
    }

    async fn login(&self, member: &str) -> Result<Option<Token>, Failure> {
        match self.members.login().await? {
            Some((username, password)) => {
                let token = login::login(member, self.members.settings.tls.as_ref(), &username, &password).await;
                token.map(Some).map_err(|Failure { kind, problem }| Failure::new(kind, password.redact(&problem)))
            }
            None => Ok(None),
        }
    }
}

fn renew(token: Option<&Token>) -> Option<Instant> {
    token.filter(|token| !token.lasts.is_zero()).map(|token| Instant::now() + token.lasts / 2)
}

/// A member's gRPC port.
fn grpc_member(member: &str) -> Result<String, String> {
    let none = || format!("`address`: `{member}` leaves no room for the port of gRPC, which is {GRPC} higher");
    let (host, port) = member.rsplit_once(':').ok_or_else(none)?;
    let port = port.parse().ok().and_then(|port: u16| port.checked_add(GRPC)).ok_or_else(none)?;
    Ok(format!("{host}:{port}"))
}

impl Session {
    /// A service's instances, whole, of all clusters; from now on, changes to them are told.
    ///
    /// # Errors
    /// Why not; `Denied` and `BadAnswer` are about this service alone.
    pub async fn subscribe(&self, group: &str, service: &str) -> Result<ServiceInfo, Failure> {
        let request = Subscribe {
            namespace: &self.namespace,
            service_name: service,
            group_name: group,
            subscribe: true,
            clusters: "",
        };
        let reply = self.ask("SubscribeServiceRequest", &request, ANSWER).await?;
        reply.service_info.ok_or_else(|| self.failure(Kind::BadAnswer, "the answer has no list"))
    }

    /// What changed, as soon as something did, or a sign of life; waits no longer than `until`.
    ///
    /// # Errors
    /// The connection failed, or the server is silent.
    pub async fn heard(&mut self, until: Instant) -> Result<Heard, Failure> {
        match timeout_at(until.min(self.beat), self.pushes.recv()).await {
            Ok(Some(Told::Changed(info))) => Ok(Heard::Changed(info)),
            Ok(Some(Told::Elsewhere)) => {
                Err(self.failure(Kind::Unreachable, "the server sends its clients to another one"))
            }
            Ok(Some(Told::Unreadable)) => Err(self.failure(Kind::BadAnswer, "what it pushes cannot be read")),
            Ok(Some(Told::Ended(failure))) => Err(failure),
            Ok(None) => Err(self.failure(Kind::Unreachable, "the stream ended")),
            Err(_) if Instant::now() >= self.beat => {
                self.ask("HealthCheckRequest", &Nothing {}, BEAT_ANSWER).await?;
                self.beat = Instant::now() + BEAT;
                Ok(Heard::Beat)
            }
            Err(_) => Ok(Heard::Nothing),
        }
    }

    /// One request, one answer, with success.
    ///
    /// # Errors
    /// What the server says, or that it says nothing.
    pub async fn ask(&self, kind: &str, request: &impl Serialize, within: Duration) -> Result<Reply, Failure> {
        let from = Instant::now();
        loop {
            let payload = self.payload(kind, request);
            let answer = self.connection.call::<Payload, Payload>("/Request/request", payload, within).await?;
            let reply = answer.read::<Reply>();
            let reply = reply.map_err(|_| self.failure(Kind::BadAnswer, "what it answers cannot be read"))?;
            let kind = match reply.problem() {
                None => return Ok(reply),
                Some(UNREGISTERED) if from.elapsed() < REGISTERED => {
                    sleep(AGAIN).await;
                    continue;
                }
                Some(UNREGISTERED | STARTING) => Kind::Unreachable,
                Some(FORBIDDEN) => Kind::Denied,
                Some(_) => Kind::BadAnswer,
            };
            let said = reply.message.unwrap_or_default();
            let said: String = said.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
            let said = self.token.as_ref().map_or_else(|| said.clone(), |token| token.value.redact(&said));
            let said = if kind == Kind::Denied { format!("{said} (`username` and `password`?)") } else { said };
            return Err(self.failure(kind, &said));
        }
    }

    fn payload(&self, kind: &str, request: &impl Serialize) -> Payload {
        Payload::new(kind, request, self.token.as_ref().map(|token| token.value.expose()))
    }

    fn failure(&self, kind: Kind, problem: &str) -> Failure {
        Failure::new(kind, format!("{}: {problem}", self.member))
    }
}

/// Takes what is pushed, and answers it, until the stream ends. The stream begins with the server's first message only.
async fn take(
    connection: Connection,
    requests: ReceiverStream<Payload>,
    said: mpsc::Sender<Payload>,
    told: mpsc::Sender<Told>,
) {
    let opened = connection.stream::<Payload, Payload>("/BiRequestStream/requestBiStream", requests).await;
    let mut stream = match opened {
        Ok(stream) => stream,
        Err(refused) => return drop(told.send(Told::Ended(refused.into())).await),
    };
    loop {
        let payload = match stream.next().await {
            Some(Ok(payload)) => payload,
            Some(Err(status)) => return drop(told.send(Told::Ended(connection.refused(status).into())).await),
            None => return,
        };
        // Answers, to requests that are not made on this stream.
        let Some(kind) = payload.kind().strip_suffix("Request") else { continue };
        let (push, what): (Push, _) = match (payload.read::<Push>(), kind) {
            (Ok(push), "NotifySubscriber") => (push.clone(), push.service_info.map(Told::Changed)),
            (Ok(push), "ConnectReset") => (push, Some(Told::Elsewhere)),
            (Ok(push), _) => (push, None),
            (Err(_), _) => return drop(told.send(Told::Unreadable).await),
        };
        let taken = Taken { request_id: &push.request_id, result_code: Reply::SUCCESS };
        let answer = Payload::new(&format!("{kind}Response"), &taken, None);
        // A server that takes no answers does not hold up what it pushes.
        if !matches!(timeout(ANSWER, said.send(answer)).await, Ok(Ok(()))) {
            return;
        }
        if let Some(what) = what
            && told.send(what).await.is_err()
        {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
