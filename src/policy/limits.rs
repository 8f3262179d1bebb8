//! Stub.
#![allow(missing_docs, reason = "stub")]

use std::time::Duration;

#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    pub memory: usize,
    pub cpu: Duration,
    pub wall: Duration,
    pub calls: u32,
    pub memory_mark: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            memory: 16 << 20,
            cpu: Duration::from_millis(5),
            wall: Duration::from_millis(50),
            calls: 1000,
            memory_mark: 8 << 20,
        }
    }
}
