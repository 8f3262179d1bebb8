//! What was read of a client's body and may have to be sent again. No byte is copied for it.

use bytes::Bytes;
use smallvec::SmallVec;

/// A body of more bytes than this is not kept, and so not sent again once it was read from.
const BYTES: usize = 64 << 10;
/// The same for its pieces: a small one can hold a large buffer.
const PIECES: usize = 16;

/// The pieces of a body, from its start, for as long as another attempt may want them.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pieces: SmallVec<[Bytes; 2]>,
    /// How many of the pieces this attempt was given.
    given: usize,
    /// Not all that was read is here.
    spent: bool,
}

impl Kept {
    /// Another attempt begins with the first piece; only while nothing is spent.
    pub(super) fn again(&mut self) {
        self.given = 0;
    }

    /// What this attempt has not been given yet of what those before it have read.
    pub(super) fn next(&mut self) -> Option<Bytes> {
        let piece = self.pieces.get(self.given)?.clone();
        self.given += 1;
        Some(piece)
    }

    /// This attempt is given a new piece, having been given all others.
    pub(super) fn add(&mut self, piece: &Bytes) {
        if self.spent {
            return;
        }
        let bytes = self.pieces.iter().map(Bytes::len).sum::<usize>() + piece.len();
        if bytes > BYTES || self.pieces.len() == PIECES {
            return self.spend();
        }
        self.pieces.push(piece.clone());
        self.given += 1;
    }

    /// There will be no other attempt. What this one was not given yet stays.
    pub(super) fn spend(&mut self) {
        self.spent = true;
        self.pieces.drain(..std::mem::take(&mut self.given));
    }

    /// There can be no other attempt.
    pub(super) fn is_spent(&self) -> bool {
        self.spent
    }

    /// Bytes that `next` will give.
    pub(super) fn left(&self) -> u64 {
        self.pieces.iter().skip(self.given).map(|piece| piece.len() as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What can happen next.
    #[derive(Debug, Clone)]
    enum Step {
        Read,
        Again,
        Spend,
    }

    proptest! {
        #[test]
        fn each_attempt_is_given_the_body_from_its_start(
            lengths in prop_oneof![prop::collection::vec(0..9_usize, 0..30), prop::collection::vec(0..40_000_usize, 0..6)],
            steps in prop::collection::vec(
                prop_oneof![40 => Just(Step::Read), 3 => Just(Step::Again), 1 => Just(Step::Spend)], 0..80),
        ) {
            let body: Vec<Bytes> =
                lengths.iter().zip(0_u8..).map(|(&length, fill)| Bytes::from(vec![fill; length])).collect();
            let (mut kept, mut client, mut sent) = (Kept::default(), body.iter(), Vec::new());
            for step in steps {
                match step {
                    Step::Read => {
                        let (left, again) = (kept.left(), kept.next());
                        prop_assert!(again.is_some() || left == 0);
                        let piece = again.or_else(|| {
                            let piece = client.next().cloned();
                            piece.inspect(|piece| kept.add(piece))
                        });
                        sent.extend(piece);
                    }
                    Step::Again if !kept.is_spent() => {
                        kept.again();
                        sent.clear();
                    }
                    Step::Again => {}
                    Step::Spend => kept.spend(),
                }
                prop_assert_eq!(&sent[..], &body[..sent.len()]);
                prop_assert!(kept.pieces.len() <= PIECES);
                prop_assert!(kept.pieces.iter().map(Bytes::len).sum::<usize>() <= BYTES);
            }
            // The last attempt gets the rest.
            sent.extend(std::iter::from_fn(|| kept.next()));
            sent.extend(client.cloned());
            prop_assert_eq!(sent, body);
        }
    }
}
