//! The lines of a head, in their order. Not a map: a head has a dozen lines, which are read a few times each, so that
//! finding them one after the other costs less than to build a map of them.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use std::ops::Range;

/// The lines of a head, or of what is to become one. Names are in lower case and tokens (RFC 9110 §5.6.2), values without
/// whitespace around them and without controls but tabs: whoever adds a line has checked it.
#[derive(Debug, Clone, Default)]
pub struct Fields {
    /// Names and values, and whatever else stood in the head. Of a line that is gone, nobody reads it any more.
    text: Vec<u8>,
    lines: Vec<FieldLine>,
    /// A bit for each name that may be among them: most questions are for one that is not.
    names: u64,
    /// `text` is what is written of them, and of the first line.
    whole: bool,
}

/// Most heads have no more lines.
pub const USUAL: usize = 16;
/// What the gateway adds to a head, bytes.
const ROOM: usize = 384;
/// What it adds to one that it does not write anew.
const LINE: usize = 96;

/// Makes a name that stands in a head lower case, eight bytes at once as long as there are as many.
fn lower(text: &mut [u8], mut name: Range<usize>) {
    while !name.is_empty()
        && let Some(eight) = text.get_mut(name.start..).and_then(|rest| rest.first_chunk_mut())
    {
        let word = u64::from_le_bytes(*eight);
        let within = u64::MAX >> (64 - 8 * name.len().min(8));
        // In each byte, the highest bit says that it is `A` or above, and below `[`; bytes beyond ASCII are left alone.
        let low = word & (ONES * 0x7f);
        let upper = (low + ONES * 0x3f) & !(low + ONES * 0x25) & !word & (ONES * 0x80) & within;
        *eight = (word | upper >> 2).to_le_bytes();
        name.start += 8;
    }
    if let Some(rest) = text.get_mut(name) {
        rest.make_ascii_lowercase();
    }
}

const ONES: u64 = u64::from_ne_bytes([1; 8]);

/// Where a line's parts stand.
#[derive(Debug, Clone, Copy)]
pub struct FieldLine {
    /// Its name.
    pub name: Extent,
    /// Its value.
    pub value: Extent,
}

/// Where something stands in the bytes of a head, which is far smaller than 4 GiB.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    from: u32,
    to: u32,
}

impl Extent {
    /// From the first byte up to the one behind the last.
    pub fn new(from: usize, to: usize) -> Self {
        let place = |at| u32::try_from(at).unwrap_or(u32::MAX);
        Extent { from: place(from), to: place(to) }
    }

    /// Of a part of `line`, which stands at `at`.
    pub fn of(line: &[u8], at: usize, part: &[u8]) -> Self {
        let from = at + (part.as_ptr() as usize).saturating_sub(line.as_ptr() as usize);
        Extent::new(from, from + part.len())
    }

    /// As bytes are indexed.
    pub fn range(self) -> Range<usize> {
        self.from as usize..self.to as usize
    }

    fn len(self) -> usize {
        (self.to - self.from) as usize
    }
}

impl Fields {
    /// The lines that stand at these places of a head. Their names may be in any case.
    pub fn of_head(head: &[u8], lines: Vec<FieldLine>) -> Self {
        let (mut text, mut names) = (Vec::with_capacity(head.len() + LINE), 0);
        text.extend_from_slice(head);
        for line in &lines {
            lower(&mut text, line.name.range());
            names |= bit(&text[line.name.range()]);
        }
        Fields { text, lines, names, whole: false }
    }

    /// What HTTP/2 has read.
    pub fn of_map(map: &HeaderMap) -> Self {
        let mut fields = Fields::default();
        fields.lines.reserve(map.len());
        fields.text.reserve(map.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum());
        for (name, value) in map {
            fields.append(name.as_str(), value.as_bytes());
        }
        fields
    }

    /// As HTTP/2 wants it.
    pub fn to_map(&self) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(self.lines.len());
        for (name, value) in self.iter() {
            // All of them were checked; a map holds 2^15, and heads are bounded far below.
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
                let _ = map.try_append(name, value);
            }
        }
        map
    }

    /// How many lines there are.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Each line's name and value.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&[u8], &[u8])> {
        self.lines.iter().map(|line| (self.at(line.name), self.at(line.value)))
    }

    /// Begins a head that is going to be written, of about as many bytes as `like`, with its first line.
    pub fn begin(first: &[&str], like: &Fields) -> Self {
        let mut text = Vec::with_capacity(like.text.len() + ROOM);
        first.iter().for_each(|part| text.extend_from_slice(part.as_bytes()));
        Fields { text, lines: Vec::with_capacity(like.len() + USUAL / 2), names: 0, whole: true }
    }

    /// Adds those lines of another head whose name passes.
    pub fn extend(&mut self, other: &Fields, passes: impl Fn(&[u8]) -> bool) {
        for line in other.lines.iter().filter(|line| passes(other.at(line.name))) {
            let Some(text) = other.whole_line(line) else {
                self.append(other.at(line.name), other.at(line.value));
                continue;
            };
            let from = self.text.len();
            self.text.extend_from_slice(text);
            self.note(from, other.at(line.name));
        }
    }

    /// The head that was begun, to its end.
    pub fn end(mut self) -> Vec<u8> {
        if !self.whole {
            let first = memchr::memchr(b'\n', &self.text).map_or(0, |end| end + 1);
            let mut written = self.text[..first].to_vec();
            self.write(&mut written, |_| false);
            self.text = written;
        }
        self.text.extend_from_slice(b"\r\n");
        self.text
    }

    /// The first line's value of this name, which is in lower case here and below.
    #[inline]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        if self.may_have(&[name]) { self.first(name) } else { None }
    }

    fn first(&self, name: &str) -> Option<&[u8]> {
        self.lines.iter().find(|line| self.is_named(line, name)).map(|line| self.at(line.value))
    }

    /// All lines' values of this name.
    #[inline]
    pub fn all<'a>(&'a self, name: &str) -> impl DoubleEndedIterator<Item = &'a [u8]> {
        let lines = if self.may_have(&[name]) { &self.lines[..] } else { &[] };
        lines.iter().filter(|line| self.is_named(line, name)).map(|line| self.at(line.value))
    }

    /// The value of the one line of this name; several say nothing.
    pub fn only(&self, name: &str) -> Option<&[u8]> {
        let mut values = self.all(name);
        values.next().filter(|_| values.next().is_none())
    }

    /// There may be a line of one of these names; false: there is none.
    #[inline(always)]
    pub fn may_have(&self, names: &[&str]) -> bool {
        self.names & names.iter().fold(0, |bits, name| bits | bit(name.as_bytes())) != 0
    }

    /// There is a line of this name.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Adds a line.
    pub fn append(&mut self, name: impl AsRef<[u8]>, value: &[u8]) {
        self.append_parts(name, &[value]);
    }

    /// Adds a line whose value stands in these parts.
    pub fn append_parts(&mut self, name: impl AsRef<[u8]>, value: &[&[u8]]) {
        let (name, from) = (name.as_ref(), self.text.len());
        line(&mut self.text, name, value);
        self.note(from, name);
    }

    /// The line of this name that was written last, which begins at `from`.
    fn note(&mut self, from: usize, name: &[u8]) {
        let name_ends = from + name.len();
        self.names |= bit(name);
        self.lines.push(FieldLine {
            name: Extent::new(from, name_ends),
            value: Extent::new(name_ends + 2, self.text.len() - 2),
        });
    }

    /// Makes this the one line of this name.
    pub fn set(&mut self, name: &str, value: &[u8]) {
        self.remove(name);
        self.append(name, value);
    }

    /// Takes away all lines of this name.
    pub fn remove(&mut self, name: &str) {
        if self.may_have(&[name]) {
            self.retain(|other| other != name.as_bytes());
        }
    }

    /// Takes away all lines but those with these names.
    pub fn retain(&mut self, keeps: impl Fn(&[u8]) -> bool) {
        let (text, before) = (&self.text, self.lines.len());
        self.lines.retain(|line| keeps(&text[line.name.range()]));
        self.whole &= self.lines.len() == before;
    }

    /// Adds them to a head that is being written (RFC 9112 §5), without those of which `leaves_out` says so.
    pub fn write(&self, out: &mut Vec<u8>, leaves_out: impl Fn(&[u8]) -> bool) {
        for line in &self.lines {
            let name = self.at(line.name);
            if leaves_out(name) {
                continue;
            }
            match self.whole_line(line) {
                Some(text) => out.extend_from_slice(text),
                None => self::line(out, name, &[self.at(line.value)]),
            }
        }
    }

    /// The line with its end, where it stands there as it is written, as nearly every one does.
    fn whole_line(&self, line: &FieldLine) -> Option<&[u8]> {
        let (name_ends, to) = (line.name.range().end, line.value.range().end);
        let whole = line.value.range().start == name_ends + 2
            && self.text[name_ends + 1] == b' '
            && self.text[to..].starts_with(b"\r\n");
        whole.then(|| &self.text[line.name.range().start..to + 2])
    }

    fn at(&self, place: Extent) -> &[u8] {
        &self.text[place.range()]
    }

    fn is_named(&self, line: &FieldLine, name: &str) -> bool {
        line.name.len() == name.len() && self.at(line.name) == name.as_bytes()
    }
}

/// Adds a line to a head that is being written; its value stands in these parts.
pub fn line(out: &mut Vec<u8>, name: &[u8], value: &[&[u8]]) {
    out.reserve(name.len() + value.iter().map(|part| part.len()).sum::<usize>() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    value.iter().for_each(|part| out.extend_from_slice(part));
    out.extend_from_slice(b"\r\n");
}

/// Of the 64 kinds of names, this one's; of one that is written in the source, the compiler works it out.
#[inline(always)]
fn bit(name: &[u8]) -> u64 {
    let (first, last) = (name.first().copied().unwrap_or(0), name.last().copied().unwrap_or(0));
    1 << ((name.len() ^ usize::from(first) << 1 ^ usize::from(last) << 3) & 63)
}

impl FromIterator<(&'static str, &'static str)> for Fields {
    fn from_iter<T: IntoIterator<Item = (&'static str, &'static str)>>(lines: T) -> Self {
        let mut fields = Fields::default();
        for (name, value) in lines {
            fields.append(name, value.as_bytes());
        }
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(fields: &Fields) -> String {
        let mut out = Vec::new();
        fields.write(&mut out, |name| name == b"left-out");
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_written_as_they_are_meant_however_they_came() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\nX-A:1\r\nx-b: \t2  \r\nempty:\r\nbare: x\n";
        let parts = [("Host", "a"), ("X-A", "1"), ("x-b", "2"), ("empty", ""), ("bare", "x")];
        let place = |part: &str, after: usize| {
            let at = after + String::from_utf8_lossy(&head[after..]).find(part).unwrap();
            (Extent::new(at, at + part.len()), at + part.len())
        };
        let mut at = 14;
        let lines = parts.iter().map(|(name, value)| {
            let (name, after) = place(name, at);
            let (value, after) = place(value, after + 1);
            at = after;
            FieldLine { name, value }
        });
        let fields = Fields::of_head(head, lines.collect());
        assert_eq!(written(&fields), "host: a\r\nx-a: 1\r\nx-b: 2\r\nempty: \r\nbare: x\r\n");
        assert_eq!((fields.get("host"), fields.get("empty")), (Some(&b"a"[..]), Some(&b""[..])));
    }

    #[test]
    fn a_head_that_was_begun_is_written_without_what_has_gone() {
        let came: Fields = [("a", "1"), ("b", "2"), ("te", "x")].into_iter().collect();
        let begun = || {
            let mut head = Fields::begin(&["GET", " / HTTP/1.1\r\n"], &came);
            head.extend(&came, |name| name != b"te");
            head.append("c", b"3");
            head
        };
        assert_eq!(begun().end(), b"GET / HTTP/1.1\r\na: 1\r\nb: 2\r\nc: 3\r\n\r\n");
        let mut changed = begun();
        changed.set("b", b"4");
        assert_eq!(changed.end(), b"GET / HTTP/1.1\r\na: 1\r\nc: 3\r\nb: 4\r\n\r\n");
    }

    #[test]
    fn lines_are_set_added_and_taken_away() {
        let mut fields: Fields = [("a", "1"), ("b", "2"), ("a", "3"), ("left-out", "4")].into_iter().collect();
        assert_eq!(fields.all("a").collect::<Vec<_>>(), [b"1", b"3"]);
        assert_eq!((fields.only("a"), fields.only("b"), fields.only("c")), (None, Some(&b"2"[..]), None));
        fields.append("b", b"5");
        fields.set("a", b"6");
        assert_eq!(written(&fields), "b: 2\r\nb: 5\r\na: 6\r\n");
        fields.remove("b");
        fields.remove("none");
        assert_eq!((written(&fields).as_str(), fields.len(), fields.has("b")), ("a: 6\r\n", 2, false));
        fields.retain(|name| name == b"a");
        assert_eq!(fields.len(), 1);
    }

    proptest! {
        #[test]
        fn a_name_becomes_lower_case_and_nothing_else(text in prop::collection::vec(any::<u8>(), 0..40), ends in (0..41_usize, 0..41_usize)) {
            let name = ends.0.min(ends.1).min(text.len())..ends.0.max(ends.1).min(text.len());
            let (mut lower, mut expected) = (text.clone(), text);
            super::lower(&mut lower, name.clone());
            expected[name].make_ascii_lowercase();
            prop_assert_eq!(lower, expected);
        }

        #[test]
        fn it_says_what_a_map_says(
            steps in prop::collection::vec((0_u8..3, "[a-d-]{1,3}", "[ -~]{0,4}"), 0..40),
        ) {
            let (mut fields, mut map) = (Fields::default(), HeaderMap::new());
            for (step, name, value) in &steps {
                let value = value.trim();
                let key = HeaderName::from_bytes(name.as_bytes()).unwrap();
                match step {
                    0 => {
                        fields.append(name, value.as_bytes());
                        map.append(key, value.parse().unwrap());
                    }
                    1 => {
                        fields.set(name, value.as_bytes());
                        map.insert(key, value.parse().unwrap());
                    }
                    _ => {
                        fields.remove(name);
                        map.remove(key);
                    }
                }
            }
            prop_assert_eq!(&fields.to_map(), &map);
            prop_assert_eq!(&Fields::of_map(&map).to_map(), &map);
            for name in ["a", "b", "ab", "-", "abc"] {
                let values: Vec<_> = map.get_all(name).iter().map(HeaderValue::as_bytes).collect();
                prop_assert_eq!(fields.all(name).collect::<Vec<_>>(), values);
            }
        }
    }
}
