//! Chunked bodies (RFC 9112 §7.1), as their bytes come.

use super::line::{self, field};
use crate::http::malformed::Malformed;
use http::HeaderMap;

/// A chunk's size has so many digits at most, so that sums of sizes overflow nowhere behind.
const DIGITS: u8 = 15;
/// Bytes of a line with a chunk's size, extensions included. They mean nothing to anybody, so they need no room.
const LINE: usize = 256;

/// Where in a chunked body the next byte is.
#[derive(Debug)]
pub struct Chunks {
    state: State,
    /// Of the chunk that is being read: its size so far, then what is left of it, bytes.
    left: u64,
    digits: u8,
    line: usize,
    trailers: Vec<u8>,
    /// Where the trailers' last line began.
    last: usize,
    /// Bytes and lines of the trailers, at most.
    most: (usize, usize),
    /// Endpoints may put spaces after a size, which some servers do.
    spaces: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    Space,
    Extension,
    SizeEnd,
    Data,
    DataEnd,
    DataLineFeed,
    Trailers,
    Over,
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing but framing; all bytes were used.
    More,
    /// The bytes from here up to those used are content.
    Data(usize),
    /// The body is over; what follows was not used.
    Over,
}

impl Chunks {
    /// At the beginning of a client's body, with trailers of so many bytes and lines at most.
    pub fn of_client(bytes: usize, lines: usize) -> Self {
        Chunks::new((bytes, lines), false)
    }

    /// The same of an endpoint's.
    pub fn of_endpoint(bytes: usize, lines: usize) -> Self {
        Chunks::new((bytes, lines), true)
    }

    fn new(most: (usize, usize), spaces: bool) -> Self {
        Chunks { state: State::Size, left: 0, digits: 0, line: 0, trailers: Vec::new(), last: 0, most, spaces }
    }

    /// Looks at what came next: how many bytes were used, and what for. To be asked again with the rest.
    ///
    /// # Errors
    /// It is no chunked body; nothing more may be asked.
    pub fn step(&mut self, bytes: &[u8]) -> Result<(usize, Step), Malformed> {
        let mut at = 0;
        while at < bytes.len() {
            match self.state {
                State::Data => {
                    let taken = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - at);
                    self.left -= taken as u64;
                    if self.left == 0 {
                        self.state = State::DataEnd;
                    }
                    return Ok((at + taken, Step::Data(at)));
                }
                State::Over => return Ok((at, Step::Over)),
                State::Trailers => self.trailer(bytes[at])?,
                _ => self.framing(bytes[at])?,
            }
            at += 1;
        }
        Ok((at, if self.state == State::Over { Step::Over } else { Step::More }))
    }

    /// A byte of a size's line, or of the line end after a chunk.
    fn framing(&mut self, byte: u8) -> Result<(), Malformed> {
        let sized = self.digits > 0;
        self.line += 1;
        if self.line > LINE {
            return Err(Malformed::ChunkSize);
        }
        self.state = match (self.state, byte) {
            (State::Size, _) if byte.is_ascii_hexdigit() && self.digits < DIGITS => {
                self.digits += 1;
                // A hexadecimal digit has a value.
                self.left = self.left << 4 | u64::from(char::from(byte).to_digit(16).unwrap_or(0));
                State::Size
            }
            (State::Size | State::Space, b' ' | b'\t') if sized && self.spaces => State::Space,
            (State::Size | State::Space, b';') if sized => State::Extension,
            (State::Size | State::Space | State::Extension, b'\r') if sized => State::SizeEnd,
            (State::Extension, b'\t' | b' '..=b'~' | 0x80..) => State::Extension,
            (State::SizeEnd, b'\n') => {
                self.line = 0;
                if self.left == 0 { State::Trailers } else { State::Data }
            }
            (State::DataEnd, b'\r') => State::DataLineFeed,
            (State::DataLineFeed, b'\n') => {
                (self.line, self.digits) = (0, 0);
                State::Size
            }
            (State::SizeEnd | State::DataLineFeed, _) => return Err(Malformed::BareCarriageReturn),
            (_, b'\n') => return Err(Malformed::BareLineFeed),
            (State::DataEnd, _) => return Err(Malformed::ChunkEnd),
            _ => return Err(Malformed::ChunkSize),
        };
        Ok(())
    }

    fn trailer(&mut self, byte: u8) -> Result<(), Malformed> {
        if self.trailers.len() >= self.most.0 {
            return Err(Malformed::HeadTooLarge);
        }
        self.trailers.push(byte);
        if byte != b'\n' {
            return Ok(());
        }
        let Some(line) = self.trailers[self.last..].strip_suffix(b"\r\n") else { return Err(Malformed::BareLineFeed) };
        if line.is_empty() {
            self.state = State::Over;
            return Ok(());
        }
        self.line += 1;
        if self.line > self.most.1 {
            return Err(Malformed::HeadTooLarge);
        }
        field(line).map_err(|bad| if line.contains(&b'\r') { Malformed::BareCarriageReturn } else { bad })?;
        self.last = self.trailers.len();
        Ok(())
    }

    /// What came after the content, once it is over; none: nothing.
    ///
    /// # Errors
    /// They are no trailers.
    pub fn trailers(&self) -> Result<Option<HeaderMap>, Malformed> {
        if self.last == 0 {
            return Ok(None);
        }
        line::trailers(&self.trailers).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The content and the trailers of a body that comes in pieces of these sizes, and how many bytes it had.
    fn read(mut chunks: Chunks, bytes: &[u8], pieces: &[usize]) -> Result<Option<(Vec<u8>, usize)>, Malformed> {
        let (mut content, mut at, mut pieces) = (Vec::new(), 0, pieces.iter());
        while at < bytes.len() {
            let size = pieces.next().copied().unwrap_or(bytes.len()).clamp(1, bytes.len() - at);
            let (piece, mut used) = (&bytes[at..at + size], 0);
            while used < piece.len() {
                let (more, step) = chunks.step(&piece[used..])?;
                match step {
                    Step::Data(from) => content.extend_from_slice(&piece[used + from..used + more]),
                    Step::Over => return Ok(Some((content, at + used + more))),
                    Step::More => {}
                }
                used += more;
            }
            at += size;
        }
        Ok(None)
    }

    const GOOD: &[u8] = b"A;x=\"y\"\r\n0123456789\r\n001\r\n\n\r\n000\r\nx-sum: 1\r\ny:\r\n\r\nrest";

    #[test]
    fn content_is_the_same_however_it_is_cut() {
        for size in 1..=GOOD.len() {
            let read = read(Chunks::of_client(100, 2), GOOD, &vec![size; GOOD.len()]);
            assert_eq!(read, Ok(Some((b"0123456789\n".to_vec(), GOOD.len() - 4))), "{size}");
        }
    }

    #[test]
    fn trailers_are_read() {
        let mut chunks = Chunks::of_endpoint(100, 2);
        assert_eq!(chunks.step(b"0\r\nX-Sum: 1\r\nx-sum:2\r\n\r\n"), Ok((24, Step::Over)));
        let trailers = chunks.trailers().unwrap().unwrap();
        assert_eq!(trailers.get_all("x-sum").iter().collect::<Vec<_>>(), ["1", "2"]);
        let mut none = Chunks::of_endpoint(100, 2);
        assert_eq!(none.step(b"0\r\n\r\n"), Ok((5, Step::Over)));
        assert_eq!(none.trailers(), Ok(None));
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        use Malformed::{BareCarriageReturn, BareLineFeed, ChunkEnd, ChunkSize, HeadTooLarge};
        let long = format!("1;{}\r\n", "x".repeat(300));
        let trailers = format!("0\r\nx: {}\r\n\r\n", "x".repeat(100));
        for (bytes, bad) in [
            (&b"\r\n"[..], ChunkSize),
            (b"x\r\n", ChunkSize),
            (b"+1\r\n", ChunkSize),
            (b"0x1\r\n", ChunkSize),
            (b"1 \r\n", ChunkSize),
            (b"1\na", BareLineFeed),
            (b"1;\na", BareLineFeed),
            (b"1\r1\n", BareCarriageReturn),
            (b"1000000000000000\r\n", ChunkSize),
            (long.as_bytes(), ChunkSize),
            (b"1\r\nab\r\n", ChunkEnd),
            (b"1\r\na\n", BareLineFeed),
            (b"0\r\nx: 1\n\n", BareLineFeed),
            (trailers.as_bytes(), HeadTooLarge),
            (b"0\r\na:\r\na:\r\na:\r\n\r\n", HeadTooLarge),
            (b"0\r\n folded: 1\r\n\r\n", Malformed::Folded),
            (b"0\r\na b: 1\r\n\r\n", Malformed::HeaderName),
        ] {
            assert_eq!(read(Chunks::of_client(100, 2), bytes, &[]), Err(bad), "{}", bytes.escape_ascii());
        }
        assert_eq!(read(Chunks::of_endpoint(100, 2), b"1 \t;x\r\na\r\n0 \r\n\r\n", &[]), Ok(Some((b"a".to_vec(), 16))));
    }

    proptest! {
        #[test]
        fn how_bytes_are_cut_changes_nothing(
            bytes in prop::collection::vec(prop_oneof![Just(b"1\r\na\r\n".to_vec()), Just(b"0\r\n".to_vec()), Just(b"\r\n".to_vec()),
                Just(b"3;e\r\nabc\r\n".to_vec()), Just(b"x: y\r\n".to_vec()), prop::collection::vec(any::<u8>(), 0..4)], 0..12),
            pieces in prop::collection::vec(1_usize..9, 0..40),
        ) {
            let bytes = bytes.concat();
            prop_assert_eq!(read(Chunks::of_client(50, 3), &bytes, &pieces), read(Chunks::of_client(50, 3), &bytes, &[]));
        }
    }
}
