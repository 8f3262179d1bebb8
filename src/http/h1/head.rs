//! A strict reader of a request's head (RFC 9112). What passes has one meaning only: two lengths, bare line feeds or a
//! fragment in the target, which other parsers read differently or forgive, do not. Each line is looked at once, when all
//! of it is here, and nothing is made of a head before its last line was found good.

use super::chunks::Chunks;
use super::flow::Flow;
use super::line::{decimal, field, request_line};
use crate::http::fields::{Extent, FieldLine, Fields, USUAL};
use crate::http::malformed::Malformed;
use crate::http::request::Parts;
use crate::http::request::target::Target;
use http::{Method, Version};

/// A head whose bytes are coming.
#[derive(Debug)]
pub struct Parser {
    most_bytes: usize,
    most_headers: usize,
    /// Bytes that were looked at: whole lines, each good.
    read: usize,
    /// Bytes in which no further line end is.
    searched: usize,
    empty_lines: usize,
    /// Method and target; none: the request line has not come.
    request: Option<[Extent; 2]>,
    lines: Vec<FieldLine>,
    http_10: bool,
    length: Option<u64>,
    chunked: bool,
}

/// A whole head.
#[derive(Debug)]
pub struct Parsed {
    /// What it says.
    pub parts: Parts,
    /// How its body ends.
    pub body: Flow,
    /// Its bytes.
    pub bytes: usize,
}

impl Parser {
    /// Of so many bytes and headers at most.
    pub fn new(most_bytes: usize, most_headers: usize) -> Self {
        Parser {
            most_bytes,
            most_headers,
            read: 0,
            searched: 0,
            empty_lines: 0,
            request: None,
            lines: Vec::new(),
            http_10: false,
            length: None,
            chunked: false,
        }
    }

    /// Nothing was looked at yet.
    pub fn is_fresh(&self) -> bool {
        self.searched == 0
    }

    /// Looks at all bytes that have come since the head began. None: its end is not among them.
    ///
    /// # Errors
    /// It must not be forwarded; nothing more may be asked.
    pub fn read(&mut self, bytes: &[u8]) -> Result<Option<Parsed>, Malformed> {
        loop {
            let rest = &bytes[self.read..];
            let from = self.searched - self.read;
            let end = memchr::memchr(b'\n', &rest[from..]).map(|at| at + from);
            let length = end.map_or(rest.len(), |end| end + 1);
            if self.read + length >= self.most_bytes {
                return Err(match self.request {
                    None => Malformed::TargetTooLong,
                    Some(_) => Malformed::HeadTooLarge,
                });
            }
            let Some(end) = end else {
                self.searched = bytes.len();
                return Ok(None);
            };
            let Some((b'\r', line)) = rest[..end].split_last() else { return Err(Malformed::BareLineFeed) };
            // Wherever a carriage return can stand, it is bad, but not for being what it is.
            let over = self.line(line, self.read).map_err(|bad| match memchr::memchr(b'\r', line) {
                Some(_) => Malformed::BareCarriageReturn,
                None => bad,
            })?;
            self.read += length;
            self.searched = self.read;
            if over {
                return self.found(&bytes[..self.read]).map(Some);
            }
        }
    }

    /// A whole line, which stands at `at`; true: it is the last one.
    fn line(&mut self, line: &[u8], at: usize) -> Result<bool, Malformed> {
        if self.request.is_none() {
            if line.is_empty() {
                // Old clients send one after a body.
                self.empty_lines += 1;
                return if self.empty_lines > 1 { Err(Malformed::EmptyLines) } else { Ok(false) };
            }
            let (method, target, http_10) = request_line(line)?;
            self.http_10 = http_10;
            self.lines = Vec::with_capacity(USUAL);
            self.request = Some([Extent::of(line, at, method), Extent::of(line, at, target)]);
            return Ok(false);
        }
        if line.is_empty() {
            return match (self.chunked, self.length) {
                (true, Some(_)) => Err(Malformed::BothLengths),
                (true, None) if self.http_10 => Err(Malformed::TransferEncoding),
                _ => Ok(true),
            };
        }
        if self.lines.len() == self.most_headers {
            return Err(Malformed::HeadTooLarge);
        }
        let (name, value) = field(line)?;
        self.lines.push(FieldLine { name: Extent::of(line, at, name), value: Extent::of(line, at, value) });
        // There are two names that matter, so nearly every header is passed by its length.
        if name.len() == 14 && name.eq_ignore_ascii_case(b"content-length") {
            // Also two equal ones: whoever takes the first and whoever takes the last must not be told apart by chance.
            let length = decimal(value).filter(|_| self.length.is_none());
            self.length = Some(length.ok_or(Malformed::ContentLength)?);
        } else if name.len() == 17 && name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Malformed::TransferEncoding);
            }
            self.chunked = true;
        }
        Ok(false)
    }

    /// What all lines together say. That they are good was seen line by line.
    fn found(&mut self, head: &[u8]) -> Result<Parsed, Malformed> {
        let [method, target] = self.request.ok_or(Malformed::RequestLine)?;
        let parts = Parts {
            method: Method::from_bytes(&head[method.range()]).map_err(|_| Malformed::Method)?,
            target: Target::read(&head[target.range()]).ok_or(Malformed::Target)?,
            version: if self.http_10 { Version::HTTP_10 } else { Version::HTTP_11 },
            headers: Fields::of_head(head, std::mem::take(&mut self.lines)),
            websocket: false,
        };
        let body = match self.length {
            _ if self.chunked => Flow::Chunked(Box::new(Chunks::of_client(self.most_bytes, self.most_headers))),
            Some(length) if length > 0 => Flow::Bytes(length),
            _ => Flow::Over,
        };
        Ok(Parsed { parts, body, bytes: head.len() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::{HeaderMap, HeaderName, HeaderValue};
    use proptest::prelude::*;

    /// The head when it comes in pieces of these sizes.
    fn read(bytes: &[u8], pieces: &[usize]) -> Result<Option<Parsed>, Malformed> {
        let mut parser = Parser::new(1000, 5);
        let mut come = 0;
        for size in pieces.iter().copied().chain([bytes.len()]) {
            come = (come + size.max(1)).min(bytes.len());
            match parser.read(&bytes[..come]) {
                Ok(None) => {}
                end => return end,
            }
        }
        Ok(None)
    }

    fn bad(bytes: &[u8]) -> Option<Malformed> {
        read(bytes, &[]).err()
    }

    /// What a head says, as text.
    fn told(found: &Parsed) -> String {
        let Parts { method, target, version, headers, .. } = &found.parts;
        format!("{method} {target:?} {version:?} {:?} {:?} {}", headers.to_map(), found.body, found.bytes)
    }

    const GOOD: [&[u8]; 9] = [
        b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        b"\r\nGET /a?b=c HTTP/1.0\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nhost:a\r\nx:\r\ny: \t b \xe9\t\r\n\r\n",
        b"GET http://a/b HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5 \r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\ntransfer-encoding:chunked\r\nX: 1\r\nx: 2\r\n\r\n",
        b"!#$%&'*+-.^_`|~aZ9 /~ HTTP/1.1\r\n!#$%&'*+-.^_`|~aZ9: 1\r\n\r\n",
    ];

    #[test]
    fn good_heads_are_the_same_however_they_are_cut() {
        for head in GOOD {
            let bytes = [head, b"GET"].concat();
            let whole = read(&bytes, &[]).unwrap().unwrap();
            assert_eq!(whole.bytes, head.len());
            for size in 1..=head.len() {
                let pieces = vec![size; head.len()];
                assert_eq!(told(&read(&bytes, &pieces).unwrap().unwrap()), told(&whole), "{}", head.escape_ascii());
            }
        }
    }

    #[test]
    fn what_passes_as_a_target_is_one_to_the_library() {
        for byte in 0..=255 {
            for target in [[b'/', byte, b'/'], [b'/', b'?', byte]] {
                let request = [b"GET ", &target[..], b" HTTP/1.1\r\n\r\n"].concat();
                let passes = bad(&request).is_none();
                let good = target.is_ascii() && byte != b'#' && http::Uri::try_from(&target[..]).is_ok();
                assert_eq!(passes, good, "{}", target.escape_ascii());
            }
        }
    }

    #[test]
    fn the_body_ends_as_the_head_says() {
        let body = |head: &[u8]| read(head, &[]).unwrap().unwrap().body;
        assert!(matches!(body(GOOD[0]), Flow::Over) && matches!(body(GOOD[5]), Flow::Over));
        assert!(matches!(body(GOOD[4]), Flow::Bytes(5)) && matches!(body(GOOD[6]), Flow::Chunked(_)));
        for (length, expected) in [
            ("content-length: 1\r\ntransfer-encoding: chunked", Malformed::BothLengths),
            ("content-length: 1\r\ncontent-length: 1", Malformed::ContentLength),
            ("content-length: +1", Malformed::ContentLength),
            ("transfer-encoding: chunked\r\ntransfer-encoding: chunked", Malformed::TransferEncoding),
            ("transfer-encoding: gzip, chunked", Malformed::TransferEncoding),
        ] {
            assert_eq!(bad(format!("POST / HTTP/1.1\r\n{length}\r\n\r\n").as_bytes()), Some(expected), "{length}");
        }
        let old = b"POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n";
        assert_eq!(bad(old), Some(Malformed::TransferEncoding));
    }

    #[test]
    fn heads_have_bounds() {
        let long = |before: &str| [before, &"x".repeat(1000)].concat().into_bytes();
        assert_eq!(bad(&long("GET /")), Some(Malformed::TargetTooLong));
        assert_eq!(bad(&long("GET / HTTP/1.1\r\nx: ")), Some(Malformed::HeadTooLarge));
        let headers = |count| format!("GET / HTTP/1.1\r\n{}\r\n", "x: 1\r\n".repeat(count)).into_bytes();
        assert_eq!((bad(&headers(5)), bad(&headers(6))), (None, Some(Malformed::HeadTooLarge)));
    }

    fn nearly_http() -> impl Strategy<Value = Vec<u8>> {
        let part = |text: &'static [u8]| Just(text.to_vec());
        let piece = prop_oneof![
            4 => proptest::sample::select(GOOD.to_vec()).prop_map(<[u8]>::to_vec),
            4 => part(b"\r\n"),
            2 => part(b"POST / HTTP/1.1\r\n"),
            2 => part(b"transfer-encoding: chunked\r\n"),
            2 => part(b"content-length: 3\r\n"),
            2 => part(b"x-a: \tb c \r\n"),
            1 => part(b"\n"),
            1 => part(b" "),
            2 => prop::collection::vec(any::<u8>(), 0..8),
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn how_bytes_are_cut_changes_nothing(bytes in nearly_http(), pieces in prop::collection::vec(1_usize..40, 0..60)) {
            let text = |read: Result<Option<Parsed>, Malformed>| read.map(|found| found.as_ref().map(told));
            prop_assert_eq!(text(read(&bytes, &pieces)), text(read(&bytes, &[])));
        }

        #[test]
        fn what_passes_is_the_same_to_another_parser(bytes in nearly_http()) {
            if let Ok(Some(found)) = read(&bytes, &[]) {
                let mut lines = [httparse::EMPTY_HEADER; 10];
                let mut other = httparse::Request::new(&mut lines);
                prop_assert_eq!(other.parse(&bytes), Ok(httparse::Status::Complete(found.bytes)));
                prop_assert_eq!(other.method, Some(found.parts.method.as_str()));
                let uri = http::Uri::try_from(other.path.unwrap_or("")).unwrap();
                prop_assert_eq!(&Target::of(&uri), &found.parts.target);
                let mut headers = HeaderMap::new();
                for line in other.headers.iter() {
                    let name = HeaderName::from_bytes(line.name.as_bytes()).unwrap();
                    headers.append(name, HeaderValue::from_bytes(line.value).unwrap());
                }
                prop_assert_eq!(headers, found.parts.headers.to_map());
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = read(&bytes, &[]);
        }
    }
}
