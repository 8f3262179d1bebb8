//! `hashing`: the same buckets in every language. Works during `init` too.

use super::random::below;
use crate::policy::bindings::wayside::policy::hashing::Host;
use crate::policy::context::Context;
use xxhash_rust::xxh64::xxh64;

impl Host for Context {
    fn bucket(&mut self, text: String, n: u32) -> u32 {
        if n == 0 {
            self.bad("`hashing.bucket` of 0 buckets");
        }
        bucket(&text, n)
    }
}

fn bucket(text: &str, n: u32) -> u32 {
    below(xxh64(text.as_bytes(), 0), n)
}

#[cfg(test)]
mod tests {
    #[test]
    fn buckets_are_those_that_the_interface_promises() {
        assert_eq!(super::bucket("abc", 100), 26);
        assert_eq!(super::bucket("abc", 1), 0);
        assert_eq!(super::bucket("abc", 0), 0);
        let in_share = (0..10_000).filter(|i| super::bucket(&format!("pay-v2:{i}"), 100) < 5).count();
        assert!((400..600).contains(&in_share), "{in_share}");
    }
}
