//! The kinds of middleware.

use super::api_key::ApiKey;
use super::basic::Basic;
use super::compress::Compress;
use super::cors::Cors;
use super::forward_auth::ForwardAuth;
use super::jwt::{Jwt, KeySet};
use super::live::Outcome;
use super::mirror::Mirror;
use super::redirect_https::RedirectHttps;
use super::request_id::RequestId;
use std::sync::Arc;

/// What is done.
#[derive(Debug, Clone)]
pub enum Kind {
    /// Each request has an id.
    RequestId(Arc<RequestId>),
    /// Who comes without TLS is sent to where there is TLS.
    RedirectHttps(RedirectHttps),
    /// Pages of other origins may read responses.
    Cors(Arc<Cors>),
    /// Name and password.
    Basic(Arc<Basic>),
    /// A key.
    ApiKey(Arc<ApiKey>),
    /// A token.
    Jwt(Arc<Jwt>),
    /// An external check is asked.
    ForwardAuth(Arc<ForwardAuth>),
    /// Copies go to another service.
    Mirror(Arc<Mirror>),
    /// Responses are coded.
    Compress(Arc<Compress>),
}

impl Kind {
    /// As the configuration calls it.
    pub fn name(&self) -> &'static str {
        match self {
            Kind::RequestId(_) => "request_id",
            Kind::RedirectHttps(_) => "redirect_https",
            Kind::Cors(_) => "cors",
            Kind::Basic(_) => "basic",
            Kind::ApiKey(_) => "api_key",
            Kind::Jwt(_) => "jwt",
            Kind::ForwardAuth(_) => "forward_auth",
            Kind::Mirror(_) => "mirror",
            Kind::Compress(_) => "compress",
        }
    }

    /// The keys that it fetches by URL.
    pub fn key_set(&self) -> Option<&Arc<KeySet>> {
        match self {
            Kind::Jwt(jwt) => Some(&jwt.keys).filter(|keys| keys.remote.is_some()),
            _ => None,
        }
    }

    /// It may do this with a request.
    pub fn can(&self, outcome: Outcome) -> bool {
        let can: &[Outcome] = match self {
            Kind::RequestId(_) | Kind::Compress(_) => &[],
            Kind::Cors(_) => &[Outcome::Answered],
            Kind::RedirectHttps(_) => &[Outcome::Answered, Outcome::Refused],
            Kind::ApiKey(_) => &[Outcome::Refused],
            Kind::Basic(_) | Kind::Jwt(_) => &[Outcome::Refused, Outcome::Failed],
            Kind::ForwardAuth(_) => &[Outcome::Answered, Outcome::Refused, Outcome::Failed, Outcome::LetThrough],
            Kind::Mirror(_) => &[Outcome::Mirrored, Outcome::LeftOut, Outcome::Failed],
        };
        can.contains(&outcome)
    }

    /// It does the same sort of thing.
    pub(super) fn is_like(&self, other: &Kind) -> bool {
        self.name() == other.name()
    }
}
