//! Sizes as people write them: `"16MiB"`, `"1GiB"`, or bytes as a number.

use serde::{Deserialize, Deserializer};

/// Reads a size with its unit: B, KiB, MiB or GiB. None: it is none.
pub fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim() {
        "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Reads bytes as a number, or text as [`parse`] does.
///
/// # Errors
/// A sentence that shows the text and a good example.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a size is a number of bytes or text like \"16MiB\"")]
    enum Written {
        Bytes(u64),
        Text(String),
    }
    match Written::deserialize(from)? {
        Written::Bytes(bytes) => Ok(bytes),
        Written::Text(text) => parse(&text).ok_or_else(|| {
            serde::de::Error::custom(format!("`{text}` is no size; write it like \"16MiB\" (KiB, MiB, GiB or B)"))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in
            [("16MiB", Some(16 << 20)), (" 1 GiB ", Some(1 << 30)), ("0B", Some(0)), ("3KiB", Some(3072))]
        {
            assert_eq!(parse(text), bytes, "{text}");
        }
        for text in ["", "16", "MiB", "16MB", "-1B", "1.5GiB", "99999999999999999999B", "18446744073709551615KiB"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
