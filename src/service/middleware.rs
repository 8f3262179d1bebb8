//! Middleware, `[[middleware]]`: what happens to requests on their way, and to their responses, before anybody is asked
//! where they go. Each table says which requests it fits, as `[[routes]]` do, and has one kind, in a file of its own.

pub mod api_key;
pub mod basic;
pub mod compress;
pub mod cors;
pub mod forward_auth;
pub mod jwt;
mod live;
pub mod mirror;
pub mod redirect_https;
pub mod request_id;

use super::record::By;
use super::route::{Index, Match, RawMatch};
use crate::base::{digest, files};
use crate::http::request::Head;
use api_key::ApiKey;
use basic::Basic;
use compress::Compress;
use cors::Cors;
use forward_auth::ForwardAuth;
use jwt::{Jwt, KeySet};
pub use live::{Live, Outcome, UnderWay};
use mirror::Mirror;
use redirect_https::RedirectHttps;
use request_id::RequestId;
use serde::Deserialize;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The most tables. A request looks only at those whose host and path it has.
const MOST: usize = 1000;
/// Bytes of a name, which goes into each line of the access log that it is about.
const NAME: usize = 128;

/// A table of `[[middleware]]` as it is written; it has exactly one of the kinds.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// For people; none: the kind, and what it matches.
    name: Option<String>,
    /// Which requests it fits; default: every one.
    #[serde(rename = "match", default)]
    rule: RawMatch,
    request_id: Option<RequestId>,
    redirect_https: Option<RedirectHttps>,
    cors: Option<cors::Settings>,
    basic: Option<basic::Settings>,
    api_key: Option<api_key::Settings>,
    jwt: Option<jwt::Settings>,
    forward_auth: Option<ForwardAuth>,
    mirror: Option<Mirror>,
    compress: Option<Compress>,
}

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

/// One table that was checked.
#[derive(Debug, Clone)]
pub struct Middleware {
    /// For people.
    pub name: Arc<str>,
    /// Which requests it fits.
    pub matcher: Match,
    /// What is done to them.
    pub kind: Kind,
    /// What came of it.
    pub live: Arc<Live>,
}

/// All of it, in the order of the file.
#[derive(Debug, Default)]
pub struct Chain {
    /// One after the other.
    pub all: Vec<Middleware>,
    /// Of their rules.
    index: Index,
    /// Headers in which the gateway tells endpoints what it has verified: no client's request keeps them, whichever
    /// middleware fits it. In lower case, with dashes for underscores.
    pub facts: Vec<String>,
    /// All that was read beside the configuration itself.
    pub files: Vec<PathBuf>,
    /// Of what stood in them.
    pub digest: String,
}

/// What is read beside the configuration while it is checked.
#[derive(Debug, Default)]
pub struct Read {
    /// Each file.
    pub files: Vec<PathBuf>,
    /// Digests of what stood in them.
    pub digest: String,
}

impl Chain {
    /// Checks all tables, and reads the files that they name, which are relative to `folder`. `is_service`: there is a
    /// service of this name, or may be.
    ///
    /// # Errors
    /// The first that is wrong: its number and key, and what to do.
    pub fn check(written: Vec<Written>, folder: &Path, is_service: impl Fn(&str) -> bool) -> Result<Self, String> {
        if written.len() > MOST {
            return Err(format!("there are {} tables, and {MOST} are the most", written.len()));
        }
        let mut chain = Chain::default();
        let (mut read, mut names) = (Read::default(), HashSet::new());
        for (index, written) in written.into_iter().enumerate() {
            let at = |problem: String| format!("number {}: {problem}", index + 1);
            let is_named = written.name.is_some();
            let mut middleware = written.check(folder, &mut read, &mut chain.facts, &is_service).map_err(at)?;
            if is_named && names.contains(&middleware.name) {
                return Err(at(format!(
                    "there is another one named `{}`; give this one another `name`",
                    middleware.name
                )));
            }
            let plain = Arc::clone(&middleware.name);
            for number in 2.. {
                if names.insert(Arc::clone(&middleware.name)) {
                    break;
                }
                middleware.name = format!("{plain} ({number})").into();
            }
            chain.all.push(middleware);
        }
        (chain.files, chain.digest) = (read.files, read.digest);
        chain.index = Index::of(chain.all.iter().map(|middleware| &middleware.matcher));
        Ok(chain)
    }

    /// The same, which goes on with what `before` has counted under the same names, and with the keys that it fetched.
    #[must_use]
    pub fn after(&self, before: &Chain) -> Self {
        let lives: HashMap<&str, &Middleware> = before.all.iter().map(|one| (&*one.name, one)).collect();
        let mut sets: Vec<Arc<KeySet>> = before.key_sets().cloned().collect();
        let goes_on = |one: &Middleware| {
            let before = lives.get(&*one.name).filter(|before| before.kind.is_like(&one.kind));
            let live = Arc::clone(&before.unwrap_or(&one).live);
            let mut kind = one.kind.clone();
            if let Kind::Jwt(jwt) = &mut kind
                && jwt.keys.remote.is_some()
            {
                match sets.iter().find(|set| set.remote == jwt.keys.remote) {
                    Some(same) => *jwt = Arc::new(jwt.with(Arc::clone(same))),
                    None => sets.push(Arc::clone(&jwt.keys)),
                }
            }
            Middleware { kind, live, ..one.clone() }
        };
        let all: Vec<Middleware> = self.all.iter().map(goes_on).collect();
        let index = Index::of(all.iter().map(|middleware| &middleware.matcher));
        Chain { all, index, facts: self.facts.clone(), files: self.files.clone(), digest: self.digest.clone() }
    }

    /// Keys that are fetched by URL.
    pub fn key_sets(&self) -> impl Iterator<Item = &Arc<KeySet>> {
        self.all.iter().filter_map(|one| one.kind.key_set())
    }

    /// In order, those that can be about a request of this host and path.
    pub fn about<'a>(&'a self, head: &Head) -> impl Iterator<Item = &'a Middleware> + use<'a> {
        self.index.candidates(head).filter_map(|number| self.all.get(number))
    }

    /// There is nothing to do for any request.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// A client's header of this name would pass for the gateway's own word.
    pub fn is_fact(&self, name: &[u8]) -> bool {
        let same = |(fact, byte): (u8, &u8)| fact == *byte || (fact, *byte) == (b'-', b'_');
        self.facts.iter().any(|fact| fact.len() == name.len() && fact.bytes().zip(name).all(same))
    }
}

impl Middleware {
    /// As records name it.
    pub fn by(&self) -> By {
        By { name: Arc::clone(&self.name), kind: self.kind.name() }
    }
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
    fn is_like(&self, other: &Kind) -> bool {
        self.name() == other.name()
    }
}

impl Read {
    /// The text of a file that `key` names.
    fn text(&mut self, key: &str, file: PathBuf, most: u64) -> Result<String, String> {
        let read = files::read_text(&file, most);
        let text = read.map_err(|error| format!("{key} {}: cannot be read: {error}", file.display()))?;
        self.digest.push_str(&digest::short(text.as_bytes()));
        self.files.push(file);
        Ok(text)
    }
}

impl Written {
    fn check(
        self,
        folder: &Path,
        read: &mut Read,
        facts: &mut Vec<String>,
        is_service: &impl Fn(&str) -> bool,
    ) -> Result<Middleware, String> {
        let matcher = self.rule.check().map_err(|problem| format!("match.{problem}"))?;
        let mut kinds: Vec<Kind> = Vec::new();
        if let Some(settings) = self.request_id {
            settings.check().map_err(|problem| format!("request_id.{problem}"))?;
            kinds.push(Kind::RequestId(Arc::new(settings)));
        }
        if let Some(settings) = self.redirect_https {
            kinds.push(Kind::RedirectHttps(settings));
        }
        if let Some(settings) = self.cors {
            let cors = settings.check().map_err(|problem| format!("cors.{problem}"))?;
            kinds.push(Kind::Cors(Arc::new(cors)));
        }
        if let Some(settings) = self.basic {
            let basic = settings.check(folder, read).map_err(|problem| format!("basic.{problem}"))?;
            facts.push(basic.header.replace('_', "-"));
            kinds.push(Kind::Basic(Arc::new(basic)));
        }
        if let Some(settings) = self.api_key {
            let api_key = settings.check(folder, read).map_err(|problem| format!("api_key.{problem}"))?;
            facts.push(api_key.subject.replace('_', "-"));
            kinds.push(Kind::ApiKey(Arc::new(api_key)));
        }
        if let Some(settings) = self.jwt {
            let jwt = settings.check(folder, read).map_err(|problem| format!("jwt.{problem}"))?;
            facts.extend(jwt.headers.iter().map(|(header, _)| header.replace('_', "-")));
            kinds.push(Kind::Jwt(Arc::new(jwt)));
        }
        if let Some(settings) = self.forward_auth {
            settings.check(is_service).map_err(|problem| format!("forward_auth.{problem}"))?;
            facts.extend(settings.facts().map(|name| name.replace('_', "-")));
            kinds.push(Kind::ForwardAuth(Arc::new(settings)));
        }
        if let Some(settings) = self.mirror {
            settings.check(is_service).map_err(|problem| format!("mirror.{problem}"))?;
            facts.push(mirror::HEADER.to_owned());
            kinds.push(Kind::Mirror(Arc::new(settings)));
        }
        if let Some(settings) = self.compress {
            settings.check().map_err(|problem| format!("compress.{problem}"))?;
            kinds.push(Kind::Compress(Arc::new(settings)));
        }
        let many = kinds.len();
        let (Some(kind), 1) = (kinds.pop(), many) else {
            return Err(format!(
                "it has {many} kinds and needs exactly one, like `cors = {{ … }}`; write a table for each"
            ));
        };
        let name = match self.name {
            Some(name) if name.is_empty() || name.len() > NAME || name.bytes().any(|byte| byte.is_ascii_control()) => {
                return Err(format!("`name`: expected 1 to {NAME} bytes without control characters"));
            }
            Some(name) => name,
            None => format!("{} {}", kind.name(), matcher.label()),
        };
        Ok(Middleware { name: name.into(), matcher, kind, live: Arc::default() })
    }
}

#[cfg(test)]
mod tests;
