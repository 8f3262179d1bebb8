//! `state`: small facts that outlive a request.

use crate::policy::bindings::wayside::policy::state::{Host, Taken};
use crate::policy::context::Context;
use crate::policy::live::PolicyLive;
use crate::policy::question::Question;
use crate::policy::state::Rate;
use crate::policy::wall::Wall;
use crate::service::tape::{Effect, TakenNow};

/// Bytes of a key.
const KEY: usize = 256;
/// Bytes of a value.
const VALUE: usize = 1024;

impl Host for Context {
    fn add(&mut self, counter: String, delta: i32, ttl_ms: u32) -> i64 {
        let Some((live, wall, now_ms)) = self.keyed("state.add", &counter) else { return 0 };
        let act = || live.add(&counter, delta, ttl_ms, now_ms);
        match wall {
            Some(wall) => wall.add((&counter, delta, ttl_ms), act),
            None => act(),
        }
    }

    fn take(&mut self, bucket: String, tokens: u32, per_second: f64, burst: u32) -> Taken {
        let nothing = Taken { granted: false, left: 0, wait_ms: u32::MAX };
        if !self.may("state.take", &bucket) {
            return nothing;
        }
        if per_second.is_nan() || per_second < 0.0 {
            self.bad(format!("`state.take`: a rate of {per_second}"));
            return nothing;
        }
        let Some((live, wall, now_ms)) = self.acted_on() else { return nothing };
        let act = || {
            let taken = live.take(&bucket, tokens, Rate { per_second, burst }, now_ms);
            TakenNow { granted: taken.granted, left: taken.left, wait_ms: taken.wait_ms }
        };
        let taken = match wall {
            Some(wall) => wall.take((&bucket, tokens, per_second, burst), act),
            None => act(),
        };
        Taken { granted: taken.granted, left: taken.left, wait_ms: taken.wait_ms }
    }

    fn get(&mut self, key: String) -> Option<String> {
        let (live, wall, now_ms) = self.keyed("state.get", &key)?;
        match wall {
            Some(wall) => wall.get(&key, || live.get(&key, now_ms)),
            None => live.get(&key, now_ms),
        }
    }

    fn set(&mut self, key: String, value: String, ttl_ms: u32) {
        if !self.may("state.set", &key) || !self.short("state.set", &value) {
            return;
        }
        let Some((live, wall, now_ms)) = self.acted_on() else { return };
        if note(wall, || Effect::Set(key.as_str().into(), value.as_str().into(), ttl_ms)) {
            live.set(&key, &value, ttl_ms, now_ms);
        }
    }

    fn get_or_set(&mut self, key: String, value: String, ttl_ms: u32) -> String {
        if !self.may("state.get-or-set", &key) {
            return value;
        }
        if !self.short("state.get-or-set", &value) {
            return String::new();
        }
        let Some((live, wall, now_ms)) = self.acted_on() else { return value };
        let act = || live.get_or_set(&key, &value, ttl_ms, now_ms);
        match wall {
            Some(wall) => wall.get_or_set((&key, &value, ttl_ms), act),
            None => act(),
        }
    }

    fn remove(&mut self, key: String) {
        let Some((live, wall, _)) = self.keyed("state.remove", &key) else { return };
        if note(wall, || Effect::Remove(key.as_str().into())) {
            live.remove(&key);
        }
    }
}

/// Notes a change, where somebody does. True: it is to be made.
fn note(wall: Option<&mut Wall>, effect: impl FnOnce() -> Effect) -> bool {
    let Some(wall) = wall else { return true };
    wall.tape.did(effect());
    wall.is_live()
}

impl Context {
    /// May it be called now, and is the key one?
    fn may(&mut self, function: &str, key: &str) -> bool {
        if !self.deciding(function) {
            return false;
        }
        if key.len() > KEY {
            self.bad(format!("`{function}`: a key of {} bytes (at most {KEY})", key.len()));
        }
        key.len() <= KEY
    }

    /// What a call that may be made acts on, and its time.
    fn acted_on(&mut self) -> Option<(&PolicyLive, Option<&mut Wall>, u64)> {
        let Question { now_ms, wall, .. } = self.question.as_mut()?;
        Some((&self.live, wall.as_deref_mut(), *now_ms))
    }

    /// Both.
    fn keyed(&mut self, function: &str, key: &str) -> Option<(&PolicyLive, Option<&mut Wall>, u64)> {
        if self.may(function, key) { self.acted_on() } else { None }
    }

    fn short(&mut self, function: &str, value: &str) -> bool {
        if value.len() > VALUE {
            self.bad(format!("`{function}`: a value of {} bytes (at most {VALUE})", value.len()));
        }
        value.len() <= VALUE
    }
}
