//! What one policy may use. Everything has a default that suits a small policy.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The most that [`Limits::memory`] can be, in bytes: what a slot of the instance pool holds.
pub const MAX_MEMORY: usize = 64 << 20;

/// What one policy may use; from its sidecar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Linear memory of one instance in bytes, all its memories together; at most [`MAX_MEMORY`].
    pub memory: usize,
    /// CPU time of the worker's thread in one `decide`, so that a preempted worker faults no innocent policy. Looked at
    /// every 2 ms, from the first look on.
    pub cpu: Duration,
    /// Wall time of one `decide`, looked at as `cpu` is.
    pub wall: Duration,
    /// An instance is replaced after this many calls, since some languages' runtimes grow without end. At least 1.
    pub calls: u32,
    /// An instance whose memory has grown to more bytes than this is replaced as well.
    pub memory_mark: usize,
    /// Keys that `state` holds for the policy, before the one longest unused goes.
    pub state_keys: usize,
    /// Bytes of keys and values that `state` holds for the policy, as above.
    pub state_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            memory: 16 << 20,
            cpu: Duration::from_millis(10),
            wall: Duration::from_millis(100),
            calls: 1000,
            memory_mark: 12 << 20,
            state_keys: 100_000,
            state_bytes: 16 << 20,
        }
    }
}

impl Limits {
    /// Are these limits that an instance can live with?
    ///
    /// # Errors
    /// The key that is wrong, and what was expected.
    pub fn check(&self) -> Result<(), String> {
        if self.memory > MAX_MEMORY {
            return Err(format!("`memory`: {} bytes is more than {} MiB", self.memory, MAX_MEMORY >> 20));
        }
        if self.cpu.is_zero() || self.wall.is_zero() {
            return Err("`cpu` and `wall` must be longer than 0".into());
        }
        if self.calls == 0 {
            return Err("`calls` must be at least 1".into());
        }
        Ok(())
    }
}
