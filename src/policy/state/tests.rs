//! State against simple models.

use super::{Rate, State, Taken};
use proptest::prelude::*;
use std::collections::HashMap;

fn state() -> State {
    State::new(1000, 1 << 20)
}

const ENDLESS: u32 = 0;

#[test]
fn a_counter_with_a_time_to_live_is_a_fixed_window() {
    let state = state();
    assert_eq!(state.add("c", 1, 100, 1000), 1);
    assert_eq!(state.add("c", 1, 100, 1099), 2);
    assert_eq!(state.add("c", 0, 100, 1099), 2);
    assert_eq!(state.add("c", 0, 100, 1100), 0);
    assert_eq!(state.add("c", 5, 100, 1100), 5);
    assert_eq!(state.add("c", -7, 100, 1199), -2);
}

#[test]
fn adding_nothing_only_reads() {
    let state = state();
    assert_eq!(state.add("c", 0, ENDLESS, 0), 0);
    assert_eq!(state.keys(), 0);
}

#[test]
fn the_three_spaces_are_apart() {
    let state = state();
    state.set("k", "text", ENDLESS, 0);
    assert_eq!(state.add("k", 3, ENDLESS, 0), 3);
    let rate = Rate { per_second: 1.0, burst: 2 };
    assert_eq!(state.take("k", 1, rate, 0), Taken { granted: true, left: 1, wait_ms: 0 });
    state.remove("k");
    assert_eq!(state.get("k", 0), None);
    assert_eq!(state.add("k", 0, ENDLESS, 0), 3);
    assert_eq!(state.take("k", 1, rate, 0).left, 0);
}

#[test]
fn values_expire_and_get_or_set_keeps_the_first() {
    let state = state();
    state.set("k", "a", 10, 0);
    assert_eq!(state.get_or_set("k", "b", 10, 9), "a");
    assert_eq!(state.get("k", 10), None);
    assert_eq!(state.get_or_set("k", "b", 10, 10), "b");
    assert_eq!(state.get("k", 19).as_deref(), Some("b"));
    state.remove("k");
    assert_eq!(state.keys(), 0);
}

#[test]
fn the_quota_holds_and_what_went_is_counted() {
    let state = State::new(160, 1 << 20);
    for i in 0..10_000 {
        state.set(&format!("key {i}"), "x", ENDLESS, 0);
    }
    assert!(state.keys() <= 160, "{} keys", state.keys());
    assert_eq!(state.evicted() as usize, 10_000 - state.keys());

    let state = State::new(1 << 20, 64 << 10);
    for i in 0..1000 {
        state.set(&format!("key {i}"), &"x".repeat(1000), ENDLESS, 0);
    }
    assert!(state.keys() <= 64, "{} keys", state.keys());
}

#[test]
fn the_key_longest_unused_goes_first() {
    let state = State::new(160, 1 << 20);
    state.set("hot", "x", ENDLESS, 0);
    for i in 0..10_000 {
        state.set(&format!("key {i}"), "x", ENDLESS, 0);
        assert!(state.get("hot", 0).is_some(), "after {i}");
    }
}

#[test]
fn bytes_are_counted_both_ways() {
    let state = state();
    for round in 0..3 {
        for i in 0..50 {
            state.set(&i.to_string(), &"x".repeat(i * round), ENDLESS, 0);
        }
    }
    for i in 0..50 {
        state.remove(&i.to_string());
    }
    assert!(state.shards.iter().all(|shard| shard.lock().unwrap().bytes == 0));
}

#[test]
fn rates_at_the_edge() {
    let state = state();
    let never = Rate { per_second: 0.0, burst: 1 };
    assert!(state.take("n", 1, never, 0).granted);
    assert_eq!(state.take("n", 1, never, 1_000_000), Taken { granted: false, left: 0, wait_ms: u32::MAX });
    let endless = Rate { per_second: f64::INFINITY, burst: 5 };
    assert!(state.take("e", 5, endless, 0).granted);
    assert!(!state.take("e", 5, endless, 0).granted);
    assert!(state.take("e", 5, endless, 1).granted);
    assert_eq!(state.take("b", 6, endless, 0).wait_ms, u32::MAX);
    assert!(state.take("z", 0, never, 0).granted);
}

#[test]
fn several_threads_lose_nothing() {
    let state = state();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..1000 {
                    state.add("c", 1, ENDLESS, 0);
                }
            });
        }
    });
    assert_eq!(state.add("c", 0, ENDLESS, 0), 4000);
}

proptest! {
    #[test]
    fn counters_are_like_a_map(ops in prop::collection::vec((0u8..4, any::<i32>(), 0u32..50, 0u64..20), 1..200)) {
        let state = state();
        let mut model: HashMap<u8, (i64, u64)> = HashMap::new();
        let mut now = 1000;
        for (key, delta, ttl, passed) in ops {
            now += passed;
            model.retain(|_, (_, until)| *until > now);
            let until = if ttl == 0 { u64::MAX } else { now + u64::from(ttl) };
            let expected = match model.get_mut(&key) {
                Some((value, _)) => { *value += i64::from(delta); *value }
                None => { model.insert(key, (delta.into(), until)); delta.into() }
            };
            prop_assert_eq!(state.add(&key.to_string(), delta, ttl, now), expected);
        }
    }

    #[test]
    fn a_bucket_never_gives_more_than_burst_and_rate_allow(
        per_second in 0.0f64..1000.0, burst in 1u32..100,
        ops in prop::collection::vec((1u32..20, 0u64..200), 1..200),
    ) {
        let state = state();
        let rate = Rate { per_second, burst };
        let (mut now, mut given) = (0u64, 0.0);
        for (tokens, passed) in ops {
            now += passed;
            let taken = state.take("b", tokens, rate, now);
            if taken.granted {
                given += f64::from(tokens);
                prop_assert_eq!(taken.wait_ms, 0);
            } else {
                prop_assert!(taken.wait_ms > 0);
                prop_assert!(taken.left < tokens);
            }
            prop_assert!(given <= f64::from(burst) + per_second * now as f64 / 1000.0 + 1e-3);
        }
    }

    #[test]
    fn waiting_as_long_as_was_said_is_enough(
        per_second in 0.01f64..5000.0, burst in 1u32..100, used in 1u32..100, wanted in 1u32..100,
    ) {
        let state = state();
        let rate = Rate { per_second, burst };
        state.take("b", used.min(burst), rate, 0);
        let taken = state.take("b", wanted, rate, 0);
        if !taken.granted && taken.wait_ms != u32::MAX {
            prop_assert!(state.take("b", wanted, rate, taken.wait_ms.into()).granted);
        }
    }
}
