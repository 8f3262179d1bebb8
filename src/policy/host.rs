//! The host's side of the interface: one file per WIT interface, and what they share.
//!
//! A host function never returns an error, since that would cost the whole instance. It notes what is wrong, gives
//! something harmless, and the answer becomes a fault when the call ends.

mod catalog;
mod clock;
mod edit;
mod hashing;
mod log;
mod metrics;
mod plan;
mod random;
mod request;
mod routing;
mod state;

pub(super) use routing::answer;

/// Cuts text to at most this many bytes, between two characters.
pub(super) fn cut(text: &mut String, bytes: usize) {
    if text.len() > bytes {
        text.truncate(text.floor_char_boundary(bytes));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn text_is_cut_between_characters() {
        let mut text = "aé€".to_owned();
        super::cut(&mut text, 6);
        assert_eq!(text, "aé€");
        super::cut(&mut text, 5);
        assert_eq!(text, "aé");
        super::cut(&mut text, 2);
        assert_eq!(text, "a");
    }
}
