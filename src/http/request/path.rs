//! A path in its normal form: what policies, routes and the upstream see of it, and what match rules go by.
//!
//! RFC 3986 §6.2.2: what is unreserved is decoded, other escapes are written with capital digits, then dot segments are
//! resolved. Slashes and `;` parameters stay as sent, since to many servers they mean something. Match rules go over
//! less than that (see [`matched`]): all that some server reads alike is one path to them, so that no spelling leads
//! past a guard. Where servers read a path so differently that no one reading would do, it is refused.

use crate::http::malformed::Malformed;
use crate::http::settings::Paths;
use std::borrow::Cow;

/// What a path is to policies, routes, match rules and the upstream, as far as that is not what was sent.
#[derive(Debug, Clone, Default)]
pub struct Path {
    /// What policies, routes and the upstream see.
    pub normal: Option<String>,
    /// What match rules compare.
    pub matched: Option<Vec<u8>>,
}

impl Path {
    /// Reads a path once for all of them.
    ///
    /// # Errors
    /// Other servers could resolve it differently.
    pub fn read(sent: &str, paths: Paths) -> Result<Self, Malformed> {
        // Nearly every path.
        if is_plain(sent) {
            return Ok(Path::default());
        }
        let normal = normal(sent, paths)?;
        let matched = match matched(&normal) {
            Cow::Borrowed(_) => None,
            Cow::Owned(matched) => Some(matched),
        };
        let normal = match normal {
            Cow::Borrowed(_) => None,
            Cow::Owned(normal) => Some(normal),
        };
        Ok(Path { normal, matched })
    }
}

/// The path that policies, routes and the upstream see.
///
/// # Errors
/// Other servers could resolve it differently.
pub fn normal(sent: &str, paths: Paths) -> Result<Cow<'_, str>, Malformed> {
    if is_plain(sent) || !sent.starts_with('/') {
        return Ok(Cow::Borrowed(sent));
    }
    let decoded = if paths == Paths::AsSent { Cow::Borrowed(sent) } else { decoded(sent) };
    let resolved = resolved(&decoded, paths)?;
    Ok(resolved.map_or(decoded, Cow::Owned))
}

/// What match rules compare, of a path in its normal form: everything decoded once, a backslash taken for a slash, `;`
/// and what follows it in a segment left out, runs of slashes taken for one.
pub fn matched(path: &str) -> Cow<'_, [u8]> {
    if is_plain(path) || !path.starts_with('/') {
        return Cow::Borrowed(path.as_bytes());
    }
    let (bytes, mut at) = (path.as_bytes(), 0);
    let mut view = Vec::with_capacity(bytes.len());
    let mut parameter = false;
    while let Some((byte, length)) = unit(bytes, at) {
        at += length;
        match byte {
            b'/' | b'\\' => {
                parameter = false;
                if view.last() != Some(&b'/') {
                    view.push(b'/');
                }
            }
            b';' => parameter = true,
            _ if parameter => {}
            _ => view.push(byte),
        }
    }
    Cow::Owned(view)
}

/// It has one reading: there is nothing in it to decode, to resolve or to look past.
fn is_plain(path: &str) -> bool {
    let mut before = 0;
    path.bytes().all(|byte| {
        let special = matches!(byte, b'%' | b'\\' | b';') || before == b'/' && matches!(byte, b'/' | b'.');
        before = byte;
        !special
    })
}

/// The byte that stands here, decoded, and how many bytes it is written with. A `%` without two digits stands for
/// itself.
fn unit(bytes: &[u8], at: usize) -> Option<(u8, usize)> {
    let digit = |offset: usize| bytes.get(at + offset).and_then(|byte| char::from(*byte).to_digit(16));
    match (*bytes.get(at)?, digit(1), digit(2)) {
        // Two hex digits fit a byte.
        (b'%', Some(high), Some(low)) => Some(((high * 16 + low) as u8, 3)),
        (byte, ..) => Some((byte, 1)),
    }
}

/// The same with unreserved characters decoded (RFC 3986 §2.3) and capital digits in other escapes.
fn decoded(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    let (bytes, mut at) = (path.as_bytes(), 0);
    let mut text = String::with_capacity(path.len());
    // Behind a `%` that stands for itself: there, a digit that is decoded would make an escape of it, and whoever decodes
    // after us would read what nobody sent.
    let mut stray = None;
    for (start, char) in path.char_indices() {
        if start < at {
            continue;
        }
        match unit(bytes, start) {
            Some((byte, length @ 3)) => {
                at = start + length;
                let makes_escape = byte.is_ascii_hexdigit() && stray.is_some_and(|stray| text.len() - stray < 2);
                if (byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)) && !makes_escape {
                    text.push(char::from(byte));
                } else {
                    text.push_str(&path[start..at].to_ascii_uppercase());
                }
            }
            _ => {
                text.push(char);
                if char == '%' {
                    stray = Some(text.len());
                }
            }
        }
    }
    if text == path { Cow::Borrowed(path) } else { Cow::Owned(text) }
}

/// The same with `.` and `..` segments resolved (RFC 3986 §5.2.4), also where their dots are escaped. `/a/..` ends in a
/// slash; `..` above the root stays at the root. None: there are none.
fn resolved(path: &str, paths: Paths) -> Result<Option<String>, Malformed> {
    let mut kept: Vec<&str> = Vec::new();
    let (mut trailing, mut any) = (false, false);
    let careful = paths != Paths::AsSent;
    for segment in path.split('/').skip(1) {
        let dots = dots(segment);
        if careful && !is_clear(segment, paths) {
            return Err(Malformed::AmbiguousPath);
        }
        (trailing, any) = (dots > 0, any || dots > 0);
        match dots {
            0 => kept.push(segment),
            1 => {}
            _ => {
                // Who merges slashes, strips parameters or takes an escaped slash for one would go up from elsewhere.
                let gone = kept.pop();
                if careful && gone.is_some_and(|gone| !is_one(gone)) {
                    return Err(Malformed::AmbiguousPath);
                }
            }
        }
    }
    if !any {
        return Ok(None);
    }
    let mut resolved = String::with_capacity(path.len());
    for segment in &kept {
        resolved.push('/');
        resolved.push_str(segment);
    }
    if trailing || kept.is_empty() {
        resolved.push('/');
    }
    Ok(Some(resolved))
}

/// How many dots a dot segment has; 0: it is none.
fn dots(segment: &str) -> usize {
    match segment.len() {
        1..=6 => match segment.to_ascii_lowercase().replace("%2e", ".").as_str() {
            "." => 1,
            ".." => 2,
            _ => 0,
        },
        _ => 0,
    }
}

/// No server sees a dot segment in it that is not one to all, nor a slash in its parameters.
fn is_clear(segment: &str, paths: Paths) -> bool {
    let (bytes, mut at) = (segment.as_bytes(), 0);
    let (mut parted, mut parameter, mut dots, mut others) = (false, false, 0, false);
    let is_dots = |dots, others: bool| (1..=2).contains(&dots) && !others;
    while let Some((byte, length)) = unit(bytes, at) {
        at += length;
        match byte {
            b'/' | b'\\' if paths == Paths::Strict || parameter || is_dots(dots, others) => return false,
            b'/' | b'\\' => (parted, dots, others) = (true, 0, false),
            b';' => parameter = true,
            _ if parameter => {}
            b'.' => dots += 1,
            _ => others = true,
        }
    }
    !is_dots(dots, others) || !(parted || parameter)
}

/// It is one segment to every server, and not an empty one.
fn is_one(segment: &str) -> bool {
    let (bytes, mut at) = (segment.as_bytes(), 0);
    let (mut parted, mut first) = (false, None);
    while let Some((byte, length)) = unit(bytes, at) {
        at += length;
        first.get_or_insert(byte);
        parted |= matches!(byte, b'/' | b'\\');
    }
    !parted && first.is_some_and(|first| first != b';')
}

#[cfg(test)]
mod tests;
