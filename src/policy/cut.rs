//! Text of a guest's, no longer than it may be.

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
