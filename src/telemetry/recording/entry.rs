//! One recorded exchange by value: the request, what each policy read and decided, and what came of it. What a later format
//! adds stands at the end, where this one does not look.

use super::bytes::Bytes;
use crate::http::fields::Fields;
use crate::http::request::target::Target;
use crate::http::request::{Head, Parts, Peer};
use crate::http::settings::Paths;
use crate::service::decision::said::Said;
use crate::service::tape::Tape;
use http::{Method, Version};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

/// Bytes of one, at most.
pub const MOST: usize = 4 << 20;
/// Header lines of one request, at most.
const MOST_LINES: usize = 10_000;

/// One exchange.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry<'a> {
    /// The worker that carried it.
    pub worker: u32,
    /// Its number among that worker's.
    pub number: u64,
    /// When it came, ms since 1970-01-01 UTC.
    pub at_ms: u64,
    /// The request.
    #[serde(borrow)]
    pub head: HeadSaid<'a>,
    /// The policies that were asked, in order.
    pub calls: Vec<CallSaid>,
    /// What came of it.
    pub outcome: OutcomeSaid,
}

/// A request's head, after the gateway's own checks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeadSaid<'a> {
    /// As sent.
    #[serde(borrow)]
    pub method: Cow<'a, str>,
    /// Path and query.
    #[serde(borrow)]
    pub target: Cow<'a, str>,
    /// The target's own authority.
    #[serde(borrow)]
    pub authority: Option<Cow<'a, str>>,
    /// 10, 11 or 20.
    pub version: u8,
    /// Its lines, in order.
    #[serde(borrow)]
    pub fields: Vec<(Bytes<'a>, Bytes<'a>)>,
    /// It asks for a WebSocket in HTTP/2's way.
    pub websocket: bool,
    /// Who asks.
    pub client: IpAddr,
    /// Over TLS.
    pub tls: bool,
    /// Subject of the client's certificate.
    #[serde(borrow)]
    pub subject: Option<Cow<'a, str>>,
    /// What a token said, as JSON.
    #[serde(borrow)]
    pub claims: Option<Cow<'a, str>>,
    /// How the path was read: 0 normal, 1 strict, 2 as sent.
    pub paths: u8,
}

/// One policy's call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallSaid {
    /// The policy's name.
    pub policy: Arc<str>,
    /// The version's id.
    pub version: Arc<str>,
    /// What it read and did.
    pub tape: Tape,
    /// What it decided.
    pub said: Said,
    /// Why, in its words.
    pub reason: String,
}

/// What came of an exchange after its decision. No replay makes it again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OutcomeSaid {
    /// What the client was given; 0: nothing.
    pub status: u16,
    /// The gateway's own error.
    pub error: Option<String>,
    /// Who took it: a route or a policy.
    pub route: Option<String>,
    /// Until its last byte, µs.
    pub took_us: u64,
    /// How it ended.
    pub end: String,
    /// What was tried: endpoint's number, status, error, µs.
    pub attempts: Vec<(u32, u16, Option<String>, u64)>,
}

impl<'a> Entry<'a> {
    /// Reads one.
    ///
    /// # Errors
    /// It is none.
    pub fn read(bytes: &'a [u8]) -> Result<Self, postcard::Error> {
        postcard::take_from_bytes(bytes).map(|(entry, _)| entry)
    }

    /// Writes it.
    pub fn bytes(&self) -> Vec<u8> {
        // Nothing in it can fail to be written.
        postcard::to_extend(self, Vec::with_capacity(512)).unwrap_or_default()
    }
}

impl HeadSaid<'_> {
    /// The head as policies read it. None: no request can be like this.
    pub fn head(&self) -> Option<Arc<Head>> {
        if self.fields.len() > MOST_LINES {
            return None;
        }
        let mut headers = Fields::default();
        for (name, value) in &self.fields {
            headers.append(&name.0, &value.0);
        }
        let parts = Parts {
            method: Method::from_bytes(self.method.as_bytes()).ok()?,
            target: Target::of_parts(&self.target, self.authority.as_deref()),
            version: read_version(self.version)?,
            headers,
            websocket: self.websocket,
        };
        let address = (self.client, 0).into();
        let subject = self.subject.as_deref().map(Arc::from);
        let peer = if self.tls { Peer::over_tls(address, subject) } else { Peer::new(address) };
        let mut head = Head::with(parts, peer, &[], read_paths(self.paths)?);
        let told = Arc::get_mut(&mut head)?;
        told.client = self.client;
        told.claims = match &self.claims {
            Some(claims) => Some(Arc::new(serde_json::from_str(claims).ok()?)),
            None => None,
        };
        Some(head)
    }
}

/// As it is written down.
pub(super) fn written_version(version: Version) -> u8 {
    match version {
        Version::HTTP_10 => 10,
        Version::HTTP_2 => 20,
        _ => 11,
    }
}

fn read_version(version: u8) -> Option<Version> {
    match version {
        10 => Some(Version::HTTP_10),
        11 => Some(Version::HTTP_11),
        20 => Some(Version::HTTP_2),
        _ => None,
    }
}

/// As it is written down.
pub(super) fn written_paths(paths: Paths) -> u8 {
    match paths {
        Paths::Normal => 0,
        Paths::Strict => 1,
        Paths::AsSent => 2,
    }
}

fn read_paths(paths: u8) -> Option<Paths> {
    [Paths::Normal, Paths::Strict, Paths::AsSent].into_iter().find(|known| written_paths(*known) == paths)
}
