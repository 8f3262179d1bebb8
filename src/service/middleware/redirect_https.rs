//! `redirect_https`: who comes without TLS is sent to where there is TLS, with 308 (RFC 9110 §15.4.9), so that the method
//! and the body stay.

use crate::http::request::Head;
use crate::http::request::client;
use serde::Deserialize;

/// Where to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RedirectHttps {
    /// The port of the listener with TLS as clients see it; none: 443.
    pub port: Option<u16>,
}

impl RedirectHttps {
    /// Where this request is sent; none: it has come over TLS. Of a client that names no host, `Some("")`: nobody knows.
    pub fn of(self, head: &Head) -> Option<String> {
        if client::came_over_tls(&head.parts.headers, &head.peer, head.peer_is_trusted) {
            return None;
        }
        let (host, target) = (head.host(), head.parts.target.as_str());
        if host.is_empty() || !target.starts_with('/') {
            return Some(String::new());
        }
        let port = self.port.filter(|port| *port != 443).map(|port| format!(":{port}")).unwrap_or_default();
        Some(format!("https://{host}{port}{target}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::Peer;

    fn head(host: &str, path: &str, proto: &[&str], trusted: bool) -> std::sync::Arc<Head> {
        let mut request = http::Request::get(path);
        for (name, value) in [("host", host)].into_iter().chain(proto.iter().map(|proto| ("x-forwarded-proto", *proto)))
        {
            if !value.is_empty() {
                request = request.header(name, value);
            }
        }
        let networks = if trusted { vec!["127.0.0.0/8".parse().unwrap()] } else { vec![] };
        Head::new(request.body(()).unwrap().into_parts().0, Peer::new(([127, 0, 0, 1], 1).into()), &networks)
    }

    #[test]
    fn a_redirect_keeps_host_path_and_query() {
        let to = |port, host, path| RedirectHttps { port }.of(&head(host, path, &[], false));
        assert_eq!(to(None, "Shop.example:8080", "/a//b?c=d").as_deref(), Some("https://shop.example/a//b?c=d"));
        assert_eq!(to(Some(8443), "shop.example", "/").as_deref(), Some("https://shop.example:8443/"));
        assert_eq!(to(Some(443), "[::1]:80", "/").as_deref(), Some("https://[::1]/"));
        assert_eq!(to(None, "", "/").as_deref(), Some(""));
    }

    #[test]
    fn only_a_trusted_proxy_can_say_that_tls_was_spoken() {
        let goes_on = |proto: &[&str], trusted| RedirectHttps::default().of(&head("a", "/", proto, trusted)).is_none();
        assert!(goes_on(&["https"], true) && goes_on(&["HTTPS"], true) && goes_on(&["http, https"], true));
        assert!(!goes_on(&["https"], false));
        // The last word is that of the proxy itself.
        for proto in [&["https, http"][..], &["https", "http"], &["http"], &[], &["httpsx"]] {
            assert!(!goes_on(proto, true), "{proto:?}");
        }
    }
}
