//! Jute, ZooKeeper's encoding of records: integers big-endian, what has a length after it as four bytes (-1: there is
//! none). What is read never runs beyond its frame, and no length or count is believed before the bytes are there.

/// What came is no record of this kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// Reads a frame from its beginning.
#[derive(Debug, Clone)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Of this frame, without its length.
    pub fn new(frame: &'a [u8]) -> Self {
        Reader(frame)
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*taken)
    }

    /// An `int`.
    ///
    /// # Errors
    /// The frame ends before it does.
    pub fn int(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_be_bytes)
    }

    /// A `long`.
    ///
    /// # Errors
    /// The frame ends before it does.
    pub fn long(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_be_bytes)
    }

    /// A `buffer`; one that is not there is empty.
    ///
    /// # Errors
    /// The frame ends before it does, or its length is negative.
    pub fn buffer(&mut self) -> Result<&'a [u8], Malformed> {
        match self.int()? {
            -1 => Ok(&[]),
            length => self.take(usize::try_from(length).map_err(|_| Malformed)?),
        }
    }

    /// A `ustring`; one that is not there is empty.
    ///
    /// # Errors
    /// As for a buffer, or it is no UTF-8.
    pub fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.buffer()?).map_err(|_| Malformed)
    }

    /// A `vector<ustring>`; one that is not there is empty.
    ///
    /// # Errors
    /// As for its texts, or the frame cannot hold so many.
    pub fn texts(&mut self) -> Result<Vec<String>, Malformed> {
        let count = match self.int()? {
            -1 => 0,
            count => usize::try_from(count).map_err(|_| Malformed)?,
        };
        // Each has a length, at least.
        if count > self.0.len() / 4 {
            return Err(Malformed);
        }
        (0..count).map(|_| self.text().map(str::to_owned)).collect()
    }
}

/// A frame that is being written, with room for its length.
#[derive(Debug)]
pub struct Writer(Vec<u8>);

impl Default for Writer {
    fn default() -> Self {
        Writer(vec![0; 4])
    }
}

impl Writer {
    /// Adds an `int`.
    pub fn int(mut self, value: i32) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// Adds a `long`.
    pub fn long(mut self, value: i64) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// Adds a `boolean`.
    pub fn bool(mut self, value: bool) -> Self {
        self.0.push(u8::from(value));
        self
    }

    /// Adds a `buffer`. One of more than 2 GiB is none.
    pub fn buffer(self, value: &[u8]) -> Self {
        match i32::try_from(value.len()) {
            Ok(length) => {
                let mut written = self.int(length);
                written.0.extend_from_slice(value);
                written
            }
            Err(_) => self.int(-1),
        }
    }

    /// Adds a `ustring`.
    pub fn text(self, value: &str) -> Self {
        self.buffer(value.as_bytes())
    }

    /// The frame with its length.
    pub fn frame(self) -> Vec<u8> {
        let Writer(mut frame) = self;
        let length = i32::try_from(frame.len() - 4).unwrap_or(i32::MAX);
        if let Some(place) = frame.first_chunk_mut() {
            *place = length.to_be_bytes();
        }
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read(int: i32, long: i64, bool: bool, text in ".{0,9}", bytes in proptest::collection::vec(0u8.., 0..9)) {
            let frame = Writer::default().int(int).long(long).bool(bool).text(&text).buffer(&bytes).frame();
            let (length, body) = frame.split_first_chunk().unwrap();
            assert_eq!(usize::try_from(i32::from_be_bytes(*length)), Ok(body.len()));
            let mut reader = Reader::new(body);
            assert_eq!((reader.int(), reader.long(), reader.take(1)), (Ok(int), Ok(long), Ok(&[u8::from(bool)][..])));
            assert_eq!((reader.text(), reader.buffer()), (Ok(text.as_str()), Ok(&bytes[..])));
            assert_eq!(reader.int(), Err(Malformed));
        }
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(0u8.., 0..40)) {
            let _ = Reader::new(&bytes).texts();
            let _ = Reader::new(&bytes).text();
        }
    }

    #[test]
    fn no_count_is_believed() {
        let none = Writer::default().int(-1).frame();
        assert_eq!(Reader::new(&none[4..]).texts(), Ok(vec![]));
        for count in [-2, 1, i32::MAX] {
            let frame = Writer::default().int(count).frame();
            assert_eq!(Reader::new(&frame[4..]).texts(), Err(Malformed), "{count}");
        }
    }
}
