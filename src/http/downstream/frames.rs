//! Where a client's HTTP/2 frames begin and end (RFC 9113 §4.1), so that a head that is sent half is noticed.

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// Follows the bytes of a connection after its preface.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// The frame's header, as far as it has come.
    header: [u8; 9],
    got: usize,
    /// Bytes of the payload that are still to come.
    payload: usize,
    /// That payload is a body's.
    data: bool,
    /// A header block has begun and not ended: CONTINUATION must follow.
    block: bool,
    /// Since [`Frames::counted`]: frames that begin a head, and frames of no head and no body.
    counts: (u64, u64),
}

impl Frames {
    /// Takes in the next bytes. True: a frame's header was among them, or its end.
    pub(crate) fn read(&mut self, mut bytes: &[u8]) -> bool {
        let mut advanced = false;
        while !bytes.is_empty() {
            let taken = if self.payload > 0 {
                let taken = self.payload.min(bytes.len());
                self.payload -= taken;
                advanced |= self.payload == 0;
                taken
            } else {
                let taken = (self.header.len() - self.got).min(bytes.len());
                self.header[self.got..self.got + taken].copy_from_slice(&bytes[..taken]);
                self.got += taken;
                if self.got == self.header.len() {
                    self.begin();
                    advanced = true;
                }
                taken
            };
            bytes = &bytes[taken..];
        }
        advanced
    }

    /// The frame's header is complete.
    fn begin(&mut self) {
        let [a, b, c, kind, flags, ..] = self.header;
        self.got = 0;
        self.payload = u32::from_be_bytes([0, a, b, c]) as usize;
        self.data = kind == DATA;
        if matches!(kind, HEADERS | CONTINUATION) {
            self.block = flags & END_HEADERS == 0;
        }
        match kind {
            DATA | CONTINUATION => {}
            HEADERS => self.counts.0 += 1,
            _ => self.counts.1 += 1,
        }
    }

    /// How many frames have begun a head, and how many belong to no head and no body, since this was last asked.
    pub(crate) fn counted(&mut self) -> (u64, u64) {
        std::mem::take(&mut self.counts)
    }

    /// Something has begun that only the client can end, and it is not a body.
    pub(crate) fn is_inside(&self) -> bool {
        self.block || self.got > 0 || (self.payload > 0 && !self.data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        frame.extend_from_slice(payload);
        frame
    }

    #[test]
    fn a_head_is_inside_until_its_block_ends_and_a_body_never_is() {
        let mut frames = Frames::default();
        frames.read(&frame(HEADERS, 0, b"abc"));
        assert!(frames.is_inside());
        frames.read(&frame(CONTINUATION, END_HEADERS, b"d"));
        assert!(!frames.is_inside());
        let body = frame(DATA, 0, b"abcdef");
        frames.read(&body[..5]);
        assert!(frames.is_inside());
        frames.read(&body[5..12]);
        assert!(!frames.is_inside());
        frames.read(&body[12..]);
        assert!(!frames.is_inside());
    }

    proptest! {
        #[test]
        fn however_bytes_are_cut_whole_frames_end_outside_and_cut_ones_inside(
            frames in proptest::collection::vec((0u8..12, proptest::collection::vec(any::<u8>(), 0..40)), 1..10),
            cuts in proptest::collection::vec(1usize..20, 1..20),
        ) {
            let last = frame(HEADERS, END_HEADERS, b"head");
            let mut bytes: Vec<u8> =
                frames.iter().flat_map(|(kind, payload)| frame(*kind, END_HEADERS, payload)).collect();
            bytes.extend(&last);
            let mut seen = Frames::default();
            let (mut at, mut cuts) = (0, cuts.into_iter().cycle());
            while at < bytes.len() {
                let end = (at + cuts.next().unwrap()).min(bytes.len());
                seen.read(&bytes[at..end]);
                at = end;
                if at > bytes.len() - last.len() && at < bytes.len() {
                    prop_assert!(seen.is_inside());
                }
            }
            prop_assert!(!seen.is_inside());
        }
    }
}
