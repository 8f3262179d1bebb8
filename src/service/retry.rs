//! What is tried again, and when: conditions, and the time between two attempts.

use crate::base::chance::Chance;
use crate::base::duration;
use serde::Deserialize;
use std::time::Duration;

/// `retry_on = ["connect", "reset", "timeout", "503", "5xx", "grpc:unavailable", …]`. Connections that failed before a byte
/// was sent are always tried again.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct RetryOn {
    /// The connection broke, or the endpoint cancelled the request.
    pub reset: bool,
    /// No response's head within `attempt_timeout`.
    pub timeout: bool,
    /// What came back is no HTTP.
    pub protocol: bool,
    /// Answers with one of these.
    pub status: Vec<u16>,
    /// gRPC's calls that were answered with one of these and nothing else.
    pub grpc: Vec<u8>,
}

impl Default for RetryOn {
    fn default() -> Self {
        RetryOn { reset: true, timeout: true, protocol: true, status: Vec::new(), grpc: Vec::new() }
    }
}

/// The statuses that may be tried again at all: others are about the request.
pub fn is_retryable(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..=599)
}

/// gRPC's statuses by number, from 1 (github.com/grpc/grpc/blob/master/doc/statuscodes.md).
const GRPC: [&str; 16] = [
    "cancelled",
    "unknown",
    "invalid-argument",
    "deadline-exceeded",
    "not-found",
    "already-exists",
    "permission-denied",
    "resource-exhausted",
    "failed-precondition",
    "aborted",
    "out-of-range",
    "unimplemented",
    "internal",
    "unavailable",
    "data-loss",
    "unauthenticated",
];

impl TryFrom<Vec<String>> for RetryOn {
    type Error = String;

    fn try_from(words: Vec<String>) -> Result<Self, String> {
        let mut on = RetryOn { reset: false, timeout: false, protocol: false, ..RetryOn::default() };
        for word in &words {
            let grpc = word.strip_prefix("grpc:").map(|name| name.replace('_', "-").to_ascii_lowercase());
            match (word.as_str(), grpc) {
                ("connect", _) => {}
                ("reset", _) => on.reset = true,
                ("timeout", _) => on.timeout = true,
                ("protocol", _) => on.protocol = true,
                ("5xx", _) => on.status.extend(500..=599),
                (_, Some(name)) => {
                    let number = (1..).zip(GRPC).find_map(|(number, known)| (known == name).then_some(number));
                    on.grpc.push(
                        number.ok_or_else(|| format!("`{word}`: expected `grpc:` and one of {}", GRPC.join(", ")))?,
                    );
                }
                (status, None) => match status.parse() {
                    Ok(status) if is_retryable(status) => on.status.push(status),
                    _ => {
                        return Err(format!(
                            "`{word}` is none of `connect`, `reset`, `timeout`, `protocol`, `5xx`, `grpc:NAME`, 408, 425, 429, \
                             500 to 599"
                        ));
                    }
                },
            }
        }
        Ok(on)
    }
}

/// `retry_backoff = { base, max }`: the time before the k-th retry is drawn between 0 and the smaller of `max` and
/// base · 2^(k-1) ("full jitter": Brooker, "Exponential Backoff And Jitter", 2015).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Backoff {
    /// Before the first retry.
    #[serde(with = "duration")]
    pub base: Duration,
    /// Before any.
    #[serde(with = "duration")]
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff { base: Duration::from_millis(25), max: Duration::from_millis(250) }
    }
}

impl Backoff {
    /// Is every time within its bounds?
    ///
    /// # Errors
    /// The key that is not, and what was expected.
    pub fn check(&self) -> Result<(), String> {
        for (key, time) in [("base", self.base), ("max", self.max)] {
            if time > LONGEST {
                return Err(format!(".{key}: must be at most {}s", LONGEST.as_secs()));
            }
        }
        Ok(())
    }

    /// How long to wait before this retry, counted from 1.
    pub fn wait(&self, retry: u32, chance: &mut Chance) -> Duration {
        let doubled = 1u32.checked_shl(retry.saturating_sub(1)).unwrap_or(u32::MAX);
        let most = self.base.saturating_mul(doubled).min(self.max);
        let us = usize::try_from(most.as_micros()).unwrap_or(usize::MAX);
        Duration::from_micros(chance.below(us.saturating_add(1)) as u64)
    }
}

/// Nobody is asked again later than this, whoever says that it should be.
pub const LONGEST: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(words: &[&str]) -> Result<RetryOn, String> {
        words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>().try_into()
    }

    #[test]
    fn conditions_are_read_and_what_is_none_is_named() {
        let none = RetryOn { reset: false, timeout: false, protocol: false, status: vec![], grpc: vec![] };
        assert_eq!(read(&[]), Ok(none.clone()));
        let given = read(&["connect", "reset", "503", "grpc:unavailable", "grpc:RESOURCE_EXHAUSTED"]);
        assert_eq!(given, Ok(RetryOn { reset: true, status: vec![503], grpc: vec![14, 8], ..none }));
        assert_eq!(read(&["5xx", "timeout", "protocol"]).unwrap().status.len(), 100);
        for wrong in ["404", "resets", "grpc:ok", "grpc:", "600", ""] {
            assert!(read(&[wrong]).unwrap_err().contains(&format!("`{wrong}`")), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_wait_is_no_longer_than_it_may_be(base in 0u64..1000, max in 0u64..5000, retry in 1u32..100, seed in any::<u64>()) {
            let backoff = Backoff { base: Duration::from_millis(base), max: Duration::from_millis(max) };
            let wait = backoff.wait(retry, &mut Chance(seed));
            prop_assert!(wait <= backoff.max);
            prop_assert!(retry > 1 || wait <= backoff.base);
        }
    }
}
