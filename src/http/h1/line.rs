//! Lines of a head: what may stand in one, and a map of many.

use crate::http::malformed::Malformed;
use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};

/// `METHOD target HTTP/1.x`: method, target, and whether it is HTTP/1.0.
pub(super) fn request_line(line: &[u8]) -> Result<(&[u8], &[u8], bool), Malformed> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Malformed::RequestLine);
    };
    if !is_token(method) {
        return Err(Malformed::Method);
    }
    if target.len() > LONGEST_TARGET {
        return Err(Malformed::TargetTooLong);
    }
    // What is not simply a path is rare, so a way to read it that costs something will do. Which form fits which method is
    // not a matter of framing.
    let plain = target.starts_with(b"/") && target.iter().all(|byte| is_plain(*byte));
    let good = || target.is_ascii() && !target.contains(&b'#') && http::Uri::try_from(target).is_ok();
    if !plain && !good() {
        return Err(Malformed::Target);
    }
    match version {
        b"HTTP/1.1" => Ok((method, target, false)),
        b"HTTP/1.0" => Ok((method, target, true)),
        // Both are said to be something else.
        version if !target.starts_with(b"/") && !version.starts_with(b"HTTP/") => Err(Malformed::NotHttp),
        _ => Err(Malformed::Version),
    }
}

/// `HTTP/1.x 200 reason`, where the reason may be missing: the status, and whether it is HTTP/1.0.
pub(super) fn status_line(line: &[u8]) -> Option<(StatusCode, bool)> {
    let (version, rest) = line.split_at_checked(b"HTTP/1.1 ".len())?;
    let http_10 = match version {
        b"HTTP/1.1 " => false,
        b"HTTP/1.0 " => true,
        _ => return None,
    };
    let (status, reason) = rest.split_at_checked(3)?;
    let good = matches!(reason.first(), None | Some(b' ')) && is_text(reason);
    StatusCode::from_bytes(status).ok().filter(|_| good).map(|status| (status, http_10))
}

/// `name: value`, the value without the whitespace around it.
pub(super) fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let end = token_end(line);
    // The first byte that can stand in no name has to be the colon.
    if end == 0 || line.get(end) != Some(&b':') {
        let is_folded = matches!(line.first(), Some(b' ' | b'\t'));
        return Err(if is_folded { Malformed::Folded } else { Malformed::HeaderName });
    }
    let (name, value) = (&line[..end], &line[end + 1..]);
    if !is_text(value) {
        return Err(Malformed::HeaderValue);
    }
    Ok((name, value.trim_ascii()))
}

/// Where the token ends that it begins with.
fn token_end(line: &[u8]) -> usize {
    let mut end = 0;
    while let Some(eight) = line[end..].first_chunk() {
        let rare = rare_in_names(u64::from_le_bytes(*eight));
        if rare != 0 {
            end += rare.trailing_zeros() as usize / 8;
            break;
        }
        end += 8;
    }
    while line.get(end).is_some_and(|byte| TOKEN[usize::from(*byte)]) {
        end += 1;
    }
    end
}

/// Eight bytes at once: the highest bit of each that is no letter, digit or dash, which nearly all names consist of.
fn rare_in_names(word: u64) -> u64 {
    const HIGH: u64 = ONES * 0x80;
    // Without their highest bit, bytes can be added to without one carrying into the next: is it `from` or above?
    let low = word & !HIGH;
    let at_least = |word: u64, from: u8| word + ONES * u64::from(0x80 - from);
    let folded = low | (ONES * 0x20);
    let letter = at_least(folded, b'a') & !at_least(folded, b'z' + 1);
    let digit = at_least(low, b'0') & !at_least(low, b'9' + 1);
    let dash = !at_least(low ^ (ONES * u64::from(b'-')), 1);
    (!(letter | digit | dash) | word) & HIGH
}

const ONES: u64 = u64::from_ne_bytes([1; 8]);

/// What `Uri` takes.
const LONGEST_TARGET: usize = (u16::MAX - 1) as usize;

/// What `Uri` takes anywhere in a path and its query: more than RFC 3986 allows, since browsers send it.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~') && !matches!(byte, b'#' | b'<' | b'>' | b'"' | b'`')
}

/// No control but a tab.
fn is_text(bytes: &[u8]) -> bool {
    let one_by_one = |bytes: &[u8]| bytes.iter().all(|byte| !byte.is_ascii_control() || *byte == b'\t');
    // Eight at once; where one of them is below a space or is 0x7f, it may still be a tab.
    let has_control = |eight: &[u8; 8]| {
        let word = u64::from_ne_bytes(*eight);
        let (low, del) = (word.wrapping_sub(ONES * 0x20) & !word, word ^ (ONES * 0x7f));
        (low | del.wrapping_sub(ONES) & !del) & (ONES * 0x80) != 0
    };
    let (eights, _) = bytes.as_chunks::<8>();
    match bytes.last_chunk::<8>() {
        Some(last) if !has_control(last) && !eights.iter().any(has_control) => true,
        _ => one_by_one(bytes),
    }
}

/// What may stand in a token (RFC 9110 §5.6.2).
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let marks = b"!#$%&'*+-.^_`|~";
    let mut at = 0;
    while at < marks.len() {
        table[marks[at] as usize] = true;
        at += 1;
    }
    let mut byte = 0;
    while byte < 128 {
        if (byte as u8).is_ascii_alphanumeric() {
            table[byte] = true;
        }
        byte += 1;
    }
    table
};

fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| TOKEN[usize::from(*byte)])
}

/// Digits only, no sign, no list.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    let add = |number: u64, byte: &u8| {
        let digit = byte.wrapping_sub(b'0');
        number.checked_mul(10)?.checked_add(u64::from(digit)).filter(|_| digit < 10)
    };
    if text.is_empty() { None } else { text.iter().try_fold(0, add) }
}

/// Trailers: lines that were found good, up to an empty one.
///
/// # Errors
/// They are none.
pub(super) fn trailers(bytes: &[u8]) -> Result<HeaderMap, Malformed> {
    let mut trailers = HeaderMap::new();
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r\n").ok_or(Malformed::BareLineFeed)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = field(line)?;
        let name = HeaderName::from_bytes(name).map_err(|_| Malformed::HeaderName)?;
        let value = HeaderValue::from_bytes(value).map_err(|_| Malformed::HeaderValue)?;
        trailers.try_append(name, value).map_err(|_| Malformed::HeadTooLarge)?;
    }
    Ok(trailers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_token_ends_where_its_bytes_say(
            line in prop_oneof![prop::collection::vec(any::<u8>(), 0..30), "[A-Za-z0-9_-]{0,24}[ -~]{0,9}".prop_map(String::into_bytes)],
        ) {
            let end = line.iter().position(|byte| !TOKEN[usize::from(*byte)]).unwrap_or(line.len());
            prop_assert_eq!(token_end(&line), end);
        }
    }

    #[test]
    fn each_byte_is_rare_or_not_wherever_it_stands() {
        for byte in 0..=u8::MAX {
            let rare = !(byte.is_ascii_alphanumeric() || byte == b'-');
            for place in 0..8 {
                let mut eight = *b"aZ09-bYz";
                eight[place] = byte;
                let word = rare_in_names(u64::from_le_bytes(eight));
                assert_eq!(word, if rare { 0x80 << (8 * place) } else { 0 }, "{byte} at {place}");
            }
        }
    }
}
