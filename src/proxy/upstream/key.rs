//! The key of the `hash`, `maglev` and `sticky` strategies.

use crate::http::fields::Fields;
use crate::http::headers::cookie;
use crate::http::request::Head;
use crate::service::Service;
use crate::service::balance;
use crate::service::plan::Plan;
use crate::service::settings::HashOn;
use std::net::IpAddr;

/// What strategies that hash go by; only read where one of them is used.
pub(super) fn key(service: &Service, plan: &Plan, head: &Head) -> String {
    match (balance::strategy(service, plan).hashes(), &plan.key) {
        (true, Some(key)) => key.clone(),
        (true, None) => default_key(&service.settings.hash_on, &head.parts.headers, head.client),
        (false, _) => String::new(),
    }
}

/// The key that is hashed for a request where no policy gave one.
fn default_key(hash_on: &HashOn, headers: &Fields, client: IpAddr) -> String {
    let value = match hash_on {
        HashOn::ClientAddress => None,
        HashOn::Header(name) => {
            headers.get(name.as_str()).and_then(|value| std::str::from_utf8(value).ok()).map(str::to_owned)
        }
        HashOn::Cookie(name) => cookie(headers, name),
    };
    value.unwrap_or_else(|| client.to_string())
}
