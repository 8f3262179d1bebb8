//! `state`: small facts that outlive a request.

use crate::policy::bindings::wayside::policy::state::{Host, Taken};
use crate::policy::context::Context;
use crate::policy::state::Rate;

/// Bytes of a key.
const KEY: usize = 256;
/// Bytes of a value.
const VALUE: usize = 1024;

impl Host for Context {
    fn add(&mut self, counter: String, delta: i32, ttl_ms: u32) -> i64 {
        let Some(now_ms) = self.keyed("state.add", &counter) else { return 0 };
        self.live.add(&counter, delta, ttl_ms, now_ms)
    }

    fn take(&mut self, bucket: String, tokens: u32, per_second: f64, burst: u32) -> Taken {
        let nothing = Taken { granted: false, left: 0, wait_ms: u32::MAX };
        let Some(now_ms) = self.keyed("state.take", &bucket) else { return nothing };
        if per_second.is_nan() || per_second < 0.0 {
            self.bad(format!("`state.take`: a rate of {per_second}"));
            return nothing;
        }
        let taken = self.live.take(&bucket, tokens, Rate { per_second, burst }, now_ms);
        Taken { granted: taken.granted, left: taken.left, wait_ms: taken.wait_ms }
    }

    fn get(&mut self, key: String) -> Option<String> {
        let now_ms = self.keyed("state.get", &key)?;
        self.live.get(&key, now_ms)
    }

    fn set(&mut self, key: String, value: String, ttl_ms: u32) {
        let Some(now_ms) = self.keyed("state.set", &key) else { return };
        if self.short("state.set", &value) {
            self.live.set(&key, &value, ttl_ms, now_ms);
        }
    }

    fn get_or_set(&mut self, key: String, value: String, ttl_ms: u32) -> String {
        let Some(now_ms) = self.keyed("state.get-or-set", &key) else { return value };
        if !self.short("state.get-or-set", &value) {
            return String::new();
        }
        self.live.get_or_set(&key, &value, ttl_ms, now_ms)
    }

    fn remove(&mut self, key: String) {
        if self.keyed("state.remove", &key).is_some() {
            self.live.remove(&key);
        }
    }
}

impl Context {
    /// The call's time, if the key is one.
    fn keyed(&mut self, function: &str, key: &str) -> Option<u64> {
        let now_ms = self.question(function)?.now_ms;
        if key.len() > KEY {
            self.bad(format!("`{function}`: a key of {} bytes (at most {KEY})", key.len()));
            return None;
        }
        Some(now_ms)
    }

    fn short(&mut self, function: &str, value: &str) -> bool {
        if value.len() > VALUE {
            self.bad(format!("`{function}`: a value of {} bytes (at most {VALUE})", value.len()));
        }
        value.len() <= VALUE
    }
}
