//! Making text safe that clients and policies wrote: bounded, on one line, without credentials.

use std::borrow::Cow;
use std::fmt::{self, Display, Write as _};

/// Bytes of one piece of text in a span or a line.
pub(super) const MAX: usize = 1024;

/// Cut to [`MAX`] bytes, between two characters.
pub(super) fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX)]
}

/// A header's value as text, cut.
pub(super) fn header(value: &[u8]) -> String {
    cut(&String::from_utf8_lossy(value)).to_owned()
}

/// Keys whose values grant access (the list of OpenTelemetry's semantic conventions for `url.query`).
const SECRET_KEYS: [&str; 7] = [
    "AWSAccessKeyId",
    "Signature",
    "sig",
    "X-Goog-Signature",
    "X-Amz-Signature",
    "X-Amz-Credential",
    "X-Amz-Security-Token",
];

/// A query, cut, and without the values of keys that grant access.
pub(super) fn query(query: &str) -> Cow<'_, str> {
    let secret = |pair: &str| pair.split_once('=').is_some_and(|(key, _)| SECRET_KEYS.contains(&key));
    if !query.split('&').any(secret) {
        return Cow::Borrowed(cut(query));
    }
    let told = |pair| if secret(pair) { pair.split_once('=').map_or("", |(key, _)| key) } else { pair };
    let mut kept = String::with_capacity(query.len());
    for (index, pair) in query.split('&').enumerate() {
        kept.push_str(if index > 0 { "&" } else { "" });
        kept.push_str(told(pair));
        kept.push_str(if secret(pair) { "=REDACTED" } else { "" });
    }
    kept.truncate(kept.floor_char_boundary(MAX));
    Cow::Owned(kept)
}

/// What would end a line, move a terminal's cursor or turn the text around.
fn is_unsafe(char: char) -> bool {
    char.is_control() || matches!(char, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Text on one line: control characters are written as Rust would write them.
pub(super) struct OneLine<'a>(pub(super) &'a str);

impl Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(self.0, f, is_unsafe)
    }
}

/// A value in a line of `key=value`: as it is where that is plain, else in quotes.
pub(super) struct Value<'a>(pub(super) &'a str);

impl Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/@[]*".contains(&byte);
        if !self.0.is_empty() && self.0.bytes().all(plain) {
            return f.write_str(self.0);
        }
        f.write_char('"')?;
        Quoted(self.0).fmt(f)?;
        f.write_char('"')
    }
}

/// What stands between quotes.
pub(super) struct Quoted<'a>(pub(super) &'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(self.0, f, |char| matches!(char, '"' | '\\') || is_unsafe(char))
    }
}

fn escape(text: &str, f: &mut fmt::Formatter<'_>, is_special: impl Fn(char) -> bool) -> fmt::Result {
    let mut rest = text;
    while let Some((at, special)) = rest.char_indices().find(|(_, char)| is_special(*char)) {
        f.write_str(&rest[..at])?;
        match special {
            '"' | '\\' => write!(f, "\\{special}")?,
            other => write!(f, "{}", other.escape_default())?,
        }
        rest = &rest[at + special.len_utf8()..];
    }
    f.write_str(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_on_its_line() {
        assert_eq!(
            OneLine("a\nb\r\u{1b}[2J\u{85}\u{2028}é\"\\").to_string(),
            "a\\nb\\r\\u{1b}[2J\\u{85}\\u{2028}é\"\\"
        );
        assert_eq!(Value("users/v2").to_string(), "users/v2");
        assert_eq!(Value("").to_string(), "\"\"");
        assert_eq!(Value("a=\"b\\\n").to_string(), r#""a=\"b\\\n""#);
    }

    #[test]
    fn what_grants_access_is_not_told() {
        assert_eq!(query("a=1&sig=abc&Signature=&b&sigma=2"), "a=1&sig=REDACTED&Signature=REDACTED&b&sigma=2");
        assert_eq!(query("a=1&sig"), "a=1&sig");
        assert_eq!(query(&"é".repeat(MAX)).len(), MAX);
        assert_eq!(query(&format!("sig=1&{}", "é".repeat(MAX))).len(), MAX - 1);
    }

    proptest::proptest! {
        #[test]
        fn a_value_has_no_control_character_and_ends_where_it_ends(text: String) {
            let value = Value(&text).to_string();
            proptest::prop_assert!(!value.chars().any(is_unsafe));
            if let Some(inner) = value.strip_prefix('"') {
                // The first quote that no backslash takes is the last character.
                let mut taken = false;
                let end = inner.find(|char| {
                    let ends = char == '"' && !taken;
                    taken = char == '\\' && !taken;
                    ends
                });
                proptest::prop_assert_eq!(end, Some(inner.len() - 1));
            } else {
                proptest::prop_assert!(!value.contains([' ', '"', '=']));
            }
        }
    }
}
