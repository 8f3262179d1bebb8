//! What a middleware has done so far: numbers that belong to its name and survive every reload.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// What a middleware did with a request, where that is more than to let it pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It answered instead of an endpoint.
    Answered,
    /// It refused it.
    Refused,
    /// It could not find out what it had to: who asks, or what an external check says. Of a copy: nobody answered it.
    Failed,
    /// The same, and the request went on, as the configuration says.
    LetThrough,
    /// A copy of it was answered.
    Mirrored,
    /// No copy of it was sent: too many were under way, or its body was too large or did not come to its end.
    LeftOut,
}

impl Outcome {
    /// Each once, in the order of their declaration.
    pub const ALL: [Outcome; 6] = [
        Outcome::Answered,
        Outcome::Refused,
        Outcome::Failed,
        Outcome::LetThrough,
        Outcome::Mirrored,
        Outcome::LeftOut,
    ];

    /// As metrics and the admin call it.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Answered => "answered",
            Outcome::Refused => "refused",
            Outcome::Failed => "failed",
            Outcome::LetThrough => "let_through",
            Outcome::Mirrored => "mirrored",
            Outcome::LeftOut => "left_out",
        }
    }
}

/// How often each of them was, all workers together: none of them is what usually happens.
#[derive(Debug, Default)]
pub struct Live {
    counts: [AtomicU64; Outcome::ALL.len()],
    /// What it has sent on its own and is not over.
    under_way: AtomicU32,
}

/// One thing that is under way, for as long as this lives.
#[derive(Debug)]
pub struct UnderWay(Arc<Live>);

impl Live {
    /// Once more.
    pub fn count(&self, outcome: Outcome) {
        self.counts[outcome as usize].fetch_add(1, Relaxed);
    }

    /// How often so far.
    pub fn get(&self, outcome: Outcome) -> u64 {
        self.counts[outcome as usize].load(Relaxed)
    }

    /// How many things are under way.
    pub fn under_way(&self) -> u32 {
        self.under_way.load(Relaxed)
    }

    /// One more is under way; none: as many are already.
    pub fn enter(self: &Arc<Self>, most: u32) -> Option<UnderWay> {
        let more = |now: u32| (now < most).then_some(now + 1);
        self.under_way.fetch_update(Relaxed, Relaxed, more).ok().map(|_| UnderWay(Arc::clone(self)))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_own_place() {
        let live = Live::default();
        for (place, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, place);
            (0..=place).for_each(|_| live.count(outcome));
        }
        for (place, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(live.get(outcome), place as u64 + 1);
        }
    }

    #[test]
    fn no_more_are_under_way_than_may_be() {
        let live = Arc::new(Live::default());
        let first = live.enter(2).unwrap();
        let second = live.enter(2);
        assert!(second.is_some() && live.enter(2).is_none() && live.enter(0).is_none());
        drop(first);
        assert!(live.enter(2).is_some());
        assert_eq!(live.under_way(), 1);
    }
}
