//! `compress`: responses are coded for clients that take it. Never what is coded already, what is a part, what flows as
//! events or gRPC, and what says `no-transform`.

use super::cors::vary;
use crate::http::coding::Coding;
use crate::http::fields::Fields;
use http::StatusCode;
use serde::Deserialize;

/// What is written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Compress {
    /// What is offered, the best first.
    codings: Vec<Coding>,
    /// Media types that are coded; `text/*` for all that begin so.
    types: Vec<String>,
    /// Bodies that say that they are smaller stay as they are, bytes.
    pub min_bytes: u64,
}

impl Default for Compress {
    fn default() -> Self {
        let types = [
            "text/*",
            "application/json",
            "application/*+json",
            "application/javascript",
            "application/xml",
            "application/*+xml",
            "application/wasm",
            "image/svg+xml",
        ];
        Compress {
            codings: vec![Coding::Zstd, Coding::Br, Coding::Gzip],
            types: types.map(str::to_owned).to_vec(),
            min_bytes: 1024,
        }
    }
}

impl Compress {
    /// # Errors
    /// What is wrong with which key.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.codings.is_empty() || self.types.is_empty() {
            return Err("`codings` and `types` must not be empty; leave them out for the defaults".to_owned());
        }
        let good = |kind: &String| kind.split_once('/').is_some_and(|(a, b)| !a.is_empty() && !b.is_empty());
        match self.types.iter().find(|kind| !good(kind) || kind.bytes().any(|byte| byte.is_ascii_uppercase())) {
            Some(bad) => Err(format!("types: `{bad}` is no media type; write it in lower case like `text/html`")),
            None => Ok(()),
        }
    }

    /// What this client takes and likes best.
    pub fn chosen(&self, headers: &Fields) -> Option<Coding> {
        Coding::chosen(&self.codings, headers.all("accept-encoding"))
    }

    /// Prepares the head of a response for `coding`: what it says from now on. False: it stays as it is.
    pub fn prepare(&self, status: StatusCode, headers: &mut Fields, coding: Option<Coding>) -> bool {
        if !self.may(status, headers) {
            return false;
        }
        vary(headers, "accept-encoding");
        let Some(coding) = coding else { return false };
        headers.set("content-encoding", coding.name().as_bytes());
        // Of other bytes than those that go out now.
        ["content-length", "content-digest", "content-md5", "digest", "accept-ranges"]
            .iter()
            .for_each(|name| headers.remove(name));
        if let Some(tag) = headers.only("etag").filter(|tag| tag.starts_with(b"\"")).map(|tag| [b"W/", tag].concat()) {
            // No longer equal byte for byte (RFC 9110 §8.8.3.3).
            headers.set("etag", &tag);
        }
        true
    }

    fn may(&self, status: StatusCode, headers: &Fields) -> bool {
        let whole = status != StatusCode::PARTIAL_CONTENT
            && status != StatusCode::NO_CONTENT
            && status != StatusCode::NOT_MODIFIED
            && !status.is_informational()
            && !headers.has("content-range");
        let large = headers.only("content-length").is_none_or(|length| {
            std::str::from_utf8(length)
                .ok()
                .and_then(|length| length.parse::<u64>().ok())
                .is_some_and(|length| length >= self.min_bytes)
        });
        let directive = |line: &[u8]| {
            line.split(|byte| *byte == b',').any(|one| one.trim_ascii().eq_ignore_ascii_case(b"no-transform"))
        };
        whole
            && large
            && !headers.has("content-encoding")
            && !headers.all("cache-control").any(directive)
            && headers.only("content-type").is_some_and(|kind| self.lists(kind))
    }

    fn lists(&self, kind: &[u8]) -> bool {
        let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let Ok(kind) = String::from_utf8(kind.to_ascii_lowercase()) else { return false };
        if kind == "text/event-stream" || kind.starts_with("application/grpc") {
            return false;
        }
        self.types.iter().any(|listed| match listed.split_once('*') {
            Some((start, end)) => {
                kind.len() >= start.len() + end.len() && kind.starts_with(start) && kind.ends_with(end)
            }
            None => *listed == kind,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coded(status: u16, lines: &[(&'static str, &'static str)]) -> (bool, Fields) {
        let mut headers: Fields = lines.iter().copied().collect();
        let status = StatusCode::from_u16(status).unwrap();
        (Compress::default().prepare(status, &mut headers, Some(Coding::Br)), headers)
    }

    #[test]
    fn what_is_coded_says_so_and_what_does_not_fit_any_more_goes() {
        let lines = [
            ("content-type", "text/html; charset=utf-8"),
            ("content-length", "5000"),
            ("etag", "\"a\""),
            ("accept-ranges", "bytes"),
        ];
        let (coded, headers) = coded(200, &lines);
        assert!(coded);
        assert_eq!(headers.only("content-encoding"), Some(&b"br"[..]));
        assert_eq!(headers.only("etag"), Some(&b"W/\"a\""[..]));
        assert_eq!(headers.only("vary"), Some(&b"accept-encoding"[..]));
        assert!(!headers.has("content-length") && !headers.has("accept-ranges"));
    }

    #[test]
    fn what_must_stay_as_it_is_does() {
        let json = ("content-type", "application/problem+json");
        assert!(coded(404, &[json]).0 && coded(200, &[json, ("content-length", "1024")]).0);
        for (status, lines) in [
            (206, &[json][..]),
            (204, &[json]),
            (304, &[json]),
            (101, &[json]),
            (200, &[]),
            (200, &[json, ("content-length", "1023")]),
            (200, &[json, ("content-encoding", "gzip")]),
            (200, &[json, ("content-range", "bytes 0-1/2")]),
            (200, &[json, ("cache-control", "private, No-Transform")]),
            (200, &[("content-type", "text/event-stream")]),
            (200, &[("content-type", "application/grpc+json")]),
            (200, &[("content-type", "image/png")]),
            (200, &[("content-type", "application/json2")]),
        ] {
            let (coded, headers) = coded(status, lines);
            assert!(!coded && !headers.has("vary"), "{status} {lines:?}");
        }
        // Who takes nothing coded gets it as it is, and caches learn that others may not.
        let mut headers: Fields = [json].into_iter().collect();
        assert!(!Compress::default().prepare(StatusCode::OK, &mut headers, None));
        assert!(headers.has("vary") && !headers.has("content-encoding"));
    }
}
