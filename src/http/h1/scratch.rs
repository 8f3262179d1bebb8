//! One buffer for all that a worker reads.

use std::cell::RefCell;
use std::io;
use std::task::Poll;

/// What is read at once, bytes.
const BYTES: usize = 64 << 10;

/// A worker's buffer: whoever reads looks at what came before anybody else does, so a connection that waits owns none.
#[derive(Debug)]
pub struct Scratch(RefCell<Box<[u8]>>);

impl Default for Scratch {
    fn default() -> Self {
        Scratch(RefCell::new(vec![0; BYTES].into()))
    }
}

impl Scratch {
    /// Reads once and looks at what came; `see` must not read.
    pub fn read<T>(
        &self,
        read: impl FnOnce(&mut [u8]) -> Poll<io::Result<usize>>,
        see: impl FnOnce(&[u8]) -> T,
    ) -> Poll<io::Result<T>> {
        let mut buffer = self.0.borrow_mut();
        read(&mut buffer).map_ok(|read| see(&buffer[..read]))
    }
}
