//! `Via` (RFC 9110 §7.6.3): how the gateway names itself to those behind it, and how it finds itself before it.

use crate::http::fields::Fields;
use http::Version;

/// So many gateways of one name may stand in a row. One more is taken for a loop: an endpoint that leads back here.
const MOST: usize = 4;

/// How the gateway calls itself, behind each version that a client can speak.
#[derive(Debug, Clone, PartialEq)]
pub struct Via([Box<str>; 3]);

impl Via {
    /// None: it is no name that can stand there.
    pub fn new(pseudonym: &str) -> Option<Self> {
        let good = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
        if pseudonym.is_empty() || !pseudonym.chars().all(good) {
            return None;
        }
        let value = |version: &str| format!("{version} {pseudonym}").into();
        Some(Via([value("1.0"), value("1.1"), value("2")]))
    }

    /// As a request of this version came.
    pub fn of(&self, version: Version) -> &str {
        let [http_10, http_11, http_2] = &self.0;
        match version {
            Version::HTTP_2 => http_2,
            Version::HTTP_11 => http_11,
            _ => http_10,
        }
    }

    /// A request with these headers has come by this name so often that it goes round in a circle.
    pub fn is_loop(&self, headers: &Fields) -> bool {
        if !headers.has("via") {
            return false;
        }
        let Some(name) = self.0[0].strip_prefix("1.0 ") else { return false };
        let hops = headers.all("via").flat_map(|line| line.split(|byte| *byte == b','));
        // Version, name, and perhaps a comment.
        let is_us = |hop: &&[u8]| {
            let mut words = hop.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
            words.nth(1).is_some_and(|by| by.eq_ignore_ascii_case(name.as_bytes()))
        };
        hops.filter(is_us).nth(MOST - 1).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn via<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Fields {
        let mut headers = Fields::default();
        lines.for_each(|line| headers.append("via", line));
        headers
    }

    fn is_loop(name: &str, lines: &[&str]) -> bool {
        Via::new(name).unwrap().is_loop(&via(lines.iter().map(|line| line.as_bytes())))
    }

    #[test]
    fn a_name_that_comes_too_often_is_a_loop() {
        let once = "1.1 wayside";
        for most in 0..MOST {
            assert!(!is_loop("wayside", &vec![once; most]), "{most}");
        }
        assert!(is_loop("wayside", &[once; MOST]));
        assert!(is_loop("wayside", &["1.0 wayside, 2 other,1.1 Wayside (a, 1.1 b)", " 2\twayside , HTTP/1.1 WAYSIDE"]));
        for others in ["1.1 wayside2", "1.1 wayside:80", "wayside", "1.1", "1.1 other wayside", ",", ""] {
            assert!(!is_loop("wayside", &[others; 9]), "{others}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(line: Vec<u8>) {
            let _ = Via::new("a").unwrap().is_loop(&via([&line[..]].into_iter()));
        }
    }
}
