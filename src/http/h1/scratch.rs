//! What all connections of a worker read into.

use bytes::{Bytes, BytesMut};
use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

/// What is read at once where a client's head is expected, bytes.
const HEAD: usize = 16 << 10;
/// The same of a body, or of a head that one follows: what others send at once, 64 KiB, with its head.
const BODY: usize = 68 << 10;
/// A piece of fewer bytes is copied, so that it does not hold on to a whole buffer.
const SMALL: usize = 4 << 10;

/// A worker's buffers, so that a connection that waits owns none.
#[derive(Debug)]
pub struct Scratch {
    heads: RefCell<Box<[u8]>>,
    bodies: RefCell<BytesMut>,
}

impl Default for Scratch {
    fn default() -> Self {
        Scratch { heads: RefCell::new(vec![0; HEAD].into()), bodies: RefCell::default() }
    }
}

impl Scratch {
    /// Reads once and looks at what came, before anybody else reads; `see` must not read.
    pub fn read<T>(
        &self,
        read: impl FnOnce(&mut [u8]) -> Poll<io::Result<usize>>,
        see: impl FnOnce(&[u8]) -> T,
    ) -> Poll<io::Result<T>> {
        let mut buffer = self.heads.borrow_mut();
        read(&mut buffer).map_ok(|read| see(&buffer[..read]))
    }

    /// Reads a piece of a body; none: the other end has closed its side. The memory is used again when the piece is gone.
    pub fn take(&self, cx: &mut Context<'_>, from: &mut (impl AsyncRead + Unpin)) -> Poll<io::Result<Bytes>> {
        self.take_behind(cx, from, |_| ((), 0)).map_ok(|((), piece)| piece)
    }

    /// Reads once, and takes what stands behind as many bytes as `see` says, which looks at all of it.
    pub fn take_behind<T>(
        &self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        see: impl FnOnce(&[u8]) -> (T, usize),
    ) -> Poll<io::Result<(T, Bytes)>> {
        let mut buffer = self.bodies.borrow_mut();
        // Where somebody still holds the last pieces, the next ones follow them, so that few buffers are held at a time.
        if !buffer.try_reclaim(BODY) && buffer.capacity() < HEAD {
            buffer.reserve(BODY);
        }
        let read = ready!(poll_read_buf(Pin::new(from), cx, &mut *buffer))?;
        let (seen, before) = see(&buffer);
        let piece = if read.saturating_sub(before) < SMALL {
            let piece = Bytes::copy_from_slice(buffer.get(before..).unwrap_or_default());
            buffer.clear();
            piece
        } else {
            buffer.split().freeze().split_off(before)
        };
        Poll::Ready(Ok((seen, piece)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    #[test]
    fn pieces_are_what_came_and_their_memory_is_used_again() {
        let (scratch, cx) = (Scratch::default(), &mut Context::from_waker(Waker::noop()));
        let mut take = |bytes: Vec<u8>| match scratch.take(cx, &mut &bytes[..]) {
            Poll::Ready(Ok(piece)) => {
                assert!(piece == bytes, "{} of {} bytes", piece.len(), bytes.len());
                piece
            }
            _ => panic!("nothing was read"),
        };
        let large = |byte| vec![byte; 60_000];
        let first = take(large(1)).as_ptr();
        assert_eq!(take(Vec::new()).len(), 0);
        let held = take(large(2));
        assert_eq!(held.as_ptr(), first);
        // What somebody still holds is left alone.
        assert_ne!(take(large(3)).as_ptr(), first);
        let small = take(vec![4; 100]);
        assert!(held == large(2));
        drop((held, small));
    }
}
