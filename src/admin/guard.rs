//! Who may ask: a page of another site must not, by whichever name it reaches the gateway. A browser says the name that it
//! asked by in `Host`, so a name that an attacker has pointed at this address (DNS rebinding) shows there.

use super::problem;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::Response;
use std::net::IpAddr;
use std::sync::Arc;

/// Probes ask by whatever name, and are told nothing of worth.
const PROBES: [&str; 2] = ["/healthz", "/readyz"];

/// Refuses what no operator and no scraper sends.
pub(super) async fn check(State(hosts): State<Arc<[String]>>, request: Request, next: Next) -> Response {
    if !PROBES.contains(&request.uri().path())
        && let Err((status, code, reason)) = allowed(request.headers(), request.uri(), &hosts)
    {
        return problem(status, code, reason);
    }
    next.run(request).await
}

type Refusal = (StatusCode, &'static str, &'static str);

fn allowed(headers: &HeaderMap, uri: &Uri, hosts: &[String]) -> Result<(), Refusal> {
    let host = uri.host().or_else(|| headers.get(header::HOST).map_or(Some(""), |host| host.to_str().ok()));
    // HTTP/1.0's clients need not name one, and no browser speaks that.
    let Some(host) = host.map(name) else { return Err(MISDIRECTED) };
    if !host.is_empty() && !is_ours(host, hosts) {
        return Err(MISDIRECTED);
    }
    // "null" is an origin as well: nobody's.
    if let Some(origin) = headers.get(header::ORIGIN)
        && origin_host(origin) != Some(host)
    {
        return Err(FOREIGN);
    }
    if headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site") {
        return Err(FOREIGN);
    }
    Ok(())
}

const MISDIRECTED: Refusal = (
    StatusCode::MISDIRECTED_REQUEST,
    "misdirected",
    "The admin answers to IP addresses, localhost, and the names in gateway.admin_hosts.",
);
const FOREIGN: Refusal = (StatusCode::FORBIDDEN, "foreign_origin", "A page of another site must not ask this.");

/// The host without its port; an IPv6 address without its brackets.
fn name(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    authority.rsplit_once(':').map_or(authority, |(host, _)| host)
}

fn is_ours(host: &str, hosts: &[String]) -> bool {
    let host = host.trim_end_matches('.');
    let local = host.len() >= 9 && host.is_char_boundary(host.len() - 9) && {
        let (before, last) = host.split_at(host.len() - 9);
        last.eq_ignore_ascii_case("localhost") && (before.is_empty() || before.ends_with('.'))
    };
    local || host.parse::<IpAddr>().is_ok() || hosts.iter().any(|known| known.eq_ignore_ascii_case(host))
}

fn origin_host(origin: &HeaderValue) -> Option<&str> {
    let (_, authority) = origin.to_str().ok()?.split_once("://")?;
    Some(name(authority))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(headers: &[(&'static str, &'static str)]) -> u16 {
        let headers = headers
            .iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), HeaderValue::from_static(value)));
        let hosts = ["gateway.internal".to_owned()];
        allowed(&headers.collect(), &Uri::from_static("/services"), &hosts)
            .map_or_else(|refusal| refusal.0.as_u16(), |()| 200)
    }

    #[test]
    fn only_names_that_nobody_else_can_point_here_are_answered() {
        for host in [
            "127.0.0.1:9901",
            "[::1]:9901",
            "localhost",
            "LOCALHOST:9901",
            "a.localhost.",
            "10.1.2.3",
            "Gateway.internal:9901",
        ] {
            assert_eq!(told(&[("host", host)]), 200, "{host}");
        }
        for host in
            ["evil.example", "evil.example:9901", "notlocalhost", "127.0.0.1.evil.example", "gateway.internal.evil"]
        {
            assert_eq!(told(&[("host", host)]), 421, "{host}");
        }
        assert_eq!(told(&[]), 200);
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        let host = ("host", "127.0.0.1:9901");
        for (origin, expected) in [
            ("http://127.0.0.1:9901", 200),
            ("http://evil.example", 403),
            ("null", 403),
            ("http://localhost:9901", 403),
        ] {
            assert_eq!(told(&[host, ("origin", origin)]), expected, "{origin}");
        }
        assert_eq!(told(&[host, ("sec-fetch-site", "cross-site")]), 403);
        assert_eq!(told(&[host, ("sec-fetch-site", "same-origin")]), 200);
    }

    proptest::proptest! {
        #[test]
        fn no_host_makes_it_panic(host in "\\PC{0,20}") {
            let _ = is_ours(name(&host), &[]);
        }
    }
}
