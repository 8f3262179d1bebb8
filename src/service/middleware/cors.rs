//! `cors`: pages of other origins may read responses (the Fetch standard, "CORS protocol"). What the endpoint says of it
//! itself is replaced; preflights are answered by the gateway.

mod origin;

use crate::base::duration;
use crate::http::fields::Fields;
use http::{HeaderName, Method};
use origin::Origin;
use serde::Deserialize;
use std::time::Duration;

/// What is written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// `https://shop.example`, `https://*.example.com` for any name below it, or `*` for every origin.
    origins: Vec<String>,
    /// Methods beside GET, HEAD and POST, which need no leave.
    methods: Vec<String>,
    /// Request headers beside the safelisted ones; `*` (without `credentials`): all but `authorization`.
    headers: Vec<String>,
    /// Response headers that pages may read beside the safelisted ones.
    expose: Vec<String>,
    /// Cookies and the like may come with it; needs each origin in full.
    credentials: bool,
    /// How long a browser may keep the answer to a preflight; none: as it likes, which is 5 s.
    #[serde(with = "duration::option")]
    max_age: Option<Duration>,
}

/// Which pages may do what.
#[derive(Debug)]
pub struct Cors {
    origins: Vec<Origin>,
    any: bool,
    methods: String,
    headers: String,
    expose: String,
    credentials: bool,
    max_age: Option<String>,
}

/// No browser keeps an answer for longer.
const LONGEST: Duration = Duration::from_secs(86_400);

impl Settings {
    /// # Errors
    /// What is wrong with which key.
    pub(super) fn check(self) -> Result<Cors, String> {
        if self.origins.is_empty() {
            return Err("origins: is missing; write origins like `https://shop.example`".to_owned());
        }
        let any = self.origins.iter().any(|origin| origin == "*");
        let origins = self.origins.iter().filter(|origin| *origin != "*").map(|origin| Origin::parse(origin));
        let origins = origins.collect::<Result<Vec<_>, String>>()?;
        let open = any || origins.iter().any(|origin| matches!(origin, Origin::Under(..)));
        if self.credentials && open {
            return Err("credentials: whoever has a name under a wildcard could act for each user; write each of `origins` in full"
                .to_owned());
        }
        if self.credentials
            && [&self.headers, &self.expose, &self.methods].iter().any(|list| list.iter().any(|a| a == "*"))
        {
            return Err(
                "credentials: with them, browsers take `*` for a name; write each of `headers` and `expose`".to_owned()
            );
        }
        for method in self.methods.iter().filter(|method| *method != "*") {
            Method::from_bytes(method.as_bytes()).map_err(|_| format!("methods: `{method}` is not an HTTP method"))?;
        }
        for (key, names) in [("headers", &self.headers), ("expose", &self.expose)] {
            if let Some(bad) = names.iter().find(|name| *name != "*" && name.parse::<HeaderName>().is_err()) {
                return Err(format!("{key}: `{bad}` is not a header name"));
            }
        }
        if self.max_age.is_some_and(|age| age > LONGEST) {
            return Err("max_age: no browser keeps it for longer than `24h`".to_owned());
        }
        Ok(Cors {
            origins,
            any,
            methods: self.methods.join(", "),
            headers: self.headers.join(", "),
            expose: self.expose.join(", "),
            credentials: self.credentials,
            max_age: self.max_age.map(|age| age.as_secs().to_string()),
        })
    }
}

/// Is it a preflight? It asks about the request that the page wants to make.
pub fn is_preflight(method: &Method, headers: &Fields) -> bool {
    method == Method::OPTIONS && headers.has("origin") && headers.has("access-control-request-method")
}

impl Cors {
    /// What the answer to this origin allows: its own name or `*`; none: nothing.
    pub fn allows<'a>(&self, origin: Option<&'a [u8]>) -> Option<&'a str> {
        let origin = std::str::from_utf8(origin?).ok()?;
        if self.any {
            return Some("*");
        }
        self.origins.iter().any(|allowed| allowed.fits(origin)).then_some(origin)
    }

    /// Says on a response what a page of this origin may do with it; on the answer to a preflight, what it may ask for.
    pub fn answer(&self, headers: &mut Fields, allowed: Option<&str>, preflight: bool) {
        headers.retain(|name| !name.starts_with(b"access-control-"));
        if !self.any {
            vary(headers, "origin");
        }
        let Some(allowed) = allowed else { return };
        headers.append("access-control-allow-origin", allowed.as_bytes());
        if self.credentials {
            headers.append("access-control-allow-credentials", b"true");
        }
        let lines = if preflight {
            [
                ("access-control-allow-methods", self.methods.as_str()),
                ("access-control-allow-headers", &self.headers),
                ("access-control-max-age", self.max_age.as_deref().unwrap_or_default()),
            ]
        } else {
            [("access-control-expose-headers", self.expose.as_str()), ("", ""), ("", "")]
        };
        for (name, value) in lines.into_iter().filter(|(_, value)| !value.is_empty()) {
            headers.append(name, value.as_bytes());
        }
    }
}

/// Says that the response depends on this header of the request (RFC 9110 §12.5.5).
pub fn vary(headers: &mut Fields, name: &str) {
    let named = headers.all("vary").any(|line| {
        line.split(|byte| *byte == b',')
            .map(<[u8]>::trim_ascii)
            .any(|one| one == b"*" || one.eq_ignore_ascii_case(name.as_bytes()))
    });
    if !named {
        headers.append("vary", name.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::chain;
    use super::super::{Chain, Kind};
    use super::*;

    fn cors(keys: &str) -> Result<Chain, String> {
        chain(&format!("[[middleware]]\ncors = {{ {keys} }}"))
    }

    fn good(keys: &str) -> std::sync::Arc<Cors> {
        match &cors(keys).unwrap().all[0].kind {
            Kind::Cors(cors) => cors.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_origin_is_allowed_in_full_or_below_a_name() {
        let cors = good("origins = ['https://shop.example', 'https://*.example.com', 'http://localhost:3000']");
        for origin in
            ["https://shop.example", "https://a.example.com", "https://a.b.example.com", "http://localhost:3000"]
        {
            assert_eq!(cors.allows(Some(origin.as_bytes())), Some(origin));
        }
        let strangers = [
            "http://shop.example",
            "https://shop.example.evil",
            "https://shop.example:8443",
            "https://example.com",
            "https://.example.com",
            "https://evilexample.com",
            "https://evil.com/.example.com",
            "https://evil.com#.example.com",
            "https://a@b.example.com",
            "http://a.example.com",
            "null",
            "",
        ];
        for origin in strangers {
            assert_eq!(cors.allows(Some(origin.as_bytes())), None, "{origin}");
        }
        assert_eq!(cors.allows(None), None);
        assert_eq!(good("origins = ['*']").allows(Some(b"null")), Some("*"));
    }

    #[test]
    fn what_no_browser_would_take_or_what_lets_everybody_in_is_refused() {
        for (keys, problem) in [
            ("", "origins: is missing"),
            ("origins = ['shop.example']", "origins: `shop.example` is no origin"),
            ("origins = ['https://shop.example/']", "origins: `https://shop.example/` is no origin"),
            ("origins = ['https://shop.example:443']", "origins: `https://shop.example:443` is no origin"),
            ("origins = ['https://*']", "origins: `https://*` is no origin"),
            ("origins = ['https://a.*.b']", "origins: `https://a.*.b` is no origin"),
            ("origins = ['*'], credentials = true", "credentials: whoever"),
            ("origins = ['https://*.a.b'], credentials = true", "credentials: whoever"),
            ("origins = ['https://a.b'], credentials = true, headers = ['*']", "credentials: with them"),
            ("origins = ['*'], methods = ['A B']", "methods: `A B` is not"),
            ("origins = ['*'], headers = ['a b']", "headers: `a b` is not"),
            ("origins = ['*'], max_age = '25h'", "max_age: no browser"),
        ] {
            let told = cors(keys).unwrap_err();
            assert!(told.starts_with(&format!("number 1: cors.{problem}")), "{told}");
        }
    }

    #[test]
    fn what_the_endpoint_says_is_replaced() {
        let cors = good("origins = ['https://a.b'], credentials = true, expose = ['x-a', 'x-b']");
        let lines = [("access-control-allow-origin", "*"), ("vary", "accept, Origin"), ("x", "y")];
        let mut headers: Fields = lines.into_iter().collect();
        cors.answer(&mut headers, Some("https://a.b"), false);
        assert_eq!(headers.only("access-control-allow-origin"), Some(&b"https://a.b"[..]));
        assert_eq!(headers.only("access-control-expose-headers"), Some(&b"x-a, x-b"[..]));
        assert_eq!(headers.only("vary"), Some(&b"accept, Origin"[..]));
        cors.answer(&mut headers, None, true);
        assert!(!headers.has("access-control-allow-origin") && !headers.has("access-control-allow-credentials"));
    }
}
