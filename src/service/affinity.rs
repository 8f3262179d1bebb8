//! Affinity: a client comes back to the endpoint that has answered it. Told by a cookie that the gateway sets and signs, or
//! by the header in which endpoints name their sessions, which it seals. Either way the client carries what is known, and
//! every gateway that has the same keys understands it: there is no store. (The strategy `sticky` is something else: there
//! one gateway remembers keys.) Pure: it is told what a request says and who has answered, and what time it is.

mod address;
mod cookie;
mod keys;
mod sealed;
mod settings;

pub use self::cookie::Cookie;
pub use keys::Keys;
pub use sealed::Header;
pub use settings::Settings;

use self::cookie::{Says, Words};
use super::plan::Plan;
use super::{Endpoint, Endpoints, Service};
use crate::base::seldom::Seldom;
use crate::http::error::Error;
use crate::http::fields::Fields;
use crate::http::headers;
use sealed::Refused;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// What `sticky = { … }` means.
#[derive(Debug)]
pub struct Rule {
    /// By what a client is known.
    pub kind: Kind,
    /// Who signs and seals.
    pub keys: Keys,
    settings: Settings,
}

/// By what a client is known.
#[derive(Debug)]
pub enum Kind {
    /// By a cookie, which says where to go first: should that endpoint not be there, another one takes its place.
    Cookie(Cookie),
    /// By a header, which says where its session is: nobody else has it.
    Header(Header),
}

impl Eq for Rule {}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        (&self.settings, &self.keys.digest) == (&other.settings, &other.keys.digest)
    }
}

/// How a request stood with the endpoint that it was held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It went to where its client belongs.
    Hit,
    /// Its client belonged to nobody yet.
    New,
    /// To an endpoint that is not there, cannot be used, or did not answer.
    Gone,
    /// What its client showed was not made with the keys.
    Forged,
    /// It was made too long ago.
    Expired,
}

impl Standing {
    /// Each once, in the order of their declaration.
    pub const ALL: [Standing; 5] = [Standing::Hit, Standing::New, Standing::Gone, Standing::Forged, Standing::Expired];

    /// As metrics, logs and traces call it.
    pub fn name(self) -> &'static str {
        match self {
            Standing::Hit => "hit",
            Standing::New => "new",
            Standing::Gone => "gone",
            Standing::Forged => "forged",
            Standing::Expired => "expired",
        }
    }
}

/// A service's, for the endpoints of one snapshot.
#[derive(Debug)]
pub struct Affinity {
    /// What is declared.
    pub rule: Arc<Rule>,
    words: Words,
    /// A session that could not be sealed is told so often.
    unsealed: Seldom,
}

/// What a request is held to.
#[derive(Debug, Default)]
pub struct Held {
    endpoint: Option<Arc<Endpoint>>,
    /// The policy names endpoints, which comes before a cookie.
    named: bool,
    /// By the key that signs now.
    newest: bool,
    /// The session as its endpoint calls it.
    session: Option<Vec<u8>>,
    /// How it stands so far.
    pub standing: Option<Standing>,
}

impl Held {
    /// Where it goes first.
    pub fn first(&self, tried: &[u32]) -> Option<&Arc<Endpoint>> {
        self.endpoint.as_ref().filter(|_| tried.is_empty() && !self.named)
    }

    /// Nobody but that endpoint can answer it.
    pub fn is_bound(&self) -> bool {
        self.session.is_some()
    }

    /// The number of that endpoint.
    pub fn bound_to(&self) -> Option<u32> {
        self.endpoint.as_ref().filter(|_| self.is_bound()).map(|endpoint| endpoint.id)
    }

    /// What its endpoint calls the session.
    pub fn session(&self) -> Option<&[u8]> {
        self.session.as_deref()
    }
}

impl Affinity {
    /// Of this service, with the endpoints of the snapshot that comes after the one of `before`. Endpoints that are new cost an
    /// HMAC for each key.
    pub fn after(before: Option<&Arc<Affinity>>, rule: &Arc<Rule>, service: &str, endpoints: &Endpoints) -> Arc<Self> {
        let before = before.filter(|before| before.rule == *rule);
        let words = match (&rule.kind, before) {
            (Kind::Header(_), Some(before)) => return Arc::clone(before),
            (Kind::Header(_), None) => Words::default(),
            (Kind::Cookie(_), Some(before)) if before.words.is_of(endpoints) => return Arc::clone(before),
            (Kind::Cookie(_), before) => Words::new(service, &rule.keys, endpoints, before.map(|before| &before.words)),
        };
        Arc::new(Affinity { rule: Arc::clone(rule), words, unsealed: Seldom::each(Duration::from_secs(60)) })
    }

    /// The header in which endpoints name their sessions, if clients are known by one.
    pub fn header(&self) -> Option<&str> {
        match &self.rule.kind {
            Kind::Cookie(_) => None,
            Kind::Header(header) => Some(&header.name),
        }
    }

    /// What a request with these headers is held to. `now_s`: since 1970-01-01 UTC.
    ///
    /// # Errors
    /// It shows a session that is none, or whose endpoint is not there ([`Error::Session`]), or that cannot be reached now
    /// ([`Error::NoEndpoint`]).
    pub fn ask(&self, service: &Service, plan: &Plan, headers: &Fields, now_s: u64) -> Result<Held, (Error, Standing)> {
        match &self.rule.kind {
            Kind::Cookie(cookie) => Ok(self.by_cookie(cookie, service, plan, headers)),
            Kind::Header(header) => self.by_header(header, service, plan, headers, now_s),
        }
    }

    fn by_cookie(&self, cookie: &Cookie, service: &Service, plan: &Plan, headers: &Fields) -> Held {
        let named = !plan.endpoints.is_empty();
        let stands = |standing| Held { named, standing: Some(standing).filter(|_| !named), ..Held::default() };
        let Some(value) = headers::cookie(headers, &cookie.name) else { return stands(Standing::New) };
        let (address, newest) = match self.words.read(&service.name, &self.rule.keys, value.as_bytes()) {
            Says::Here { address, newest } => (address, newest),
            Says::Gone => return stands(Standing::Gone),
            Says::Nothing => return stands(Standing::Forged),
        };
        let endpoint = service.endpoints.by_address(address);
        match endpoint.filter(|endpoint| endpoint.usable() && service.fits(&plan.subset, endpoint)) {
            Some(endpoint) => Held { endpoint: Some(Arc::clone(endpoint)), newest, ..stands(Standing::Hit) },
            None => stands(Standing::Gone),
        }
    }

    fn by_header(
        &self,
        header: &Header,
        service: &Service,
        plan: &Plan,
        headers: &Fields,
        now_s: u64,
    ) -> Result<Held, (Error, Standing)> {
        let refuse = |standing| (Error::Session, standing);
        if !headers.has(&header.name) {
            return Ok(Held::default());
        }
        // Two of them are nobody's.
        let value = headers.only(&header.name).ok_or(refuse(Standing::Forged))?;
        let opened = header.open(&service.name, &self.rule.keys, value, now_s).map_err(|refused| match refused {
            Refused::Forged => refuse(Standing::Forged),
            Refused::Expired => refuse(Standing::Expired),
        })?;
        // What a policy or the service wants is obeyed; what it would like better is not.
        let endpoint = find(&service.endpoints, opened.address).filter(|endpoint| service.fits(&plan.subset, endpoint));
        let endpoint = endpoint.ok_or(refuse(Standing::Gone))?;
        // Ejected, it still is the only one that has the session.
        if !endpoint.source_healthy || !endpoint.live.is_reachable() {
            return Err((Error::NoEndpoint, Standing::Gone));
        }
        let (endpoint, session) = (Some(Arc::clone(endpoint)), Some(opened.inner));
        Ok(Held { endpoint, session, standing: Some(Standing::Hit), ..Held::default() })
    }

    /// `endpoint` has answered with these headers, which become the client's. `asked`: the request's. `good`: the answer is none
    /// that speaks against the endpoint. Gives how the request stood.
    pub fn tell(
        &self,
        held: &Held,
        asked: &Fields,
        (endpoint, good): (&Endpoint, bool),
        headers: &mut Fields,
        now_s: u64,
    ) -> Option<Standing> {
        match &self.rule.kind {
            Kind::Cookie(cookie) => {
                let same = held.endpoint.as_ref().is_some_and(|held| held.id == endpoint.id);
                if (!same || !held.newest)
                    && good
                    && let Some(value) = self.words.write(endpoint.address)
                {
                    headers.append("set-cookie", cookie.line(&value).as_bytes());
                }
                match held.standing {
                    Some(Standing::Hit) if !same => Some(Standing::Gone),
                    standing => standing,
                }
            }
            Kind::Header(header) => {
                if !headers.has(&header.name) {
                    return held.standing;
                }
                let session = headers.only(&header.name).map(<[u8]>::to_vec);
                headers.remove(&header.name);
                // A session that goes on keeps its name: clients may go by that.
                let same = session.is_some() && session == held.session;
                if let Some(shown) = asked.only(&header.name).filter(|_| same) {
                    headers.append(&*header.name, shown);
                } else {
                    self.seal(header, endpoint, session.as_deref(), headers, now_s);
                }
                held.standing.or(Some(Standing::New))
            }
        }
    }

    /// Whatever cannot be sealed is not shown: a client could not come back with it.
    fn seal(&self, header: &Header, endpoint: &Endpoint, session: Option<&[u8]>, headers: &mut Fields, now_s: u64) {
        let seal = |session| header.seal(&endpoint.service, &self.rule.keys, endpoint.address, session, now_s);
        match session.and_then(seal) {
            Some(sealed) => headers.append(&*header.name, sealed.as_bytes()),
            None => {
                if let Some(left_out) = self.unsealed.may() {
                    let (service, endpoint, header) = (&endpoint.service, endpoint.address, &header.name);
                    tracing::warn!(left_out, %service, %endpoint, %header, "a session was taken away: its header is there twice, or its value is longer than 1 KiB");
                }
            }
        }
    }
}

/// The endpoint at this address, or at the same in IPv6 (RFC 4291 §2.5.5.2).
fn find(endpoints: &Endpoints, address: SocketAddr) -> Option<&Arc<Endpoint>> {
    endpoints.by_address(address).or_else(|| match address.ip() {
        IpAddr::V4(ip) => endpoints.by_address(SocketAddr::new(ip.to_ipv6_mapped().into(), address.port())),
        IpAddr::V6(_) => None,
    })
}

#[cfg(test)]
mod tests;
