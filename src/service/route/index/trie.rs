//! A trie of segments. In one list, so that one as deep as a file can be is dropped like any other.

use rustc_hash::FxHashMap;

/// Values by lists of segments.
#[derive(Debug)]
pub(super) struct Trie<T>(Vec<Node<T>>);

#[derive(Debug, Default)]
struct Node<T> {
    here: T,
    /// Places of those a segment further.
    below: FxHashMap<Box<[u8]>, usize>,
}

impl<T: Default> Default for Trie<T> {
    fn default() -> Self {
        Trie(vec![Node::default()])
    }
}

impl<T: Default> Trie<T> {
    /// The value at the end of these segments, which comes into being here.
    pub(super) fn at<'s>(&mut self, segments: impl Iterator<Item = &'s [u8]>) -> &mut T {
        let mut place = 0;
        for segment in segments {
            let new = self.0.len();
            place = *self.0[place].below.entry(segment.into()).or_insert(new);
            if place == new {
                self.0.push(Node::default());
            }
        }
        &mut self.0[place].here
    }

    /// There is none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.len() == 1
    }

    /// The values along these segments, as far as there are any.
    pub(super) fn along<'s>(&self, segments: impl Iterator<Item = &'s [u8]>) -> impl Iterator<Item = &T> {
        let further = |place: &mut usize, segment: &[u8]| {
            *place = *self.0[*place].below.get(segment)?;
            Some(&self.0[*place].here)
        };
        segments.scan(0, further)
    }
}
