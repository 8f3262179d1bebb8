//! Headers that only a proxy before the gateway may send, in every spelling: applications that put headers into
//! variables (CGI, WSGI, PHP, Rack) read `X_Real_IP` and `X-Real-IP` as one.

use http::HeaderName;

/// What says who the client is, which the gateway says itself.
const ALWAYS: [&str; 4] = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded"];

/// What of a client's request is removed by default.
pub const DEFAULT: [&str; 4] = ["x-forwarded-*", "x-real-ip", "x-original-url", "x-rewrite-url"];

/// Names of headers, some by how they begin.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct Untrusted {
    names: Vec<Pattern>,
    /// The bytes that any of them begins with, so that nearly every header is passed by at the first look.
    first: [bool; 256],
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    name: String,
    /// Whatever follows.
    open: bool,
}

impl TryFrom<Vec<String>> for Untrusted {
    type Error = String;

    fn try_from(names: Vec<String>) -> Result<Self, String> {
        Untrusted::new(names.iter().map(String::as_str))
    }
}

impl Untrusted {
    /// These names (`x-real-ip`), or all that begin so (`x-forwarded-*`), beside what the gateway says itself.
    ///
    /// # Errors
    /// The one that is no name.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut read = Untrusted { names: Vec::new(), first: [false; 256] };
        for name in ALWAYS.into_iter().chain(names) {
            let plain = name.strip_suffix('*').unwrap_or(name);
            // A star could stand in a name, but nobody means that. Read, it is in lower case from now on.
            let (Ok(plain), false) = (plain.parse::<HeaderName>(), plain.contains('*')) else {
                return Err(format!("`{name}` is no name of a header, like `x-real-ip` or `x-forwarded-*`"));
            };
            let pattern = Pattern { name: plain.as_str().replace('_', "-"), open: name.ends_with('*') };
            for first in pattern.name.bytes().take(1) {
                read.first[usize::from(first)] = true;
            }
            read.names.push(pattern);
        }
        read.first[usize::from(b'_')] |= read.first[usize::from(b'-')];
        Ok(read)
    }

    /// Is it one of these?
    pub fn has(&self, name: &[u8]) -> bool {
        let may_be = name.first().is_some_and(|first| self.first[usize::from(*first)]);
        may_be && self.names.iter().any(|pattern| pattern.fits(name))
    }
}

impl Pattern {
    fn fits(&self, name: &[u8]) -> bool {
        let wanted = self.name.as_bytes();
        let long_enough = if self.open { name.len() >= wanted.len() } else { name.len() == wanted.len() };
        long_enough && wanted.iter().zip(name).all(|(wanted, byte)| wanted == byte || (*wanted, *byte) == (b'-', b'_'))
    }
}

impl Default for Untrusted {
    fn default() -> Self {
        // Each of these is a name.
        Untrusted::new(DEFAULT).unwrap_or(Untrusted { names: Vec::new(), first: [false; 256] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::fields::Fields;

    fn left(untrusted: &Untrusted, names: &[&str]) -> Vec<String> {
        let mut headers = Fields::default();
        for name in names {
            headers.append(name.to_ascii_lowercase(), b"1");
        }
        headers.retain(|name| !untrusted.has(name));
        headers.iter().map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect()
    }

    #[test]
    fn every_spelling_is_removed_and_nothing_that_only_looks_alike() {
        let removed = [
            "X-Forwarded-For",
            "x_forwarded_for",
            "X_Forwarded-Host",
            "x-forwarded_proto",
            "x-forwarded-port",
            "x_forwarded_prefix",
            "X-FORWARDED-SERVER",
            "x-forwarded-client-cert",
            "x_forwarded_client-cert",
            "x-forwarded-whatever",
            "forwarded",
            "x-real-ip",
            "x_real_ip",
            "X-Original-Url",
            "x_original-url",
            "x-rewrite_url",
        ];
        assert_eq!(left(&Untrusted::default(), &removed), [""; 0]);
        let kept = [
            "x-forwarded",
            "x-real-ip2",
            "x-real",
            "xx-real-ip",
            "forwarded-for",
            "x-request-id",
            "host",
            "x--real-ip",
        ];
        assert_eq!(left(&Untrusted::default(), &kept).len(), kept.len());
    }

    #[test]
    fn what_the_gateway_says_itself_is_always_removed() {
        let own = Untrusted::new(["client_ip", "-odd*"]).unwrap();
        let sent = ["x_forwarded_for", "x_forwarded_proto", "x-forwarded_host", "Client-IP", "_odd_one", "x-real-ip"];
        assert_eq!(left(&own, &sent), ["x-real-ip"]);
    }

    #[test]
    fn what_is_no_name_is_named() {
        for name in ["", "*", "a b", "x-*-y", "é"] {
            let problem = Untrusted::new([name]).unwrap_err();
            assert!(problem.starts_with(&format!("`{name}` is no name of a header")), "{problem}");
        }
    }
}
