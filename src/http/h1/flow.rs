//! A body that comes, whoever sends it: what of the bytes is content, and where it ends (RFC 9112 §6.3).

use super::chunks::{Chunks, Step};
use crate::http::malformed::Malformed;
use bytes::{Buf, Bytes};
use http_body::{Frame, SizeHint};

/// Where in a body the next byte is.
#[derive(Debug)]
pub enum Flow {
    /// So many bytes are left.
    Bytes(u64),
    /// In chunks.
    Chunked(Box<Chunks>),
    /// Until the connection ends.
    UntilClose,
    /// Behind it.
    Over,
}

impl Flow {
    /// Takes the next piece, or the trailers, out of what was read. None: more has to be read, or it is over.
    ///
    /// # Errors
    /// It is no body; nothing more may be asked.
    pub fn next(&mut self, read: &mut Bytes) -> Result<Option<Frame<Bytes>>, Malformed> {
        while !read.is_empty() {
            match self {
                Flow::Bytes(left) => {
                    let take = usize::try_from(*left).unwrap_or(usize::MAX).min(read.len());
                    *left -= take as u64;
                    if *left == 0 {
                        *self = Flow::Over;
                    }
                    return Ok(Some(Frame::data(read.split_to(take))));
                }
                Flow::Chunked(chunks) => {
                    let (used, step) = chunks.step(read)?;
                    let mut used = read.split_to(used);
                    match step {
                        Step::More => {}
                        Step::Data(from) => {
                            used.advance(from);
                            return Ok(Some(Frame::data(used)));
                        }
                        Step::Over => {
                            let trailers = chunks.trailers()?;
                            *self = Flow::Over;
                            return Ok(trailers.map(Frame::trailers));
                        }
                    }
                }
                Flow::UntilClose => return Ok(Some(Frame::data(std::mem::take(read)))),
                Flow::Over => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Nothing more of it comes.
    pub fn is_over(&self) -> bool {
        matches!(self, Flow::Over)
    }

    /// How much more comes, as far as it was said.
    pub fn size_hint(&self) -> SizeHint {
        match self {
            Flow::Bytes(left) => SizeHint::with_exact(*left),
            Flow::Over => SizeHint::with_exact(0),
            Flow::Chunked(_) | Flow::UntilClose => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Content, trailers and what is left.
    fn read(mut flow: Flow, bytes: &'static [u8]) -> (Vec<u8>, usize, Bytes, bool) {
        let (mut left, mut content, mut trailers) = (Bytes::from_static(bytes), Vec::new(), 0);
        while let Some(frame) = flow.next(&mut left).unwrap() {
            match frame.into_data() {
                Ok(data) => content.extend_from_slice(&data),
                Err(frame) => trailers += frame.into_trailers().unwrap().len(),
            }
        }
        (content, trailers, left, flow.is_over())
    }

    #[test]
    fn a_body_ends_where_it_ends() {
        let rest = || Bytes::from_static(b"rest");
        assert_eq!(read(Flow::Bytes(4), b"bodyrest"), (b"body".to_vec(), 0, rest(), true));
        assert_eq!(read(Flow::Bytes(4), b"bod"), (b"bod".to_vec(), 0, Bytes::new(), false));
        assert_eq!(read(Flow::UntilClose, b"body"), (b"body".to_vec(), 0, Bytes::new(), false));
        assert_eq!(read(Flow::Over, b"rest"), (Vec::new(), 0, rest(), true));
        let chunked = || Flow::Chunked(Box::new(Chunks::of_client(100, 5)));
        let whole = b"2\r\nbo\r\n2\r\ndy\r\n0\r\na: b\r\n\r\nrest";
        assert_eq!(read(chunked(), whole), (b"body".to_vec(), 1, rest(), true));
        assert_eq!(read(chunked(), b"2\r\nbo\r\n0\r\n"), (b"bo".to_vec(), 0, Bytes::new(), false));
    }
}
