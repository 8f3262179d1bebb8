//! A strict reader of HTTP/1 framing (RFC 9112), between the socket and hyper. hyper hides what another parser could
//! read differently (two lengths, bare line feeds, a fragment in the target) or forgives it; what passes here has one
//! meaning only. Nothing of a line reaches hyper before the whole line was found good, and the last line of a head not
//! before the whole head was.

use crate::http::malformed::Malformed;

/// Where in a request the next byte is.
#[derive(Debug, Clone, Copy)]
enum Expect {
    RequestLine,
    Header,
    /// So many bytes of a body with a known length.
    Body(u64),
    ChunkSize,
    /// So many bytes of a chunk.
    Chunk(u64),
    ChunkEnd,
    Trailer,
    /// What follows is another protocol or the next request, which only the response will tell.
    Switch,
}

/// What was found in some bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Scanned {
    /// So many bytes are good and may be passed on; what follows is the beginning of a line, or bad.
    pub good: usize,
    /// What is wrong with what follows.
    pub bad: Option<Malformed>,
}

/// Bytes of a line with a chunk's size, extensions included. They mean nothing to anybody, so they need no room.
const CHUNK_LINE: usize = 256;

/// One connection's place in what its client sends.
#[derive(Debug)]
pub struct Scanner {
    head_bytes: usize,
    most_headers: usize,
    expect: Expect,
    /// Of this head, or of these trailers, so far.
    bytes: usize,
    headers: usize,
    empty_lines: usize,
    http_10: bool,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
}

impl Scanner {
    /// At the beginning of a connection; each head has so many bytes and headers at most.
    pub fn new(head_bytes: usize, most_headers: usize) -> Self {
        Scanner {
            head_bytes,
            most_headers,
            expect: Expect::RequestLine,
            bytes: 0,
            headers: 0,
            empty_lines: 0,
            http_10: false,
            length: None,
            chunked: false,
            upgrade: false,
        }
    }

    /// It has to be told what follows: see [`Scanner::goes_on`].
    pub fn waits(&self) -> bool {
        matches!(self.expect, Expect::Switch)
    }

    /// The client asked for another protocol and was not given it.
    pub fn goes_on(&mut self) {
        self.expect = Expect::RequestLine;
    }

    /// A head has begun and not ended; `held`: the beginning of a line is held back.
    pub fn is_inside_head(&self, held: bool) -> bool {
        matches!(self.expect, Expect::Header) || matches!(self.expect, Expect::RequestLine) && held
    }

    /// A head has ended, and its body has not.
    pub fn is_inside_body(&self) -> bool {
        !matches!(self.expect, Expect::RequestLine | Expect::Header | Expect::Switch)
    }

    /// Looks at what came next. After something bad, nothing more may be asked. `searched`: of the first line so many
    /// bytes were looked at before, and held no line feed.
    pub fn scan(&mut self, bytes: &[u8], searched: usize) -> Scanned {
        let (mut good, mut searched) = (0, searched);
        while good < bytes.len() {
            let rest = &bytes[good..];
            if let Expect::Body(left) | Expect::Chunk(left) = &mut self.expect {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                *left -= taken as u64;
                good += taken;
                match self.expect {
                    Expect::Body(0) => self.next_request(),
                    Expect::Chunk(0) => self.expect = Expect::ChunkEnd,
                    _ => {}
                }
                continue;
            }
            if self.waits() {
                break;
            }
            let end = memchr::memchr(b'\n', &rest[searched.min(rest.len())..]).map(|at| at + searched);
            searched = 0;
            let length = end.map_or(rest.len(), |end| end + 1);
            if let Err(bad) = self.room_for(length) {
                return Scanned { good, bad: Some(bad) };
            }
            let Some(end) = end else { break };
            if let Err(bad) = self.line(&rest[..end]) {
                return Scanned { good, bad: Some(bad) };
            }
            good += length;
        }
        Scanned { good, bad: None }
    }

    /// Is there room for a line of this length, or the part of it that has come?
    fn room_for(&self, length: usize) -> Result<(), Malformed> {
        match self.expect {
            Expect::ChunkSize | Expect::ChunkEnd if length > CHUNK_LINE => Err(Malformed::ChunkSize),
            Expect::ChunkSize | Expect::ChunkEnd => Ok(()),
            _ if self.bytes + length < self.head_bytes => Ok(()),
            Expect::RequestLine => Err(Malformed::TargetTooLong),
            _ => Err(Malformed::HeadTooLarge),
        }
    }

    /// A whole line, without its line feed.
    fn line(&mut self, line: &[u8]) -> Result<(), Malformed> {
        let Some((b'\r', content)) = line.split_last() else { return Err(Malformed::BareLineFeed) };
        // Wherever a carriage return can stand, it is bad, but not for being what it is.
        self.content(content, line.len() + 1).map_err(|bad| match memchr::memchr(b'\r', content) {
            Some(_) => Malformed::BareCarriageReturn,
            None => bad,
        })
    }

    fn content(&mut self, content: &[u8], bytes: usize) -> Result<(), Malformed> {
        self.bytes += bytes;
        match self.expect {
            Expect::RequestLine if content.is_empty() => {
                // Old clients send one after a body.
                self.empty_lines += 1;
                if self.empty_lines > 1 { Err(Malformed::EmptyLines) } else { Ok(()) }
            }
            Expect::RequestLine => {
                self.http_10 = request_line(content)?;
                self.expect = Expect::Header;
                Ok(())
            }
            Expect::Header if content.is_empty() => self.end_of_head(),
            Expect::Header => self.header(content),
            Expect::Trailer if content.is_empty() => {
                self.next_request();
                Ok(())
            }
            Expect::Trailer => self.count_header().and_then(|()| field(content).map(|_| ())),
            Expect::ChunkSize => {
                let size = chunk_size(content)?;
                (self.bytes, self.headers) = (0, 0);
                self.expect = if size == 0 { Expect::Trailer } else { Expect::Chunk(size) };
                Ok(())
            }
            Expect::ChunkEnd => {
                self.expect = Expect::ChunkSize;
                if content.is_empty() { Ok(()) } else { Err(Malformed::ChunkEnd) }
            }
            // No line is looked for there.
            Expect::Body(_) | Expect::Chunk(_) | Expect::Switch => Ok(()),
        }
    }

    fn count_header(&mut self) -> Result<(), Malformed> {
        self.headers += 1;
        if self.headers > self.most_headers { Err(Malformed::HeadTooLarge) } else { Ok(()) }
    }

    fn header(&mut self, line: &[u8]) -> Result<(), Malformed> {
        self.count_header()?;
        let (name, value) = field(line)?;
        // There are three names that matter, so nearly every header is passed by its length.
        if name.len() == 14 && name.eq_ignore_ascii_case(b"content-length") {
            // Also two equal ones: whoever takes the first and whoever takes the last must not be told apart by chance.
            let length = decimal(value).filter(|_| self.length.is_none());
            self.length = Some(length.ok_or(Malformed::ContentLength)?);
        } else if name.len() == 17 && name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Malformed::TransferEncoding);
            }
            self.chunked = true;
        } else if name.len() == 7 && name.eq_ignore_ascii_case(b"upgrade") {
            // HTTP/1.0 has none (RFC 9110 §7.8).
            self.upgrade = !self.http_10;
        }
        Ok(())
    }

    fn end_of_head(&mut self) -> Result<(), Malformed> {
        match (self.chunked, self.length) {
            (true, Some(_)) => return Err(Malformed::BothLengths),
            (true, None) if self.http_10 => return Err(Malformed::TransferEncoding),
            (true, None) => self.expect = Expect::ChunkSize,
            (false, Some(length)) if length > 0 => self.expect = Expect::Body(length),
            (false, _) => self.next_request(),
        }
        Ok(())
    }

    fn next_request(&mut self) {
        let upgrade = self.upgrade;
        *self = Scanner::new(self.head_bytes, self.most_headers);
        if upgrade {
            self.expect = Expect::Switch;
        }
    }
}

/// `METHOD target HTTP/1.x`; true for HTTP/1.0.
fn request_line(line: &[u8]) -> Result<bool, Malformed> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Malformed::RequestLine);
    };
    if !is_token(method) {
        return Err(Malformed::Method);
    }
    if target.len() > LONGEST_TARGET {
        return Err(Malformed::TargetTooLong);
    }
    // What is not simply a path is rare, so hyper's way to read it may cost something. Which form fits which method is
    // not a matter of framing.
    let plain = target.starts_with(b"/") && target.iter().all(|byte| is_plain(*byte));
    let good = || target.is_ascii() && !target.contains(&b'#') && http::Uri::try_from(target).is_ok();
    if !plain && !good() {
        return Err(Malformed::Target);
    }
    match version {
        b"HTTP/1.1" => Ok(false),
        b"HTTP/1.0" => Ok(true),
        _ => Err(Malformed::Version),
    }
}

/// `name: value`, the value without the whitespace around it.
fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(Malformed::Folded);
    }
    let colon = memchr::memchr(b':', line).ok_or(Malformed::HeaderName)?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if !is_token(name) {
        return Err(Malformed::HeaderName);
    }
    if !is_text(value) {
        return Err(Malformed::HeaderValue);
    }
    Ok((name, value.trim_ascii()))
}

/// What hyper takes; longer ones it would refuse by itself, without a word.
const LONGEST_TARGET: usize = (u16::MAX - 1) as usize;

/// What hyper takes anywhere in a path and its query: more than RFC 3986 allows, since browsers send it.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~') && !matches!(byte, b'#' | b'<' | b'>' | b'"' | b'`')
}

/// No control but a tab. Each byte is looked at, with no way out on the first bad one: many at once, that is faster.
fn is_text(bytes: &[u8]) -> bool {
    !bytes.iter().fold(false, |bad, byte| bad | (*byte < b' ' && *byte != b'\t') | (*byte == 0x7f))
}

/// RFC 9110 §5.6.2.
fn is_token(text: &[u8]) -> bool {
    const TOKEN: [bool; 256] = {
        let mut table = [false; 256];
        let marks = b"!#$%&'*+-.^_`|~";
        let mut at = 0;
        while at < marks.len() {
            table[marks[at] as usize] = true;
            at += 1;
        }
        let mut byte = 0;
        while byte < 128 {
            if (byte as u8).is_ascii_alphanumeric() {
                table[byte] = true;
            }
            byte += 1;
        }
        table
    };
    !text.is_empty() && text.iter().all(|byte| TOKEN[usize::from(*byte)])
}

/// Digits only, no sign, no list.
fn decimal(text: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(text).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok()
}

/// Hexadecimal digits, then nothing or extensions, which are not looked at further.
fn chunk_size(line: &[u8]) -> Result<u64, Malformed> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (size, rest) = line.split_at(digits);
    let extensions = matches!(rest.first(), None | Some(b';')) && is_text(rest);
    let size = std::str::from_utf8(size).ok().and_then(|size| u64::from_str_radix(size, 16).ok());
    // The top bits are left free: sums of sizes must not overflow anywhere behind.
    size.filter(|size| extensions && digits <= 15 && *size <= u64::MAX >> 4).ok_or(Malformed::ChunkSize)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many bytes are good when they come in pieces of these sizes, and what is bad after them.
    fn scan(bytes: &[u8], pieces: &[usize]) -> (usize, Option<Malformed>) {
        let mut scanner = Scanner::new(1000, 5);
        let (mut held, mut good, mut at) = (Vec::new(), 0, 0);
        let mut sizes = pieces.iter().copied().chain(std::iter::repeat(bytes.len().max(1)));
        while at < bytes.len() {
            let more = sizes.next().unwrap_or(1).clamp(1, bytes.len() - at);
            let searched = held.len();
            held.extend_from_slice(&bytes[at..at + more]);
            at += more;
            let found = scanner.scan(&held, searched);
            held.drain(..found.good);
            good += found.good;
            if found.bad.is_some() {
                return (good, found.bad);
            }
        }
        (good, None)
    }

    fn bad(bytes: &[u8]) -> Option<Malformed> {
        scan(bytes, &[]).1
    }

    const GOOD: [&[u8]; 9] = [
        b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        b"\r\nGET /a?b=c HTTP/1.0\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nhost:a\r\nx:\r\ny: \t b \xe9\t\r\n\r\n",
        b"GET http://a/b HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5 \r\n\r\nab\r\ncGET / HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\nA;x=y\r\n0123456789\r\n00\r\nx-sum: 1\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\ntransfer-encoding:chunked\r\n\r\n1\r\n\r\r\n1\r\n\n\r\n0\r\n\r\n",
        b"!#$%&'*+-.^_`|~aZ9 /~ HTTP/1.1\r\n!#$%&'*+-.^_`|~aZ9: 1\r\n\r\n",
    ];

    #[test]
    fn good_requests_pass_whole_however_they_are_cut() {
        for request in GOOD {
            for size in 1..=request.len() {
                let pieces = vec![size; request.len()];
                assert_eq!(scan(request, &pieces), (request.len(), None), "{}", request.escape_ascii());
            }
        }
    }

    #[test]
    fn what_passes_as_a_target_is_one_to_hyper() {
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
    fn the_last_line_of_a_bad_head_is_never_passed_on() {
        let request = b"POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n";
        assert_eq!(scan(request, &[]), (request.len() - 2, Some(Malformed::BothLengths)));
    }

    #[test]
    fn after_a_wish_for_another_protocol_nothing_is_read_as_http() {
        let request = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n\x81\x05hello\n";
        let mut scanner = Scanner::new(1000, 5);
        assert_eq!(scanner.scan(request, 0), Scanned { good: request.len() - 8, bad: None });
        assert!(scanner.waits() && !scanner.is_inside_body() && !scanner.is_inside_head(true));
        scanner.goes_on();
        assert_eq!(scanner.scan(b"\x81\x05hello\n", 0).bad, Some(Malformed::BareLineFeed));
        assert_eq!(bad(b"GET / HTTP/1.0\r\nUpgrade: websocket\r\n\r\n\x81\n"), Some(Malformed::BareLineFeed));
    }

    #[test]
    fn heads_and_chunk_lines_have_bounds() {
        let long = |before: &str, after: &str| [before, &"x".repeat(1000), after].concat().into_bytes();
        assert_eq!(bad(&long("GET /", "")), Some(Malformed::TargetTooLong));
        assert_eq!(bad(&long("GET / HTTP/1.1\r\nx: ", "")), Some(Malformed::HeadTooLarge));
        let chunked = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
        assert_eq!(bad(&long(&format!("{chunked}1;"), "")), Some(Malformed::ChunkSize));
        assert_eq!(bad(&long(&format!("{chunked}0\r\nx: "), "")), Some(Malformed::HeadTooLarge));
        let headers = |count| format!("GET / HTTP/1.1\r\n{}\r\n", "x: 1\r\n".repeat(count)).into_bytes();
        assert_eq!((bad(&headers(5)), bad(&headers(6))), (None, Some(Malformed::HeadTooLarge)));
        assert_eq!(bad(&format!("{chunked}0\r\n{}", "x: 1\r\n".repeat(6)).into_bytes()), Some(Malformed::HeadTooLarge));
        // Each request has its own.
        assert_eq!(bad(&headers(5).repeat(20)), None);
    }

    fn nearly_http() -> impl proptest::strategy::Strategy<Value = Vec<u8>> {
        use proptest::prelude::{Just, any, prop, prop_oneof};
        use proptest::strategy::Strategy as _;
        let part = |text: &'static [u8]| Just(text.to_vec());
        let piece = prop_oneof![
            4 => proptest::sample::select(GOOD.to_vec()).prop_map(<[u8]>::to_vec),
            4 => part(b"\r\n"),
            2 => part(b"POST / HTTP/1.1\r\n"),
            2 => part(b"transfer-encoding: chunked\r\n"),
            2 => part(b"content-length: 3\r\n"),
            2 => part(b"3\r\nabc\r\n0\r\n\r\n"),
            1 => part(b"\n"),
            1 => part(b" "),
            2 => prop::collection::vec(any::<u8>(), 0..8),
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest::proptest! {
        #[test]
        fn how_bytes_are_cut_changes_nothing(bytes in nearly_http(), pieces in proptest::collection::vec(1_usize..40, 0..60)) {
            proptest::prop_assert_eq!(scan(&bytes, &pieces), scan(&bytes, &[]));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let (good, _) = scan(&bytes, &[]);
            proptest::prop_assert!(good <= bytes.len());
        }
    }
}
