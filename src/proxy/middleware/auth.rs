//! Who asks: `basic`, `api_key` and `jwt`. What an endpoint is told of it stands in a header that no client can set.

use super::{Passing, Stop};
use crate::http::error::Error;
use crate::http::headers::cookie;
use crate::service::middleware::api_key::{ApiKey, Place};
use crate::service::middleware::basic::{Basic, Busy, credentials};
use crate::service::middleware::jwt::{self, Jwt, Untaken};
use std::sync::Arc;

/// # Errors
/// No right name and password.
pub(super) async fn basic(basic: &Arc<Basic>, passing: &mut Passing) -> Result<(), Stop> {
    let refuse = || Stop::Refuse(Error::Unauthenticated, Some(basic.challenge.clone()));
    let line = passing.head().parts.headers.only("authorization");
    let (name, password) = line.and_then(credentials).ok_or_else(refuse)?;
    match basic.verify(&name, password).await {
        Ok(true) => {}
        Ok(false) => return Err(refuse()),
        Err(Busy) => return Err(Stop::Refuse(Error::AuthUnavailable, None)),
    }
    passing.edit(|head| {
        if !basic.forward {
            head.parts.headers.remove("authorization");
        }
        head.parts.headers.set(&basic.header, name.as_bytes());
    });
    passing.record().user = Some(name.into());
    Ok(())
}

/// # Errors
/// No key, or one that nobody has.
pub(super) fn api_key(api_key: &ApiKey, passing: &mut Passing) -> Result<(), Stop> {
    let parts = &passing.head().parts;
    let key = match &api_key.place {
        Place::Header(header) => parts.headers.only(header).map(<[u8]>::to_vec),
        Place::Query(name) => parts.target.parameter(name).map(String::into_bytes),
    };
    let id = key.and_then(|key| api_key.id(&key)).cloned();
    // Also of one that is refused: it may be right elsewhere, and logs are read by many.
    passing.edit(|head| match &api_key.place {
        Place::Header(header) if !api_key.forward => head.parts.headers.remove(header),
        Place::Header(_) => {}
        Place::Query(name) => head.parts.target.remove_parameter(name),
    });
    let Some(id) = id else {
        return Err(Stop::Refuse(Error::Unauthenticated, Some(api_key.challenge.clone())));
    };
    passing.edit(|head| head.parts.headers.set(&api_key.subject, id.as_bytes()));
    passing.record().user = Some(id);
    Ok(())
}

/// # Errors
/// No token, or one that is not taken.
pub(super) fn jwt(jwt: &Jwt, passing: &mut Passing) -> Result<(), Stop> {
    let refuse = |problem| Stop::Refuse(Error::Unauthenticated, Some(jwt.challenge(problem)));
    let headers = &passing.head().parts.headers;
    let of_cookie = || cookie(headers, jwt.cookie.as_deref()?).map(String::into_bytes);
    let line = headers.only("authorization").and_then(jwt::bearer).map(<[u8]>::to_vec);
    let token = line.or_else(of_cookie).ok_or_else(|| refuse(None))?;
    let claims = jwt.verify(&token).map_err(|untaken| match untaken {
        Untaken::Bad(problem) => refuse(Some(problem)),
        Untaken::NoKeys => Stop::Refuse(Error::AuthUnavailable, None),
    })?;
    passing.edit(|head| {
        if !jwt.forward {
            head.parts.headers.remove("authorization");
        }
        for (header, claim) in &jwt.headers {
            if let Some(text) = claims.get(claim).and_then(jwt::text) {
                head.parts.headers.set(header, text.as_bytes());
            }
        }
    });
    passing.record().user = claims.get("sub").and_then(|sub| sub.as_str()).map(Arc::from);
    passing.edit(|head| head.claims = Some(Arc::new(claims)));
    Ok(())
}
