//! ZooKeeper's client: one session with one member. Requests go out many at a time, answers come in their order, and what
//! changed is told in between. It pings, and silence ends it.

pub mod jute;
pub mod message;

use super::members::dial;
use super::{Failure, Kind};
use crate::base::secret::Secret;
use crate::http::tls::{Socket, client};
use jute::Malformed;
use message::{Answer, Body, Connected, Incoming, Operation, Refusal, Request};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

/// No frame is larger, bytes. A server's own bound (`jute.maxbuffer`) is 1 MiB for what it is sent.
const MAX_FRAME: usize = 16 << 20;
/// So much of what changed is kept until it is asked for, bytes.
const MAX_CHANGES: usize = 16 << 20;
/// The longest time between two pings, and until a silent server is given up, however long the session is.
const BEAT: Duration = Duration::from_secs(2);
const SILENCE: Duration = Duration::from_secs(4);
/// Room for one read, at least, bytes.
const READ: usize = 16 << 10;
/// For the first answer of a connection.
const GREETING: Duration = Duration::from_secs(2);
/// A session's password is not longer, bytes; it has 16.
const MAX_PASSWORD: usize = 256;
/// How a server refuses all that is asked in a session that has expired.
const EXPIRED: i32 = -112;

/// What proves that a session is one's own, so that another connection can go on with it.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The session's number.
    pub session: i64,
    password: Vec<u8>,
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ticket({:#x})", self.session)
    }
}

/// What was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// Something at this path may be another than before.
    Change(String),
    /// The server lives.
    Beat,
    /// Nothing, in this time.
    Nothing,
}

/// A session, on one connection.
#[derive(Debug)]
pub struct Session {
    member: String,
    socket: Socket,
    ticket: Ticket,
    /// What came and is not a whole frame yet.
    came: Vec<u8>,
    /// So much of it was read already.
    read: usize,
    /// What was asked, in the order in which it will be answered.
    asked: VecDeque<(i32, Operation)>,
    changes: VecDeque<String>,
    changes_bytes: usize,
    number: i32,
    beat: Duration,
    silence: Duration,
    said: Instant,
    heard: Instant,
}

impl Session {
    /// Opens a session that lasts so long without its client, or goes on with the ticket's; where that has expired, the
    /// session is a new one, with another number. The server has the last word on how long it lasts.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn open(
        member: &str,
        tls: Option<&client::Settings>,
        lasts: Duration,
        ticket: Option<&Ticket>,
    ) -> Result<Self, Failure> {
        if let Some(ticket) = ticket
            && let Some(session) = Self::greet(member, tls, lasts, Some(ticket)).await?
        {
            return Ok(session);
        }
        let none = || Failure::new(Kind::BadAnswer, format!("{member}: opens no session"));
        Self::greet(member, tls, lasts, None).await?.ok_or_else(none)
    }

    /// None: the ticket's session has expired.
    async fn greet(
        member: &str,
        tls: Option<&client::Settings>,
        lasts: Duration,
        ticket: Option<&Ticket>,
    ) -> Result<Option<Self>, Failure> {
        let socket = dial(member, tls, false).await?;
        let now = Instant::now();
        let none = Ticket { session: 0, password: vec![0; 16] };
        let ticket = ticket.cloned().unwrap_or(none);
        let lasts = i32::try_from(lasts.as_millis()).unwrap_or(i32::MAX);
        let hello = message::connect(lasts, ticket.session, &ticket.password);
        let mut session = Session {
            member: member.to_owned(),
            socket,
            ticket,
            came: Vec::new(),
            read: 0,
            asked: VecDeque::new(),
            changes: VecDeque::new(),
            changes_bytes: 0,
            number: 0,
            beat: BEAT,
            silence: GREETING,
            said: now,
            heard: now,
        };
        session.say(&hello).await?;
        let frame = session.frame_until(now + GREETING).await?;
        let bad = || Failure::new(Kind::BadAnswer, format!("{member}: what it says first is not ZooKeeper's"));
        let Connected { timeout_ms, session: number, password } = Connected::read(&frame).map_err(|_| bad())?;
        let Ok(lasts @ 1..) = u64::try_from(timeout_ms) else { return Ok(None) };
        if password.len() > MAX_PASSWORD {
            return Err(bad());
        }
        session.ticket = Ticket { session: number, password: password.to_vec() };
        let lasts = Duration::from_millis(lasts);
        session.beat = (lasts / 3).min(BEAT);
        session.silence = (lasts * 2 / 3).min(SILENCE);
        Ok(Some(session))
    }

    /// What another connection goes on with.
    pub fn ticket(&self) -> &Ticket {
        &self.ticket
    }

    /// Says who the client is, beside whom it said before. A wrong password is told by nobody here: what it may not do
    /// is refused then.
    ///
    /// # Errors
    /// It is not taken, or the connection failed.
    pub async fn authenticate(&mut self, user: &str, password: &Secret) -> Result<(), Failure> {
        self.say(&message::authenticate(user, password.expose())).await?;
        self.asked.push_back((message::AUTHENTICATE, Operation::Authenticate));
        match self.answer().await? {
            Answer::Refused(refusal) => Err(self.failure(Kind::Denied, refusal)),
            _ => Ok(()),
        }
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// The connection failed.
    pub async fn ask(&mut self, request: Request<'_>) -> Result<Answer, Failure> {
        self.send(&[request]).await?;
        self.answer().await
    }

    /// Asks all of these; each [`Session::answer`] is the next one's. A few hundred at a time.
    ///
    /// # Errors
    /// The connection failed.
    pub async fn send(&mut self, requests: &[Request<'_>]) -> Result<(), Failure> {
        let mut frames = Vec::new();
        for request in requests {
            self.number = self.number.checked_add(1).unwrap_or(1);
            frames.extend(request.frame(self.number));
            self.asked.push_back((self.number, request.operation()));
        }
        self.say(&frames).await
    }

    /// The answer to what was asked first of all that is not answered.
    ///
    /// # Errors
    /// The connection failed, or nothing was asked.
    pub async fn answer(&mut self) -> Result<Answer, Failure> {
        let until = Instant::now() + self.silence;
        loop {
            let frame = self.frame_until(until).await?;
            if let Some(answer) = self.take(&frame)? {
                return Ok(answer);
            }
        }
    }

    /// What changed, as soon as something did, or a sign of life; waits no longer than `until`. Nothing may be asked and
    /// not answered.
    ///
    /// # Errors
    /// The connection failed, or the server is silent.
    pub async fn heard(&mut self, until: Instant) -> Result<Heard, Failure> {
        loop {
            if let Some(path) = self.changes.pop_front() {
                self.changes_bytes = self.changes_bytes.saturating_sub(path.len());
                return Ok(Heard::Change(path));
            }
            let (ping_at, dead_at) = (self.said + self.beat, self.heard + self.silence);
            match timeout_at(until.min(ping_at).min(dead_at), self.frame()).await {
                Ok(frame) => {
                    if self.take(&frame?)?.is_some() {
                        return Err(self.malformed());
                    }
                    if self.changes.is_empty() {
                        return Ok(Heard::Beat);
                    }
                }
                Err(_) if Instant::now() >= dead_at => return Err(self.silent()),
                Err(_) if Instant::now() >= ping_at => self.say(&message::ping()).await?,
                Err(_) => return Ok(Heard::Nothing),
            }
        }
    }

    /// Ends the session, with all that is ephemeral in it.
    ///
    /// # Errors
    /// The connection failed; the session ends by itself then.
    pub async fn close(mut self) -> Result<(), Failure> {
        self.number = self.number.checked_add(1).unwrap_or(1);
        self.asked.push_back((self.number, Operation::Close));
        self.say(&message::close(self.number)).await?;
        self.answer().await.map(drop)
    }

    /// Trouble with this member.
    pub fn failure(&self, kind: Kind, problem: impl std::fmt::Display) -> Failure {
        Failure::new(kind, format!("{}: {problem}", self.member))
    }

    fn malformed(&self) -> Failure {
        self.failure(Kind::BadAnswer, "what it answers cannot be read")
    }

    fn silent(&self) -> Failure {
        self.failure(Kind::Silent, "no answer in time")
    }

    fn broken(&self, problem: impl std::fmt::Display) -> Failure {
        self.failure(Kind::Unreachable, format!("the connection ended: {problem}"))
    }

    async fn say(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let said = async {
            self.socket.write_all(bytes).await?;
            self.socket.flush().await
        };
        match timeout(self.silence, said).await {
            Ok(Ok(())) => {
                self.said = Instant::now();
                Ok(())
            }
            Ok(Err(error)) => Err(self.broken(error)),
            Err(_) => Err(self.silent()),
        }
    }

    /// Takes in a frame; an answer is given back.
    fn take(&mut self, frame: &[u8]) -> Result<Option<Answer>, Failure> {
        match Incoming::read(frame) {
            Ok(Incoming::Pong) => Ok(None),
            Ok(Incoming::Changed(path)) => {
                self.changes_bytes += path.len();
                // One whose state changes, not a node's, has no path.
                if self.changes_bytes + self.changes.len() * size_of::<String>() > MAX_CHANGES {
                    return Err(self.failure(Kind::BadAnswer, "more changes than are kept"));
                }
                self.changes.push_back(path.to_owned());
                Ok(None)
            }
            Ok(Incoming::Answer(number, body)) => {
                let asked = self.asked.pop_front().filter(|(asked, _)| *asked == number);
                let (_, operation) = asked.ok_or_else(|| self.malformed())?;
                // The only refusal that ends all: the server closes.
                if body == Body::Refused(Refusal::Other(EXPIRED)) {
                    return Err(self.broken("the session has expired"));
                }
                Answer::read(operation, &body).map(Some).map_err(|Malformed| self.malformed())
            }
            Err(Malformed) => Err(self.malformed()),
        }
    }

    async fn frame_until(&mut self, until: Instant) -> Result<Vec<u8>, Failure> {
        match timeout_at(until, self.frame()).await {
            Ok(frame) => frame,
            Err(_) => Err(self.silent()),
        }
    }

    /// The next frame, without its length. Whoever stops waiting for it loses nothing.
    async fn frame(&mut self) -> Result<Vec<u8>, Failure> {
        loop {
            match whole(self.came.get(self.read..).unwrap_or_default()) {
                Ok(Some(frame)) => {
                    let frame = frame.to_vec();
                    self.read += 4 + frame.len();
                    self.heard = Instant::now();
                    return Ok(frame);
                }
                Ok(None) => {}
                Err(Malformed) => return Err(self.malformed()),
            }
            self.came.drain(..self.read);
            self.read = 0;
            self.came.reserve(READ);
            match self.socket.read_buf(&mut self.came).await {
                Ok(0) => return Err(self.broken("the server closed it")),
                Ok(_) => {}
                Err(error) => return Err(self.broken(error)),
            }
        }
    }
}

/// The frame that these bytes begin with, as soon as it is whole.
///
/// # Errors
/// It is longer than any that is read.
pub fn whole(bytes: &[u8]) -> Result<Option<&[u8]>, Malformed> {
    let Some((length, rest)) = bytes.split_first_chunk() else { return Ok(None) };
    let length = usize::try_from(i32::from_be_bytes(*length)).ok().filter(|length| *length <= MAX_FRAME);
    Ok(rest.get(..length.ok_or(Malformed)?))
}

#[cfg(test)]
mod tests;
