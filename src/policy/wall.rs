//! The wall between a policy and the world: what it reads through is live, or a tape of an earlier call; and what it reads
//! and does is noted. Most calls have none of it.

use crate::service::tape::{
    Asked, DescribedNow, Effect, EndpointNow, Got, KnownNow, LoadedNow, ServiceNow, TakenNow, Tape,
};
use std::sync::Arc;

/// What a call reads through.
#[derive(Debug, Clone, Default)]
pub struct Wall {
    /// Where answers come from.
    pub reads: Reads,
    /// What the call has read and done so far.
    pub tape: Tape,
}

/// Where answers come from.
#[derive(Debug, Clone, Default)]
pub enum Reads {
    /// The world as it is.
    #[default]
    Live,
    /// What an earlier call was told, and nothing else: what that has not read is not known.
    Taped(Played),
    /// The same, but what that has not read of the services comes from the world. The state is neither asked nor changed.
    TapedThenLive(Played),
}

/// An earlier call's tape, as far as it was played.
#[derive(Debug, Clone)]
pub struct Played {
    tape: Arc<Tape>,
    /// Which of its reads were told already.
    told: Vec<bool>,
    /// The read that comes next, if all is as it was.
    next: usize,
}

impl Played {
    /// From its beginning.
    pub fn new(tape: Arc<Tape>) -> Self {
        Played { told: vec![false; tape.reads.len()], tape, next: 0 }
    }

    /// What was said to this the next time. How loads were is the same as before where it was not asked so often.
    fn tell(&mut self, asked: &Asked) -> Option<Got> {
        let at = |place: &usize| self.tape.reads.get(*place).is_some_and(|read| read.asked == *asked);
        let untold = |place: &usize| self.told.get(*place) == Some(&false) && at(place);
        let place = Some(self.next).filter(untold).or_else(|| (0..self.told.len()).find(untold));
        let place = place.or_else(|| (0..self.told.len()).rev().find(at).filter(|_| asked.is_of_catalog()))?;
        if let Some(told) = self.told.get_mut(place) {
            *told = true;
        }
        self.next = place + 1;
        self.tape.reads.get(place).map(|read| read.got.clone())
    }
}

impl Wall {
    /// From the world, and noted.
    pub fn noting() -> Box<Self> {
        Box::default()
    }

    /// From this tape alone, and noted.
    pub fn taped(tape: Arc<Tape>) -> Box<Self> {
        Box::new(Wall { reads: Reads::Taped(Played::new(tape)), tape: Tape::default() })
    }

    /// The world is asked and changed.
    pub(super) fn is_live(&self) -> bool {
        matches!(self.reads, Reads::Live)
    }

    pub(super) fn service(&mut self, name: &str, live: impl FnOnce() -> ServiceNow) -> ServiceNow {
        match self.read(Asked::Service(name.into()), || Got::Service(live())) {
            Got::Service(now) => now,
            _ => ServiceNow::default(),
        }
    }

    pub(super) fn endpoints(&mut self, service: &str, live: impl FnOnce() -> Vec<EndpointNow>) -> Vec<EndpointNow> {
        match self.read(Asked::Endpoints(service.into()), || Got::Endpoints(live())) {
            Got::Endpoints(all) => all,
            _ => Vec::new(),
        }
    }

    pub(super) fn least_loaded(&mut self, asked: Asked, live: impl FnOnce() -> Vec<LoadedNow>) -> Vec<LoadedNow> {
        match self.read(asked, || Got::Loaded(live())) {
            Got::Loaded(some) => some,
            _ => Vec::new(),
        }
    }

    pub(super) fn find(&mut self, service: &str, address: &str, live: impl FnOnce() -> EndpointNow) -> EndpointNow {
        let asked = Asked::Find { service: service.into(), address: address.into() };
        match self.read(asked, || Got::Endpoint(live())) {
            Got::Endpoint(now) => now,
            _ => EndpointNow::default(),
        }
    }

    pub(super) fn describe(&mut self, id: u32, live: impl FnOnce() -> DescribedNow) -> DescribedNow {
        match self.read(Asked::Describe(id), || Got::Described(live())) {
            Got::Described(now) => now,
            _ => DescribedNow::default(),
        }
    }

    pub(super) fn known(&mut self, service: &str, live: impl FnOnce() -> KnownNow) -> KnownNow {
        match self.read(Asked::KnowledgeOf(service.into()), || Got::Known(live())) {
            Got::Known(now) => now,
            _ => KnownNow::default(),
        }
    }

    pub(super) fn add(&mut self, (key, delta, ttl_ms): (&str, i32, u32), live: impl FnOnce() -> i64) -> i64 {
        self.tape.did(Effect::Add(key.into(), delta, ttl_ms));
        match self.read_state(Asked::Add(key.into()), || Got::Counter(live())) {
            Got::Counter(value) => value,
            _ => 0,
        }
    }

    /// `asked`: bucket, tokens, tokens a second, burst.
    pub(super) fn take(&mut self, asked: (&str, u32, f64, u32), live: impl FnOnce() -> TakenNow) -> TakenNow {
        let (key, tokens, per_second, burst) = asked;
        self.tape.did(Effect::Take(key.into(), tokens, per_second, burst));
        match self.read_state(Asked::Take(key.into()), || Got::Taken(live())) {
            Got::Taken(taken) => taken,
            _ => TakenNow { granted: false, left: 0, wait_ms: u32::MAX },
        }
    }

    pub(super) fn get(&mut self, key: &str, live: impl FnOnce() -> Option<String>) -> Option<String> {
        let live = || live().map_or(Got::Nothing, |value| Got::Value(value.into()));
        self.value(Asked::Get(key.into()), live)
    }

    /// `asked`: key, value, time to live in ms.
    pub(super) fn get_or_set(&mut self, asked: (&str, &str, u32), live: impl FnOnce() -> String) -> String {
        let (key, value, ttl_ms) = asked;
        self.tape.did(Effect::GetOrSet(key.into(), value.into(), ttl_ms));
        let got = self.value(Asked::GetOrSet(key.into()), || Got::Value(live().into()));
        got.unwrap_or_else(|| value.to_owned())
    }

    fn value(&mut self, asked: Asked, live: impl FnOnce() -> Got) -> Option<String> {
        match self.read_state(asked, live) {
            Got::Value(value) => {
                self.tape.hidden |= value.contains(crate::service::tape::redaction::MARK);
                Some(value.into())
            }
            _ => None,
        }
    }

    /// As [`Wall::read`]; the world's state is asked only where it is this call's own to change.
    fn read_state(&mut self, asked: Asked, live: impl FnOnce() -> Got) -> Got {
        if let Reads::TapedThenLive(played) = &mut self.reads {
            let told = played.tell(&asked);
            return self.note(asked, told);
        }
        self.read(asked, live)
    }

    fn read(&mut self, asked: Asked, live: impl FnOnce() -> Got) -> Got {
        let told = match &mut self.reads {
            Reads::Live => Some(live()),
            Reads::Taped(played) => played.tell(&asked),
            Reads::TapedThenLive(played) => Some(played.tell(&asked).unwrap_or_else(live)),
        };
        self.note(asked, told)
    }

    fn note(&mut self, asked: Asked, told: Option<Got>) -> Got {
        match told {
            Some(got) => {
                self.tape.read(asked, &got);
                got
            }
            None => {
                self.tape.unknown.get_or_insert(asked);
                Got::Nothing
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::state::{Rate, State};
    use proptest::prelude::*;

    fn get(wall: &mut Wall, key: &str) -> Option<String> {
        wall.get(key, || panic!("the world was asked"))
    }

    /// A tape on which the value of `a` was 1, then 2, and the service `users` had one in flight.
    fn tape() -> Arc<Tape> {
        let mut wall = Wall::noting();
        for value in ["1", "2"] {
            assert_eq!(wall.get("a", || Some(value.into())).as_deref(), Some(value));
        }
        assert_eq!(wall.get("none", || None), None);
        wall.service("users", || ServiceNow { in_flight: 1, ..ServiceNow::default() });
        Arc::new(wall.tape)
    }

    #[test]
    fn the_same_reads_are_told_the_same_in_their_order() {
        let mut wall = Wall::taped(tape());
        assert_eq!(get(&mut wall, "none"), None);
        assert_eq!((get(&mut wall, "a").as_deref(), get(&mut wall, "a").as_deref()), (Some("1"), Some("2")));
        for _ in 0..2 {
            assert_eq!(wall.service("users", || panic!()).in_flight, 1, "loads stay as they were");
        }
        assert_eq!(wall.tape.unknown, None);
    }

    #[test]
    fn what_was_not_read_is_not_known() {
        for (key, times) in [("b", 1), ("a", 3)] {
            let mut wall = Wall::taped(tape());
            (0..times).for_each(|_| drop(get(&mut wall, key)));
            assert_eq!(wall.tape.unknown, Some(Asked::Get(key.into())));
        }
    }

    #[test]
    fn a_shadow_asks_the_world_of_services_but_not_its_state() {
        let mut wall = Wall { reads: Reads::TapedThenLive(Played::new(tape())), tape: Tape::default() };
        let now = ServiceNow { usable: 7, ..ServiceNow::default() };
        assert_eq!(wall.service("others", || now), now);
        assert_eq!(wall.tape.unknown, None);
        assert_eq!(get(&mut wall, "b"), None);
        assert_eq!(wall.tape.unknown, Some(Asked::Get("b".into())));
    }

    /// What a call is told that does all this, with `live` as its state; none: there must be no need for it.
    fn told(wall: &mut Wall, steps: &[(u8, u8, u8)], live: Option<&State>) -> Vec<String> {
        let live = || live.expect("the world was asked");
        let step = |(kind, key, number): &(u8, u8, u8)| {
            let (key, value) = (format!("k{key}"), format!("v{number}"));
            match kind {
                0 => wall.add((&key, (*number).into(), 0), || live().add(&key, (*number).into(), 0, 7)).to_string(),
                1 => {
                    let rate = Rate { per_second: 1.0, burst: 100 };
                    let take = || {
                        let taken = live().take(&key, (*number).into(), rate, 7);
                        TakenNow { granted: taken.granted, left: taken.left, wait_ms: taken.wait_ms }
                    };
                    format!("{:?}", wall.take((&key, (*number).into(), 1.0, 100), take))
                }
                2 => format!("{:?}", wall.get(&key, || live().get(&key, 7))),
                3 => wall.get_or_set((&key, &value, 0), || live().get_or_set(&key, &value, 0, 7)),
                _ => {
                    wall.tape.did(Effect::Set(key.as_str().into(), value.as_str().into(), 0));
                    if wall.is_live() {
                        live().set(&key, &value, 0, 7);
                    }
                    String::new()
                }
            }
        };
        steps.iter().map(step).collect()
    }

    proptest! {
        #[test]
        fn a_call_that_does_the_same_is_told_the_same(steps in prop::collection::vec((0_u8..5, 0_u8..4, 0_u8..50), 0..60)) {
            let mut first = Wall::noting();
            let state = State::new(100, 100_000);
            let before = told(&mut first, &steps, Some(&state));
            let written = postcard::to_allocvec(&first.tape).unwrap();
            let read: Tape = postcard::from_bytes(&written).unwrap();
            let mut again = Wall::taped(Arc::new(read));
            prop_assert_eq!(told(&mut again, &steps, None), before);
            prop_assert_eq!(&again.tape.effects, &first.tape.effects);
            prop_assert_eq!(&again.tape.reads, &first.tape.reads);
            prop_assert_eq!(again.tape.unknown, None);
        }
    }

    #[test]
    fn a_tape_has_an_end() {
        let mut wall = Wall::noting();
        for number in 0..10_000 {
            wall.get(&number.to_string(), || Some("x".repeat(100)));
            wall.add((&number.to_string(), 1, 0), || 1);
        }
        assert!(wall.tape.cut && wall.tape.reads.len() <= 1024 && wall.tape.effects.len() <= 1024);
    }
}
