//! A body of which somebody else is given a copy, once all of it has been read.

use super::{BrokenUpload, Incoming};
use bytes::Bytes;
use http_body::Frame;
use std::task::{Context, Poll, ready};
use tokio::sync::oneshot;

/// A body that is copied as it is read. Nothing is read for the copy's sake.
#[derive(Debug)]
pub struct Copied {
    pub(super) incoming: Incoming,
    /// Bytes that were read.
    copy: Vec<u8>,
    /// More than this is not copied.
    most: usize,
    /// None: nobody wants it, or it was given.
    to: Option<oneshot::Sender<Bytes>>,
}

impl Copied {
    /// The body, and where its copy comes: never, if there is more of it than `most` bytes or it does not come to its end.
    pub(super) fn new(incoming: Incoming, most: usize) -> (Self, oneshot::Receiver<Bytes>) {
        let (to, copy) = oneshot::channel();
        (Copied { incoming, copy: Vec::new(), most, to: Some(to) }, copy)
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenUpload>>> {
        let frame = ready!(self.incoming.poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.add(data);
                }
                // Whoever sees that here does not ask again.
                if frame.is_trailers() || self.incoming.is_over() {
                    self.give();
                }
            }
            None => self.give(),
            Some(Err(_)) => self.to = None,
        }
        Poll::Ready(frame)
    }

    fn add(&mut self, data: &Bytes) {
        let wanted = self.to.as_ref().is_some_and(|to| !to.is_closed());
        if wanted && self.copy.len() + data.len() <= self.most {
            self.copy.extend_from_slice(data);
        } else {
            (self.copy, self.to) = (Vec::new(), None);
        }
    }

    fn give(&mut self) {
        if let Some(to) = self.to.take() {
            // Nobody may be there any more.
            let _ = to.send(std::mem::take(&mut self.copy).into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn all_of_it_is_copied_or_nothing(body in prop::collection::vec(any::<u8>(), 0..40), most in 0..40_usize, read: bool) {
            let (mut copied, mut copy) = Copied::new(Incoming::Whole(Bytes::from(body.clone())), most);
            let mut cx = Context::from_waker(std::task::Waker::noop());
            let mut seen = Vec::new();
            while read && let Poll::Ready(Some(frame)) = copied.poll_frame(&mut cx) {
                seen.extend_from_slice(&frame.unwrap().into_data().unwrap());
            }
            drop(copied);
            prop_assert_eq!(copy.try_recv().ok(), (read && body.len() <= most).then(|| Bytes::from(body.clone())));
            prop_assert!(!read || seen == body);
        }
    }
}
