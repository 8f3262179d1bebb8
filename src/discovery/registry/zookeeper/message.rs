//! What is said with a ZooKeeper: requests, answers, and what comes unasked. After `zookeeper.jute` and `ZooDefs.java` of
//! its source, <https://github.com/apache/zookeeper>.

use super::jute::{Malformed, Reader, Writer};

/// What is asked. Paths begin with a slash and end without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    /// Makes a node that everybody may read and change; an ephemeral one ends with the session.
    Create {
        /// Its parent is there.
        path: &'a str,
        /// What it holds.
        data: &'a [u8],
        /// It ends with the session.
        ephemeral: bool,
    },
    /// Removes a node without children, whatever its version.
    Delete(&'a str),
    /// What is known of a node.
    Exists(&'a str, Watch),
    /// What a node holds.
    Get(&'a str, Watch),
    /// What a node shall hold, whatever its version.
    Set(&'a str, &'a [u8]),
    /// The names of a node's children.
    Children(&'a str, Watch),
    /// Tells of every change to a node and all below it, from now on. Servers before 3.6 do not know it.
    Follow(&'a str),
}

/// Whether the next change is told, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// It is.
    Once,
    /// It is not.
    No,
}

/// What kind of answer a request has: the number of the operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Operation {
    /// See [`Request::Create`].
    Create = 1,
    /// See [`Request::Delete`].
    Delete = 2,
    /// See [`Request::Exists`].
    Exists = 3,
    /// See [`Request::Get`].
    Get = 4,
    /// See [`Request::Set`].
    Set = 5,
    /// See [`Request::Children`].
    Children = 8,
    /// Adds to who the session is.
    Authenticate = 100,
    /// See [`Request::Follow`].
    Follow = 106,
    /// Ends the session.
    Close = -11,
}

/// Who may do what: everybody everything (`OPEN_ACL_UNSAFE`).
const EVERYTHING: i32 = 31;
/// With flag 1, a created node is ephemeral.
const EPHEMERAL: i32 = 1;
/// Not a version: any.
const ANY: i32 = -1;
/// The watch goes for all below the node.
const RECURSIVE: i32 = 1;

/// The numbers of what is no common request.
pub(super) const EVENT: i32 = -1;
const PING: i32 = -2;
pub(super) const AUTHENTICATE: i32 = -4;

impl Request<'_> {
    /// Which operation it is.
    pub fn operation(&self) -> Operation {
        match self {
            Request::Create { .. } => Operation::Create,
            Request::Delete(_) => Operation::Delete,
            Request::Exists(..) => Operation::Exists,
            Request::Get(..) => Operation::Get,
            Request::Set(..) => Operation::Set,
            Request::Children(..) => Operation::Children,
            Request::Follow(_) => Operation::Follow,
        }
    }

    /// The frame of the request with this number.
    pub fn frame(&self, number: i32) -> Vec<u8> {
        let frame = Writer::default().int(number).int(self.operation() as i32);
        let frame = match *self {
            Request::Create { path, data, ephemeral } => {
                let acl = frame.text(path).buffer(data).int(1).int(EVERYTHING).text("world").text("anyone");
                acl.int(if ephemeral { EPHEMERAL } else { 0 })
            }
            Request::Delete(path) => frame.text(path).int(ANY),
            Request::Exists(path, watch) | Request::Get(path, watch) | Request::Children(path, watch) => {
                frame.text(path).bool(watch == Watch::Once)
            }
            Request::Set(path, data) => frame.text(path).buffer(data).int(ANY),
            Request::Follow(path) => frame.text(path).int(RECURSIVE),
        };
        frame.frame()
    }
}

/// A frame that says: I am still here.
pub(super) fn ping() -> Vec<u8> {
    Writer::default().int(PING).int(11).frame()
}

/// A frame that says who the client is, as the scheme `digest` has it.
pub(super) fn authenticate(user: &str, password: &str) -> Vec<u8> {
    let frame = Writer::default().int(AUTHENTICATE).int(Operation::Authenticate as i32).int(0);
    frame.text("digest").text(&format!("{user}:{password}")).frame()
}

/// A frame that ends the session.
pub(super) fn close(number: i32) -> Vec<u8> {
    Writer::default().int(number).int(Operation::Close as i32).frame()
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is done.
    Done,
    /// What is known of the node.
    Node(Stat),
    /// What it holds.
    Data(Vec<u8>),
    /// The names of its children, without order.
    Children(Vec<String>),
    /// It is not done.
    Refused(Refusal),
}

/// What is known of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// How often its data was set.
    pub version: i32,
    /// The session that it ends with; 0: none.
    pub owner: i64,
}

/// Why something is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such node.
    NoNode,
    /// Whoever asks has not the right.
    NotAllowed,
    /// There is such a node.
    Exists,
    /// The server does not know the operation.
    Unknown,
    /// Whoever asks is not who he says.
    NotBelieved,
    /// All else, by its number.
    Other(i32),
}

impl Refusal {
    fn of(code: i32) -> Option<Self> {
        match code {
            0 => None,
            -101 => Some(Refusal::NoNode),
            -102 => Some(Refusal::NotAllowed),
            -110 => Some(Refusal::Exists),
            -6 => Some(Refusal::Unknown),
            -115 => Some(Refusal::NotBelieved),
            code => Some(Refusal::Other(code)),
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refusal::NoNode => f.write_str("there is no such node"),
            Refusal::NotAllowed => f.write_str("it may not be read with this `username` and `password` (NoAuth)"),
            Refusal::Exists => f.write_str("it is there already"),
            Refusal::Unknown => f.write_str("the server does not know the operation"),
            Refusal::NotBelieved => f.write_str("`username` and `password` are not taken (AuthFailed)"),
            Refusal::Other(code) => write!(f, "the server says {code}"),
        }
    }
}

/// A frame from a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// It is still there.
    Pong,
    /// Something changed below a watch: at this path.
    Changed(&'a str),
    /// An answer: its number, and what can be read of it when it is known what was asked.
    Answer(i32, Body<'a>),
}

/// What an answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body<'a> {
    /// Success, with these bytes.
    Done(&'a [u8]),
    /// No success.
    Refused(Refusal),
}

impl<'a> Incoming<'a> {
    /// Reads a frame.
    ///
    /// # Errors
    /// It is none that a server sends.
    pub fn read(frame: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(frame);
        let (number, _zxid, code) = (reader.int()?, reader.long()?, reader.int()?);
        match number {
            PING => Ok(Incoming::Pong),
            EVENT => {
                // What happened and the connection's state do not matter: the path is read again.
                let (_kind, _state) = (reader.int()?, reader.int()?);
                reader.text().map(Incoming::Changed)
            }
            number => {
                let body = frame.get(16..).unwrap_or_default();
                Ok(Incoming::Answer(number, Refusal::of(code).map_or(Body::Done(body), Body::Refused)))
            }
        }
    }
}

impl Answer {
    /// Reads what a server answered.
    ///
    /// # Errors
    /// It is no answer to this operation.
    pub fn read(operation: Operation, body: &Body<'_>) -> Result<Self, Malformed> {
        let bytes = match body {
            Body::Done(bytes) => bytes,
            Body::Refused(refusal) => return Ok(Answer::Refused(*refusal)),
        };
        let mut reader = Reader::new(bytes);
        match operation {
            Operation::Create | Operation::Delete | Operation::Authenticate | Operation::Follow | Operation::Close => {
                Ok(Answer::Done)
            }
            Operation::Exists | Operation::Set => stat(&mut reader).map(Answer::Node),
            Operation::Get => reader.buffer().map(|data| Answer::Data(data.to_vec())),
            Operation::Children => reader.texts().map(Answer::Children),
        }
    }
}

fn stat(reader: &mut Reader<'_>) -> Result<Stat, Malformed> {
    let (_created, _modified, _created_at, _modified_at) =
        (reader.long()?, reader.long()?, reader.long()?, reader.long()?);
    let (version, _children_version, _acl_version) = (reader.int()?, reader.int()?, reader.int()?);
    Ok(Stat { version, owner: reader.long()? })
}

/// What opens a connection: a new session, or this one again.
pub(super) fn connect(timeout_ms: i32, session: i64, password: &[u8]) -> Vec<u8> {
    // What was seen last is not said: a server that lost its data would turn the client away for ever.
    Writer::default().int(0).long(0).int(timeout_ms).long(session).buffer(password).bool(false).frame()
}

/// What a server says to a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connected<'a> {
    /// What the server chose, milliseconds; none, or less: the session that was asked for has expired.
    pub timeout_ms: i32,
    /// The session.
    pub session: i64,
    /// What proves that it is the client's.
    pub password: &'a [u8],
}

impl<'a> Connected<'a> {
    /// Reads the first frame of a connection.
    ///
    /// # Errors
    /// It is none.
    pub fn read(frame: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(frame);
        let _version = reader.int()?;
        Ok(Connected { timeout_ms: reader.int()?, session: reader.long()?, password: reader.buffer()? })
    }
}
