//! Responses on streams of which clients may take nothing, while the rest of their connection goes on.

use std::cell::RefCell;
use std::fmt;
use std::rc::Weak;
use std::time::Instant;

/// A response that its client takes piece by piece.
pub trait Taken {
    /// Lets go of it if nothing of it was taken since `then`, though there was something; true: it did.
    fn let_go(&self, then: Instant) -> bool;
}

/// A worker's responses of this kind.
#[derive(Default)]
pub struct Untaken(RefCell<Vec<Weak<dyn Taken>>>);

impl Untaken {
    /// Has an eye on one, for as long as it is there.
    pub fn watch(&self, response: Weak<dyn Taken>) {
        self.0.borrow_mut().push(response);
    }

    /// Lets go of those of which nothing was taken since `then`.
    pub fn let_go(&self, then: Instant) {
        // Taken out, since the end of one may begin another.
        let mut watched = self.0.take();
        watched.retain(|response| response.upgrade().is_some_and(|response| !response.let_go(then)));
        self.0.borrow_mut().append(&mut watched);
    }
}

impl fmt::Debug for Untaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Untaken({})", self.0.borrow().len())
    }
}
