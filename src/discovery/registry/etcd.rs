//! etcd's client: v3, over gRPC with one member at a time. Ranges of keys, transactions, leases, and a watch of many ranges
//! on one stream. It follows etcd.io/docs/v3.5/learning/api and what servers were seen to do.

pub mod messages;

use super::grpc::{Connection, Refused};
use super::members::{Members, Settings};
use super::{Failure, Kind};
use crate::base::secret::Secret;
use messages::{
    Answer, AuthenticateRequest, AuthenticateResponse, Compare, DeleteRangeRequest, KeyValue, LeaseAlive,
    LeaseGrantRequest, LeaseGrantResponse, LeaseRequest, Operation, Progress, RangeRequest, RangeResponse, RequestOp,
    TxnRequest, TxnResponse, WatchCreate, WatchRequest, WatchResponse, Watching,
};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::codegen::tokio_stream::{self, wrappers::ReceiverStream};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Streaming};

/// For any answer but that of a watch.
const ANSWER: Duration = Duration::from_secs(3);
/// HTTP/2's pings: etcd ends a connection that pings more often than every 5 s.
const PINGS: Duration = Duration::from_secs(10);
/// A watch that was silent for so long is asked whether it lives, and has to answer in the same time.
const QUIET: Duration = Duration::from_secs(2);
/// Operations in one transaction; etcd takes 128.
const OPERATIONS: usize = 100;

/// All keys that begin with a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(Vec<u8>);

impl Prefix {
    /// Keys that begin with this; it is not empty.
    pub fn new(prefix: impl Into<Vec<u8>>) -> Self {
        Prefix(prefix.into())
    }

    /// What follows the prefix in a key.
    pub fn strip<'a>(&self, key: &'a [u8]) -> Option<&'a [u8]> {
        key.strip_prefix(self.0.as_slice())
    }

    /// The first key that does not begin with it; a zero byte: there is none.
    fn end(&self) -> Vec<u8> {
        let mut end = self.0.clone();
        while let Some(last) = end.pop() {
            if last < 0xff {
                end.push(last + 1);
                return end;
            }
        }
        vec![0]
    }

    fn range(&self) -> RangeRequest {
        RangeRequest { key: self.0.clone(), range_end: self.end(), keys_only: false }
    }

    /// Deletes all of them.
    pub fn delete(&self) -> Operation {
        Operation::Delete(DeleteRangeRequest { key: self.0.clone(), range_end: self.end() })
    }
}

/// What there was under a prefix.
#[derive(Debug)]
pub struct Range {
    /// By key.
    pub kvs: Vec<KeyValue>,
    /// At this revision.
    pub revision: i64,
}

/// Speaks to the members of one etcd.
#[derive(Debug)]
pub struct Client {
    members: Members,
}

impl Client {
    /// It connects when it is asked to.
    pub fn new(settings: Settings) -> Self {
        Client { members: Members::new(settings) }
    }

    /// A connection with the member whose turn it is, logged in.
    ///
    /// # Errors
    /// Why there is none. The next call tries the next member.
    pub async fn connect(&self) -> Result<Session, Failure> {
        let session = self.open().await;
        if session.is_err() {
            self.members.next();
        }
        session
    }

    /// The member did not do what it should: the next call of `connect` tries the next one.
    pub fn leave(&self) {
        self.members.next();
    }

    async fn open(&self) -> Result<Session, Failure> {
        let tls = self.members.settings.tls.as_ref();
        let connection = Connection::open(self.members.member(), tls, Some(PINGS)).await?;
        let login = self.members.login().await?;
        let mut session = Session { connection, login };
        session.log_in().await?;
        Ok(session)
    }
}

/// A connection with one member.
#[derive(Debug)]
pub struct Session {
    connection: Connection,
    login: Option<(String, Secret)>,
}

impl Session {
    async fn log_in(&mut self) -> Result<(), Failure> {
        let Some((name, password)) = &self.login else { return Ok(()) };
        self.connection.metadata = MetadataMap::new();
        let message = AuthenticateRequest { name: name.clone(), password: password.expose().to_owned() };
        let answer = self.connection.call("/etcdserverpb.Auth/Authenticate", message, ANSWER).await;
        let AuthenticateResponse { token } = answer.map_err(|refused: Refused| {
            let Failure { kind, problem } = refused.failure(Some(password));
            // A wrong password is a bad argument to etcd.
            let kind = if refused.status.code() == Code::InvalidArgument { Kind::Denied } else { kind };
            Failure::new(kind, format!("login failed: {problem}"))
        })?;
        let mut token: MetadataValue<_> =
            token.parse().map_err(|_| Failure::new(Kind::BadAnswer, "the token of etcd is no text"))?;
        token.set_sensitive(true);
        self.connection.metadata.insert("token", token);
        Ok(())
    }

    /// A token ends after some minutes in which it was not used, so a call may have to log in once more.
    async fn call<Q, A>(&mut self, path: &'static str, message: Q) -> Result<A, Failure>
    where
        Q: prost::Message + Clone + Default + 'static,
        A: prost::Message + Default + 'static,
    {
        let again = self.login.is_some().then(|| message.clone());
        match (self.connection.call(path, message, ANSWER).await, again) {
            (Err(refused), Some(message)) if refused.status.code() == Code::Unauthenticated => {
                self.log_in().await?;
                Ok(self.connection.call(path, message, ANSWER).await?)
            }
            (answer, _) => Ok(answer?),
        }
    }

    /// All that is under these prefixes, in their order.
    ///
    /// # Errors
    /// What the member says, or that it says nothing.
    pub async fn ranges(&mut self, prefixes: &[Prefix]) -> Result<Vec<Range>, Failure> {
        let mut ranges = Vec::with_capacity(prefixes.len());
        for some in prefixes.chunks(OPERATIONS) {
            let operations = some.iter().map(|prefix| Operation::Range(prefix.range())).collect();
            let answer = self.transact(vec![], operations).await.map_err(|failure| self.unknown(failure));
            let TxnResponse { header, responses, .. } = answer?;
            let bad = || Failure::new(Kind::BadAnswer, "etcd answered another number of ranges than was asked for");
            let revision = header.map_or(0, |header| header.revision);
            if responses.len() != some.len() {
                return Err(bad());
            }
            for response in responses {
                let Some(Answer::Range(range)) = response.answer else { return Err(bad()) };
                ranges.push(Range { kvs: range.kvs, revision });
            }
        }
        Ok(ranges)
    }

    /// The keys under a prefix, without their values.
    ///
    /// # Errors
    /// What the member says, or that it says nothing.
    pub async fn keys(&mut self, prefix: &Prefix) -> Result<Vec<Vec<u8>>, Failure> {
        let request = RangeRequest { keys_only: true, ..prefix.range() };
        let answer: RangeResponse = self.call("/etcdserverpb.KV/Range", request).await?;
        Ok(answer.kvs.into_iter().map(|kv| kv.key).collect())
    }

    /// That it does not know who asks is a bad argument to etcd ("user name is empty").
    fn unknown(&self, failure: Failure) -> Failure {
        match failure.kind {
            Kind::BadAnswer if self.login.is_none() => {
                Failure::new(Kind::Denied, format!("{} (set `username` and `password`)", failure.problem))
            }
            _ => failure,
        }
    }

    /// Does all of these if all comparisons hold, else nothing (`succeeded`).
    ///
    /// # Errors
    /// What the member says, or that it says nothing.
    pub async fn transact(
        &mut self,
        compare: Vec<Compare>,
        operations: Vec<Operation>,
    ) -> Result<TxnResponse, Failure> {
        let success = operations.into_iter().map(|operation| RequestOp { operation: Some(operation) }).collect();
        self.call("/etcdserverpb.KV/Txn", TxnRequest { compare, success }).await
    }

    /// A lease of so many seconds; its keys go when nobody keeps it.
    ///
    /// # Errors
    /// What the member says, or that it says nothing.
    pub async fn grant(&mut self, seconds: i64) -> Result<i64, Failure> {
        let answer: LeaseGrantResponse =
            self.call("/etcdserverpb.Lease/LeaseGrant", LeaseGrantRequest { ttl: seconds }).await?;
        Ok(answer.id)
    }

    /// Keeps a lease for its time once more. False: there is no such lease any more.
    ///
    /// # Errors
    /// What the member says, or that it says nothing.
    pub async fn keep(&mut self, lease: i64) -> Result<bool, Failure> {
        let beat = async {
            let once = tokio_stream::once(LeaseRequest { id: lease });
            let mut answers = self.connection.stream("/etcdserverpb.Lease/LeaseKeepAlive", once).await?;
            answers.message().await.map_err(|status| self.connection.refused(status))
        };
        let silent = |_| Failure::new(Kind::Silent, "etcd: no answer in time");
        let answer: Option<LeaseAlive> = timeout(ANSWER, beat).await.map_err(silent)??;
        Ok(answer.is_some_and(|answer| answer.ttl > 0))
    }

    /// Ends a lease, and its keys with it.
    ///
    /// # Errors
    /// What the member says, or that it says nothing.
    pub async fn revoke(&mut self, lease: i64) -> Result<(), Failure> {
        let _: messages::Done = self.call("/etcdserverpb.Lease/LeaseRevoke", LeaseRequest { id: lease }).await?;
        Ok(())
    }

    /// Watches these prefixes, each from this revision on.
    ///
    /// # Errors
    /// What the member says, or that it says nothing.
    pub async fn watch(&self, prefixes: &[(Prefix, i64)]) -> Result<Watch, Failure> {
        let (requests, sent) = mpsc::channel(prefixes.len() + 4);
        for (id, (prefix, from)) in prefixes.iter().enumerate() {
            let RangeRequest { key, range_end, .. } = prefix.range();
            let watch_id = i64::try_from(id).unwrap_or(i64::MAX);
            let create = WatchCreate { key, range_end, start_revision: *from, watch_id, fragment: true };
            // There is room for all.
            let _ = requests.try_send(WatchRequest { request: Some(Watching::Create(create)) });
        }
        let mut connection = self.connection.clone();
        // A member that has lost the others ends the watch rather than to stand still.
        connection.metadata.insert("hasleader", MetadataValue::from_static("true"));
        let opened = connection.stream("/etcdserverpb.Watch/Watch", ReceiverStream::new(sent));
        let silent = |_| Failure::new(Kind::Silent, "etcd: no answer in time");
        let answers = timeout(ANSWER, opened).await.map_err(silent)??;
        let from = prefixes.iter().map(|(_, from)| *from).collect();
        Ok(Watch { connection, requests, answers, from, parts: Vec::new(), asked: false })
    }
}

/// What a watch says.
#[derive(Debug, PartialEq)]
pub enum Told {
    /// These changes, all at once, of this prefix (its place in the list).
    Changes(usize, Vec<messages::Event>),
    /// It lives.
    Nothing,
}

/// A watch of many prefixes.
#[derive(Debug)]
pub struct Watch {
    connection: Connection,
    requests: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
    from: Vec<i64>,
    /// Of an answer that comes in parts.
    parts: Vec<messages::Event>,
    /// Whether it lives.
    asked: bool,
}

impl Watch {
    /// The next thing that it says; within some seconds it is something, or a failure. Can be called again when it was
    /// dropped before it ended.
    ///
    /// # Errors
    /// Why it ended. Nothing can be said of what changed since: read everything again.
    pub async fn next(&mut self) -> Result<Told, Failure> {
        loop {
            let answer = match timeout(QUIET, self.answers.message()).await {
                Ok(Ok(Some(answer))) => answer,
                Ok(Ok(None)) => return Err(Failure::new(Kind::Unreachable, "etcd ended the watch")),
                Ok(Err(status)) => return Err(self.connection.refused(status).into()),
                Err(_) if self.asked => return Err(Failure::new(Kind::Silent, "etcd: the watch is silent")),
                Err(_) => {
                    self.asked = true;
                    // It has room, but for a member that takes nothing, which is silent, too.
                    let _ = self.requests.try_send(WatchRequest { request: Some(Watching::Progress(Progress {})) });
                    continue;
                }
            };
            self.asked = false;
            if let Some(told) = self.take(answer)? {
                return Ok(told);
            }
        }
    }

    fn take(&mut self, answer: WatchResponse) -> Result<Option<Told>, Failure> {
        let WatchResponse { header, watch_id, created, canceled, compact_revision, cancel_reason, fragment, events } =
            answer;
        if canceled {
            return Err(match compact_revision {
                0 if cancel_reason.contains("permission") => Failure::new(Kind::Denied, "etcd: the watch is denied"),
                0 => Failure::new(Kind::Unreachable, format!("etcd ended a watch: {}", cancel_reason.escape_debug())),
                _ => Failure::new(Kind::Unreachable, "etcd has compacted what was missed"),
            });
        }
        let place = usize::try_from(watch_id).ok().filter(|place| *place < self.from.len());
        let Some(place) = place else { return Ok(Some(Told::Nothing)) };
        if created {
            // A watch from a revision that is yet to come says nothing until then.
            let now = header.map_or(0, |header| header.revision);
            if self.from.get(place).is_some_and(|from| now < from - 1) {
                return Err(Failure::new(Kind::Unreachable, "etcd has gone back to an older revision"));
            }
            return Ok(Some(Told::Nothing));
        }
        self.parts.extend(events);
        if fragment {
            return Ok(None);
        }
        let events = std::mem::take(&mut self.parts);
        Ok(Some(if events.is_empty() { Told::Nothing } else { Told::Changes(place, events) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_no_key_begins_with_it() {
        for (prefix, end) in [(&b"/a/"[..], &b"/a0"[..]), (b"a\xff", b"b"), (b"\xff\xff", b"\0")] {
            assert_eq!(Prefix::new(prefix).end(), end);
        }
        assert_eq!(Prefix::new("/a/").strip(b"/a/b"), Some(&b"b"[..]));
    }
}
