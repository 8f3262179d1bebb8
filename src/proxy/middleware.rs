//! What is declared as `[[middleware]]`, around a request: in file order before anybody is asked where it goes, and the
//! other way round on its response, whoever made that.

mod auth;
mod compress;
mod cors;
mod forward_auth;
mod mirror;
mod redirect_https;
mod request_id;

use super::Request;
use super::response::{self, Response};
use crate::http::coding::Coding;
use crate::http::error::Error;
use crate::http::fields::Fields;
use crate::http::request::Head;
use crate::service::decision::Answer;
use crate::service::middleware::compress::Compress;
use crate::service::middleware::cors::Cors;
use crate::service::middleware::mirror::Mirror;
use crate::service::middleware::{Chain, Kind, Middleware, Outcome};
use crate::service::record::Record;
use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use smallvec::SmallVec;
use std::sync::Arc;

/// Why a request goes no further.
enum Stop {
    /// It is answered with this.
    Answer(Box<Answer>),
    /// It is answered with what an external check has said.
    Reply(Box<Reply>),
    /// It is refused. With what the client is asked for (RFC 9110 §11.6.1), where it is asked for something.
    Refuse(Error, Option<String>),
}

/// What an external check says.
struct Reply {
    status: StatusCode,
    headers: Fields,
    body: Bytes,
}

/// What is done to the response.
enum After {
    /// The client is told the request's id.
    RequestId { header: String, id: Box<str> },
    /// The page is told what it may do. `allowed`: the origin that may.
    Cors { cors: Arc<Cors>, allowed: Option<Box<str>>, preflight: bool },
    /// It is coded, if it may be, for a client that takes this.
    Compress { compress: Arc<Compress>, coding: Option<Coding>, head_only: bool },
}

/// One request on its way through.
struct Passing {
    request: Request,
    after: SmallVec<[After; 2]>,
}

/// Those that shall have a copy of a request.
type Mirrors<'a> = SmallVec<[(&'a Mirror, &'a Middleware); 1]>;

/// Carries a request through all that fits it, to its endpoint if nothing stops it, and its response back.
pub(super) async fn around(request: Request) -> Response {
    let snapshot = Arc::clone(&request.snapshot);
    let mut passing = Passing { request, after: SmallVec::new() };
    let passed = before(&snapshot.middleware, &mut passing).await;
    let Passing { request, after } = passing;
    let mut response = match passed {
        Ok(mirrors) => match super::ask(request) {
            Ok((mut request, forward)) => {
                // Of what is refused, or goes nowhere, there are no copies.
                mirrors.into_iter().for_each(|(mirror, middleware)| mirror::begin(mirror, middleware, &mut request));
                super::send(request, forward).await
            }
            Err(response) => *response,
        },
        Err(Stop::Answer(answer)) => response::from_policy(request.exchange, *answer),
        Err(Stop::Reply(reply)) => {
            let Reply { status, headers, body } = *reply;
            response::from_reply(request.exchange, status, headers, body)
        }
        Err(Stop::Refuse(error, asks)) => {
            let mut response = response::from_error(request.exchange, error);
            if let Some(asks) = asks {
                response.headers.append("www-authenticate", asks.as_bytes());
            }
            response
        }
    };
    for after in after.into_iter().rev() {
        response = after.apply(response);
    }
    response
}

/// Everything that fits it, one after the other. Gives those that shall have a copy of it.
///
/// # Errors
/// It goes no further.
async fn before<'a>(chain: &'a Chain, passing: &mut Passing) -> Result<Mirrors<'a>, Stop> {
    if !chain.facts.is_empty() && passing.head().parts.headers.iter().any(|(name, _)| chain.is_fact(name)) {
        passing.edit(|head| head.parts.headers.retain(|name| !chain.is_fact(name)));
    }
    let mut mirrors = Mirrors::new();
    // None of them changes host or path, so what can fit stays the same.
    let about = chain.about(passing.head());
    for middleware in about {
        if !middleware.matcher.fits(passing.head()) {
            continue;
        }
        if let Kind::Mirror(mirror) = &middleware.kind {
            mirrors.push((mirror, middleware));
            continue;
        }
        one(middleware, passing).await.inspect_err(|stop| {
            middleware.live.count(stop.outcome());
            passing.record().stopped_by = Some(middleware.by());
        })?;
    }
    Ok(mirrors)
}

/// # Errors
/// It goes no further.
async fn one(middleware: &Middleware, passing: &mut Passing) -> Result<(), Stop> {
    match &middleware.kind {
        Kind::RequestId(settings) => request_id::before(settings, passing),
        Kind::RedirectHttps(settings) => return redirect_https::before(*settings, passing),
        Kind::Cors(cors) => return cors::before(cors, passing),
        Kind::Basic(basic) => return auth::basic(basic, passing).await,
        Kind::ApiKey(api_key) => return auth::api_key(api_key, passing),
        // Aside, as the way up is long.
        Kind::ForwardAuth(check) => return Box::pin(forward_auth::before(check, middleware, passing)).await,
        Kind::Compress(compress) => compress::before(compress, passing),
        Kind::Jwt(jwt) => return auth::jwt(jwt, passing),
        // Once it is known where it goes.
        Kind::Mirror(_) => {}
    }
    Ok(())
}

impl Stop {
    /// As it is counted.
    fn outcome(&self) -> Outcome {
        match self {
            Stop::Answer(_) => Outcome::Answered,
            Stop::Reply(reply) if reply.status.is_redirection() => Outcome::Answered,
            Stop::Reply(_) => Outcome::Refused,
            Stop::Refuse(Error::AuthUnavailable, _) => Outcome::Failed,
            Stop::Refuse(..) => Outcome::Refused,
        }
    }
}

impl Passing {
    fn head(&self) -> &Head {
        &self.request.head
    }

    fn record(&mut self) -> &mut Record {
        &mut self.request.exchange.record
    }

    /// Changes the head for whoever comes next; nobody has seen it yet but those here.
    fn edit(&mut self, change: impl FnOnce(&mut Head)) {
        // Given back at once, so that it is not copied.
        self.record().head = None;
        change(Arc::make_mut(&mut self.request.head));
        self.record().head = Some(Arc::clone(&self.request.head));
    }
}

impl After {
    fn apply(self, mut response: Response) -> Response {
        match self {
            After::RequestId { header, id } => response.headers.set(&header, id.as_bytes()),
            After::Compress { compress, coding, head_only } => {
                compress::after(&compress, coding, head_only, &mut response);
            }
            After::Cors { cors, allowed, preflight } => {
                cors.answer(&mut response.headers, allowed.as_deref(), preflight);
            }
        }
        response
    }
}

/// A value that the gateway made, where it can stand in a header.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}
