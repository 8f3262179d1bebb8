//! What is on its way out: a head or a chunk's size, a piece of a body, and what ends the piece, in one system call.

use super::write;
use bytes::{Buf, Bytes};
use http::HeaderMap;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

/// What is on its way out.
#[derive(Debug, Default)]
pub struct Out {
    /// The head, what frames the piece that follows, and small pieces.
    pub framing: Vec<u8>,
    at: usize,
    piece: Bytes,
    tail: &'static [u8],
}

impl Out {
    /// A head that is written.
    pub fn of_head(framing: Vec<u8>) -> Self {
        Out { framing, ..Out::default() }
    }

    /// All of it was written.
    pub fn is_empty(&self) -> bool {
        self.at == self.framing.len() && !self.has_piece()
    }

    /// It is written before more is added.
    pub fn is_full(&self) -> bool {
        self.has_piece() || self.framing.len() >= SMALL
    }

    fn has_piece(&self) -> bool {
        !self.piece.is_empty() || !self.tail.is_empty()
    }

    /// Adds a piece of a body; only where it is not full.
    pub fn piece(&mut self, data: Bytes, chunked: bool) {
        if chunked {
            write::chunk_size(&mut self.framing, data.len());
        }
        let tail: &'static [u8] = if chunked { b"\r\n" } else { b"" };
        // To copy so little costs less than to hand several pieces over.
        if data.len() <= SMALL {
            self.framing.extend_from_slice(&data);
            self.framing.extend_from_slice(tail);
        } else {
            (self.piece, self.tail) = (data, tail);
        }
    }

    /// Adds the end of a body in chunks.
    pub fn last_chunk(&mut self, trailers: Option<&HeaderMap>) {
        write::last_chunk(&mut self.framing, trailers);
    }

    /// Writes all of it.
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&mut Context<'_>, &[IoSlice<'_>]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let slices = [IoSlice::new(&self.framing[self.at..]), IoSlice::new(&self.piece), IoSlice::new(self.tail)];
            let many = if self.has_piece() { slices.len() } else { 1 };
            let mut written = ready!(write(cx, &slices[..many]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let framing = written.min(self.framing.len() - self.at);
            self.at += framing;
            written -= framing;
            let piece = written.min(self.piece.len());
            self.piece.advance(piece);
            self.tail = &self.tail[written - piece..];
        }
        // A large head does not stay.
        if self.framing.capacity() > KEPT {
            self.framing = Vec::new();
        }
        self.framing.clear();
        self.at = 0;
        self.piece = Bytes::new();
        Poll::Ready(Ok(()))
    }
}

/// Room for framing that stays between pieces, bytes.
const KEPT: usize = 4096;
/// A piece of as many bytes is copied.
const SMALL: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::task::Waker;

    proptest! {
        #[test]
        fn however_little_is_taken_at_a_time_all_of_it_is(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..5),
            takes in prop::collection::vec(0_usize..20, 0..200),
        ) {
            let (mut out, mut wire, mut takes) = (Out::default(), Vec::new(), takes.into_iter());
            let cx = &mut Context::from_waker(Waker::noop());
            let mut all = |out: &mut Out, wire: &mut Vec<u8>| loop {
                let mut write = |_: &mut Context<'_>, slices: &[IoSlice<'_>]| {
                    let whole: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
                    let take = takes.next().unwrap_or(whole.len()).min(whole.len());
                    wire.extend_from_slice(&whole[..take]);
                    if take == 0 { Poll::Pending } else { Poll::Ready(Ok(take)) }
                };
                if out.poll_write(cx, &mut write).is_ready() {
                    break;
                }
            };
            out.framing.extend_from_slice(b"head ");
            let mut expected = b"head ".to_vec();
            for piece in pieces {
                expected.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                expected.extend_from_slice(&piece);
                expected.extend_from_slice(b"\r\n");
                out.piece(piece.into(), true);
                all(&mut out, &mut wire);
                prop_assert!(out.is_empty());
            }
            out.last_chunk(None);
            all(&mut out, &mut wire);
            expected.extend_from_slice(b"0\r\n\r\n");
            prop_assert_eq!(wire, expected);
        }
    }
}
