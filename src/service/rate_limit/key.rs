//! What a limit counts by: whose bucket a request takes from.

use crate::http::downstream::clients::network;
use crate::http::headers::cookie;
use crate::http::request::Head;
use http::HeaderName;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

/// Requests of one key share a bucket. One without the header or the cookie is counted by its client, so that leaving it
/// away is no way round.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(in crate::service) enum Key {
    /// By the client's address, or its /64 in IPv6: `client`.
    #[default]
    Client,
    /// By the value of this header's first line: `header:NAME`.
    Header(HeaderName),
    /// By the value of this cookie: `cookie:NAME`.
    Cookie(String),
    /// All requests together: `none`.
    None,
}

impl TryFrom<String> for Key {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("`{text}` is none of `client`, `header:NAME`, `cookie:NAME`, `none`");
        match text.split_once(':') {
            None if text == "client" => Ok(Key::Client),
            None if text == "none" => Ok(Key::None),
            Some(("header", name)) => name.parse().map(Key::Header).map_err(|_| wrong()),
            Some(("cookie", name)) if !name.is_empty() => Ok(Key::Cookie(name.into())),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Client => f.write_str("client"),
            Key::Header(name) => write!(f, "header:{name}"),
            Key::Cookie(name) => write!(f, "cookie:{name}"),
            Key::None => f.write_str("none"),
        }
    }
}

/// A request's own key. What a client says is never taken for an address.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(in crate::service) enum Of<'a> {
    All,
    Client(IpAddr),
    Said(Cow<'a, [u8]>),
}

impl Key {
    /// This request's.
    pub(in crate::service) fn of<'a>(&self, head: &'a Head) -> Of<'a> {
        let said = match self {
            Key::None => return Of::All,
            Key::Client => None,
            Key::Header(name) => head.parts.headers.get(name.as_str()).map(Cow::Borrowed),
            Key::Cookie(name) => cookie(&head.parts.headers, name).map(|value| Cow::Owned(value.into_bytes())),
        };
        said.map_or_else(|| Of::Client(network(head.client)), Of::Said)
    }
}

impl Of<'_> {
    /// For a store: the same in all gateways, short, and no secret.
    pub(super) fn digest(&self) -> String {
        let mut hasher = Sha256::new();
        match self {
            Of::All => return "all".to_owned(),
            Of::Client(address) => return address.to_string(),
            Of::Said(said) => hasher.update(said),
        }
        let digest: [u8; 32] = hasher.finalize().into();
        digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }
}
